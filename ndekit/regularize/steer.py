"""A random end of the solve."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Key, UInt

from ..integrate.times import is_concrete
from ..numbers import positive
from ..shapes import Time


class Steer(eqx.Module):
    r"""The end time drawn from $U(t_1 - b, t_1 + b)$ in training, so that the state must settle.

    Args:
        width: $b$, in the field's unit of time, positive; less than $|t_1 - t_0|$.

    Raises:
        ValueError: if `width` is not positive, or too large for times that are known.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        t0, t1 = nk.Steer(0.5).draw(0.0, 1.0, key=jr.key(0))
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), t0, t1, 0.1, jnp.ones(2)
        )
        ```

    Reference: Ghosh et al., "STEER: simple temporal regularization for neural ODEs", NeurIPS 2020.
    """

    width: float = eqx.field(static=True)

    def __check_init__(self):
        positive("width", self.width)

    def draw(
        self, t0: Time, t1: Time, *, key: Key[Array, ""] | UInt[Array, "2"]
    ) -> tuple[Time, Array]:
        """`t0`, and the end to solve to instead of `t1`."""
        known = is_concrete(t0) and is_concrete(t1)
        if known and self.width >= abs(float(t1) - float(t0)):
            raise ValueError(
                f"`width` ({self.width}) must be less than the span from `t0` ({t0}) to `t1` "
                f"({t1}), or the solve could turn round."
            )
        t1 = jnp.asarray(t1, jnp.result_type(float))
        return t0, t1 + jr.uniform(key, (), t1.dtype, -self.width, self.width)
