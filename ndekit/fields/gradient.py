"""The gradient of a scalar function of the state, as a field."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..shapes import Args, Time
from .over_samples import over_samples


class Gradient(eqx.Module):
    r"""$y' = -\nabla V(t, y)$, downhill; with `ascend=True` $y' = +\nabla V(t, y)$, uphill.

    Along a solution downhill $V$ decreases at the rate $\lVert \nabla V \rVert^2$, if it does not
    depend on the time, and the Jacobian of the field is symmetric: such a field cannot go around in
    circles. Optimal transport between two densities has one.

    `y` may have leading axes, `(..., size)`; the potential is given one sample at a time.

    Args:
        potential: `potential(t, y, args)`, one number: for example an [`ndekit.fields.MLP`][] with
            `out=()` and `final="linear"`. Its second derivative enters the training: no kinks.
        ascend: uphill instead of downhill.

    Raises:
        ValueError: when called, if the potential gives no single number.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        potential = nk.fields.MLP(2, 32, 2, out=(), final="linear", key=jr.key(0))
        field = nk.fields.Gradient(potential)
        sol = nk.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 5.0, None, jnp.ones(2),
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6),
        )
        assert potential(5.0, sol.ys[-1]) < potential(0.0, jnp.ones(2))
        ```

    Reference: Finlay, Gerolin, Oberman and Pooladian (2020), "Learning normalizing flows from
    entropy-Kantorovich potentials", arXiv 2006.06033; for flows that are the gradient of a
    potential.
    """

    potential: Callable
    ascend: bool = eqx.field(static=True, default=False)

    def __call__(
        self, t: Time, y: Float[Array, "*batch size"], args: Args = None
    ) -> Float[Array, "*batch size"]:
        slope = lambda y: jax.grad(one_number(self.potential, "potential"), 1)(t, y, args)
        uphill = over_samples(slope, y, 1)
        return uphill if self.ascend else -uphill


def one_number(function: Callable, name: str) -> Callable[..., Any]:
    """The function, which must give a scalar: a derivative of an array would be another thing."""

    def checked(t: Time, y: Array, args: Args) -> Array:
        value = function(t, y, args)
        if jnp.shape(value) != ():
            raise ValueError(
                f"The {name} must be one number, a scalar, of one sample `(size,)`, but has the "
                f"shape {jnp.shape(value)}. Of a network, give it `out=()`."
            )
        return value

    return checked
