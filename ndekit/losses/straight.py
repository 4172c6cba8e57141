"""A field whose solutions are straight at constant speed, over a step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numbers import real
from ..shapes import Args, Time
from .matching import Sample, called, mean_square


def iso(field: Callable, t: Time, x: Sample, h: float, *, args: Args = None) -> Float[Array, ""]:
    r"""$|f(t + h, x + h\, \mathrm{sg} f(t, x)) - f(t, x)|^2 / (d h^2)$: the acceleration along the
    flow, as a difference over a step of Euler's method.

    That is $(2 / h^2)^2$ times the squared error estimate of a Heun-Euler pair: what
    [`ndekit.StepError`][] penalises in the steps of a solve, here at points of the path and without
    one.
    Nothing is differentiated through the point that the step leads to.

    Args:
        field: called as `field(t, x, args)`, the velocity.
        t: one time, with `t + h` in the domain.
        x: a point of the path at that time.
        h: length of the step, above 0.
        args: for the field.

    Returns:
        The penalty at this point, to be added to a loss with a weight.

    Raises:
        ValueError: if `h` is not above 0, or the field returns another shape than `x` has.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        turning = lambda t, x, args: jnp.stack([-x[1], x[0]])
        bent = nk.losses.iso(turning, 0.0, jnp.array([1.0, 0.0]), 1e-3)
        assert jnp.allclose(bent, 0.5, rtol=1e-2)
        ```

    Reference: Iso-FM (2026), arXiv 2604.04491.
    """
    real("h", h, above=0.0)
    t = jnp.asarray(t)
    here = called(field, t, x, args, x)
    ahead = called(field, t + h, x + h * jax.lax.stop_gradient(here), args, x)
    return mean_square((ahead - here) / h, None, t)
