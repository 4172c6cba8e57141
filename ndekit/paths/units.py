"""What the points of a path are measured in, so that all paths can be compared."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numbers import positive
from ..shapes import Time
from .gaussian import AbstractGaussianPath
from .roots import as_time


class PathUnits(eqx.Module):
    r"""$u(t) = \sqrt{a^2 s^2 + m^2}$, the spread of $x_t$ of data with the standard deviation $s$;
    without one, $a(t)$.

    $x_t / u$ depends on the level of noise and on the data alone, whatever the path: `nk.InUnits`
    with these units has tolerances that mean the same on all paths. Without $s$ it is $x_t / a$,
    the data with noise $\sigma$ added.

    Args:
        path: any Gaussian path, diagonal ones included.
        data_std: $s$, positive, or `None`.

    Raises:
        ValueError: if `data_std` is not positive.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        path = nk.paths.VP()
        unit = nk.paths.PathUnits(path, 1.0)
        assert jnp.allclose(unit(0.3), 1.0)  # the variance of normalised data is kept
        controller = nk.InUnits(diffrax.PIDController(rtol=1e-3, atol=1e-3), unit)
        ```
    """

    path: AbstractGaussianPath
    data_std: float | Array | None = None

    def __check_init__(self):
        if self.data_std is not None:
            positive("data_std", self.data_std)

    def __call__(self, t: Time) -> Float[Array, "*size"]:
        t = as_time(t)
        if self.data_std is None:
            return self.path.a(t)
        return jnp.sqrt((self.path.a(t) * self.data_std) ** 2 + self.path.m(t) ** 2)
