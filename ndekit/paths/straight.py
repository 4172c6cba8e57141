"""Paths made of powers, sines and cosines of time, from all noise to (almost) all data."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numbers import count, positive, real
from ..shapes import Time
from .gaussian import AbstractGaussianPath, slope
from .roots import as_time, exprel

# All write 1 - t first: it is exact near the data end, where m is small.


class CondOT(AbstractGaussianPath):
    r"""$a = t$, $m = 1 - (1 - \sigma_{\min})\, t$: straight lines at constant speed.

    The path of rectified flow and of most flow matching. With `sigma_min=0` the velocity is
    $x_1 - x_0$, bounded at both ends, and every conversion from it is exact up to rounding.

    Args:
        sigma_min: noise that is left at the data, at least 0 and below 1.

    Raises:
        ValueError: if `sigma_min` is out of range.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        path = nk.paths.CondOT()
        x0, x1 = jnp.array([0.0, 2.0]), jnp.array([1.0, 1.0])
        assert jnp.allclose(path.sample(0.5, x0, x1), jnp.array([0.5, 1.5]))
        assert jnp.allclose(path.velocity(0.5, x0, x1), x1 - x0)
        ```

    Reference: Lipman et al. (2023), "Flow matching for generative modeling", arXiv 2210.02747.
    """

    sigma_min: float | Array = 0.0

    def __check_init__(self):
        real("sigma_min", self.sigma_min, least=0.0, below=1.0)

    def a(self, t: Time) -> Float[Array, "*times"]:
        return as_time(t)

    def m(self, t: Time) -> Float[Array, "*times"]:
        t = as_time(t)
        return (1 - t) + self.sigma_min * t

    def t_of_ratio(
        self, a: Float[Array, "*times"], m: Float[Array, "*times"]
    ) -> Float[Array, "*times"]:
        return a / ((1 - self.sigma_min) * a + m)


class Polynomial(AbstractGaussianPath):
    r"""$a = t^n$, $m = 1 - t^n$: the lines of `CondOT` run through at another pace.

    For $n > 1$ nothing moves at $t = 0$, and the velocity there says nothing about the data.

    Args:
        n: the power, a whole number of at least 1.

    Raises:
        ValueError: if `n` is none.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        assert jnp.allclose(nk.paths.Polynomial(2).sigma(0.5), 3.0)
        ```
    """

    n: int = eqx.field(static=True)

    def __check_init__(self):
        count("n", self.n)

    def a(self, t: Time) -> Float[Array, "*times"]:
        return as_time(t) ** self.n

    def m(self, t: Time) -> Float[Array, "*times"]:
        t = as_time(t)
        return (1 - t) * sum((t**k for k in range(1, self.n)), start=jnp.ones_like(t))

    def dadt(self, t: Time) -> Float[Array, "*times"]:
        return self.n * as_time(t) ** (self.n - 1)

    def dmdt(self, t: Time) -> Float[Array, "*times"]:
        return -self.dadt(t)

    def squared_diffusion(self, t: Time) -> Float[Array, "*times"]:
        return 2 * self.n * self.m(t) / as_time(t)

    def t_of_ratio(
        self, a: Float[Array, "*times"], m: Float[Array, "*times"]
    ) -> Float[Array, "*times"]:
        return (a / (a + m)) ** (1 / self.n)


class Trigonometric(AbstractGaussianPath):
    r"""$a = \sin(\pi t / 2)$, $m = \cos(\pi t / 2)$: from noise to data along a quarter circle.

    Data of unit variance keep it on the way. For data $N(0, I)$ the velocity is 0, and an Euler
    step of any length exact.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        path = nk.paths.Trigonometric()
        assert jnp.allclose(path.a(0.3) ** 2 + path.m(0.3) ** 2, 1.0)
        ```

    Reference: Albergo and Vanden-Eijnden (2023), "Building normalizing flows with stochastic
    interpolants", arXiv 2209.15571.
    """

    def a(self, t: Time) -> Float[Array, "*times"]:
        return jnp.sin(0.5 * math.pi * as_time(t))

    def m(self, t: Time) -> Float[Array, "*times"]:
        return jnp.sin(0.5 * math.pi * (1 - as_time(t)))

    def dadt(self, t: Time) -> Float[Array, "*times"]:
        return 0.5 * math.pi * self.m(t)

    def dmdt(self, t: Time) -> Float[Array, "*times"]:
        return -0.5 * math.pi * self.a(t)

    def t_of_ratio(
        self, a: Float[Array, "*times"], m: Float[Array, "*times"]
    ) -> Float[Array, "*times"]:
        return (2 / math.pi) * jnp.arctan2(a, m)


class LogVariance(AbstractGaussianPath):
    r"""$a^2 = (M^t - 1) / (M - 1)$, $m^2 = 1 - a^2$: data $N(0, M)$ have the variance $M^t$.

    Of all paths for such data the one whose velocity has the least mean squared derivative by $x$.
    $\dot a$ is infinite at $t = 0$ and $\dot m$ at $t = 1$.

    Args:
        variance: $M$ of the data, for each coordinate, positive; noise has 1.

    Raises:
        ValueError: if `variance` is not positive.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        path = nk.paths.LogVariance(4.0)
        assert jnp.allclose(path.a(0.5) ** 2 * 4.0 + path.m(0.5) ** 2, 2.0)
        ```

    Reference: Chen et al. (2025), "Lipschitz-guided design of interpolation schedules in generative
    models", arXiv 2509.01629.
    """

    variance: float | Array

    def __check_init__(self):
        positive("variance", self.variance)

    def a(self, t: Time) -> Float[Array, "*times"]:
        t = as_time(t)
        return jnp.sqrt(t) * jnp.sqrt(self._pace(t))

    def m(self, t: Time) -> Float[Array, "*times"]:
        t = as_time(t)
        grown = jnp.asarray(self.variance, t.dtype) ** t
        return jnp.sqrt(1 - t) * jnp.sqrt(grown * self._pace(1 - t))

    def dadt(self, t: Time) -> Float[Array, "*times"]:
        return 0.5 * slope(self._share, t) / self.a(t)

    def dmdt(self, t: Time) -> Float[Array, "*times"]:
        return -0.5 * slope(self._share, t) / self.m(t)

    def squared_diffusion(self, t: Time) -> Float[Array, "*times"]:
        return slope(self._share, t) / self._share(as_time(t))

    def t_of_ratio(
        self, a: Float[Array, "*times"], m: Float[Array, "*times"]
    ) -> Float[Array, "*times"]:
        share = a**2 / (a**2 + m**2)
        small, log, safe = self._log(share.dtype)
        return jnp.where(
            small,
            share * (1 + 0.5 * log * (1 - share)),
            jnp.log1p(share * jnp.expm1(safe)) / safe,
        )

    def _share(self, t: Array) -> Array:
        """(M^t - 1) / (M - 1), which is t for M = 1."""
        return t * self._pace(t)

    def _pace(self, t: Array) -> Array:
        log = jnp.log(jnp.asarray(self.variance, t.dtype))
        return exprel(log * t) / exprel(log)

    def _log(self, dtype: jnp.dtype) -> tuple[Array, Array, Array]:
        """Whether log M is small enough for a series, log M, and something to divide by."""
        log = jnp.log(jnp.asarray(self.variance, dtype))
        small = jnp.abs(log) < jnp.finfo(dtype).eps ** 0.5
        return small, log, jnp.where(small, 1, log)
