"""More room for a state than the data have."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numbers import count
from ..shapes import Args, Time


class Augmented(eqx.Module):
    r"""$z' = f(t, z)$ of $z = [y, a]$: a field on a state with `extra` more numbers than the data.

    Solutions of an ODE never cross, so that in the space of the data one set cannot leave another
    that lies around it: on a plane a disc stays within its ring. With one more number they pass
    over one another. The solve often becomes cheaper, too, as paths need not bend around others.

    `lift` makes the first state of `z`, `drop` gives back what belongs to `y`; the field itself is
    that of `z`, unchanged.

    Args:
        field: `field(t, z, args)` on the longer state, of any leading axes that it allows.
        extra: how many numbers `lift` adds to the last axis, at least 1.
        learnt: whether their values at the start are parameters (zero before training, in `start`)
            instead of zeros.
        dtype: of `start`; JAX's default float if `None`.

    Raises:
        ValueError: for an `extra` that is no whole number from 1; when called or dropped, for a
            state that was not lifted.

    Example:
        ```python
        import jax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        field = nk.fields.Augmented(nk.fields.MLP(2 + 1, 32, 1, key=jr.key(0)), extra=1)
        ode = nk.models.NeuralODE(field)
        x = jnp.ones((8, 2))
        sol = ode(field.lift(x))
        assert sol.ys.shape == (1, 8, 3) and field.drop(sol.ys).shape == (1, 8, 2)
        ```

        With `learnt=True` lift by the field inside the model, `ode.field.lift(x)`: its `start` is
        the one that is trained.

    Reference: Dupont, Doucet and Teh (2019), "Augmented neural ODEs", arXiv 1904.01681.
    """

    field: Callable
    extra: int = eqx.field(static=True)
    start: Float[Array, " extra"] | None

    def __init__(
        self,
        field: Callable,
        extra: int,
        *,
        learnt: bool = False,
        dtype: jnp.dtype | type | None = None,
    ):
        self.field = field
        self.extra = count("extra", extra)
        dtype = jnp.result_type(float) if dtype is None else dtype
        self.start = jnp.zeros((self.extra,), dtype) if learnt else None

    def __call__(
        self, t: Time, y: Float[Array, "*batch wide"], args: Args = None
    ) -> Float[Array, "*batch wide"]:
        self._check_lifted(y)
        return self.field(t, y, args)

    def lift(self, y: Float[Array, "*batch size"]) -> Float[Array, "*batch wide"]:
        """The state with the extra numbers behind it."""
        shape = (*y.shape[:-1], self.extra)
        start = jnp.zeros(shape, y.dtype) if self.start is None else self.start.astype(y.dtype)
        return jnp.concatenate([y, jnp.broadcast_to(start, shape)], axis=-1)

    def drop(self, z: Float[Array, "*batch wide"]) -> Float[Array, "*batch size"]:
        """The state without the extra numbers."""
        self._check_lifted(z)
        return z[..., : -self.extra]

    def _check_lifted(self, z: Array) -> None:
        if z.ndim == 0 or z.shape[-1] <= self.extra:
            raise ValueError(
                f"An `Augmented` state must have more than its {self.extra} extra numbers along "
                f"the last axis, got the shape {z.shape}. Make it by `lift`."
            )
