"""The paths of diffusion models, with time turned round: 0 is noise, 1 is data."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numbers import positive, real
from ..shapes import Time
from .gaussian import AbstractGaussianPath
from .roots import as_time, exprel


class AbstractLinearRate(AbstractGaussianPath):
    r"""$a = e^{-B / 2}$ with $B = \int_0^{s} \beta$, for $\beta$ linear in $s = 1 - t$."""

    beta_min: float | Array = 0.1
    beta_max: float | Array = 20.0

    def __check_init__(self):
        positive("beta_min", self.beta_min)
        positive("beta_max", self.beta_max)

    def a(self, t: Time) -> Float[Array, "*times"]:
        return jnp.exp(-0.5 * self._integral(t))

    def _integral(self, t: Time) -> Array:
        """B."""
        return (1 - as_time(t)) * self._mean_rate(t)

    def _mean_rate(self, t: Time) -> Array:
        """B / s."""
        return self.beta_min + 0.5 * (1 - as_time(t)) * (self.beta_max - self.beta_min)

    def _beta(self, t: Time) -> Array:
        return self.beta_min + (1 - as_time(t)) * (self.beta_max - self.beta_min)

    def _t_of_integral(self, b: Array) -> Array:
        rise = self.beta_max - self.beta_min
        # The root of a quadratic in the form that does not cancel.
        return 1 - 2 * b / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2 * rise * b))


class VP(AbstractLinearRate):
    r"""$a = e^{-B/2}$, $m = \sqrt{1 - e^{-B}}$ with
    $B = s \beta_{\min} + s^2 (\beta_{\max} - \beta_{\min}) / 2$ and $s = 1 - t$.

    The variance-preserving path of DDPM. At $t = 0$ a little of the data is left,
    $a = 0.0066$ by default, and $\sigma = 152$. $\dot m$ is infinite at $t = 1$: a velocity
    computed from noise is, too. Solve to $t = 1 - 10^{-3}$, as is usual, or from a score.

    Args:
        beta_min: rate of noising at the data, positive.
        beta_max: rate of noising at the noise, positive.

    Raises:
        ValueError: if a rate is not positive.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        path = nk.paths.VP()
        assert jnp.allclose(path.a(0.4) ** 2 + path.m(0.4) ** 2, 1.0)
        assert jnp.allclose(path.t_of_sigma(path.sigma(0.4)), 0.4)
        ```

    Reference: Song et al. (2021), "Score-based generative modeling through stochastic differential
    equations", arXiv 2011.13456, appendix B.
    """

    def m(self, t: Time) -> Float[Array, "*times"]:
        # The root of s apart: in one root the derivative by the rates is NaN at s = 0.
        rate = self._mean_rate(t) * exprel(-self._integral(t))
        return jnp.sqrt(1 - as_time(t)) * jnp.sqrt(rate)

    def dmdt(self, t: Time) -> Float[Array, "*times"]:
        # Of m^2. The two factors of m move against each other near the noise.
        return -0.5 * self._beta(t) * jnp.exp(-self._integral(t)) / self.m(t)

    def squared_diffusion(self, t: Time) -> Float[Array, "*times"]:
        return self._beta(t)

    def t_of_ratio(
        self, a: Float[Array, "*times"], m: Float[Array, "*times"]
    ) -> Float[Array, "*times"]:
        return self._t_of_integral(jnp.log1p((m / a) ** 2))


class SubVP(AbstractLinearRate):
    r"""$a = e^{-B/2}$, $m = 1 - e^{-B}$, $B$ as of `VP`: less noise than `VP` everywhere.

    At $t = 1 - 10^{-3}$ it has $\sigma = 1.1 \cdot 10^{-4}$ where `VP` has $10^{-2}$: compare paths
    at equal $\sigma$, not at equal $t$.

    Args:
        beta_min: rate of noising at the data, positive.
        beta_max: rate of noising at the noise, positive.

    Raises:
        ValueError: if a rate is not positive.

    Example:
        ```python
        import ndekit as nk

        t = 0.999
        assert nk.paths.SubVP().sigma(t) < 0.02 * nk.paths.VP().sigma(t)
        ```

    Reference: Song et al. (2021), arXiv 2011.13456, appendix B.
    """

    def m(self, t: Time) -> Float[Array, "*times"]:
        return -jnp.expm1(-self._integral(t))

    def t_of_ratio(
        self, a: Float[Array, "*times"], m: Float[Array, "*times"]
    ) -> Float[Array, "*times"]:
        return self._t_of_integral(2 * jnp.arcsinh(0.5 * m / a))


class AbstractAddedNoise(AbstractGaussianPath):
    """$a = 1$: noise is added to the data and nothing is taken away."""

    def a(self, t: Time) -> Float[Array, "*times"]:
        return jnp.ones_like(as_time(t))


class VE(AbstractAddedNoise):
    r"""$a = 1$, $m = \sigma_{\min} (\sigma_{\max} / \sigma_{\min})^{1 - t}$: noise is added, in
    equal factors.

    Args:
        sigma_min: noise at the data, positive.
        sigma_max: noise at the noise end, above `sigma_min`; far above the spread of the data, for
            $x_0$ is started from $N(0, \sigma_{\max}^2)$.

    Raises:
        ValueError: if the levels are not positive and in this order.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        path = nk.paths.VE(0.01, 100.0)
        assert jnp.allclose(path.sigma(0.5), 1.0) and path.dadt(0.5) == 0
        ```

    Reference: Song et al. (2021), arXiv 2011.13456, appendix B.
    """

    sigma_min: float | Array = 0.01
    sigma_max: float | Array = 50.0

    def __check_init__(self):
        check_levels(self.sigma_min, self.sigma_max)

    def m(self, t: Time) -> Float[Array, "*times"]:
        return self.sigma_min * jnp.exp((1 - as_time(t)) * self._logs())

    def t_of_ratio(
        self, a: Float[Array, "*times"], m: Float[Array, "*times"]
    ) -> Float[Array, "*times"]:
        return 1 - jnp.log(m / (a * self.sigma_min)) / self._logs()

    def _logs(self) -> Array:
        return jnp.log(jnp.asarray(self.sigma_max / self.sigma_min))


class EDM(AbstractAddedNoise):
    r"""$a = 1$, $m = \bigl((1 - t)\, \sigma_{\max}^{1/p} + t\, \sigma_{\min}^{1/p}\bigr)^p$.

    The grid of EDM as a path: equal steps of $t$ are its steps. (Its own time is $\sigma$ itself,
    from 80 to 0.002.)

    Args:
        sigma_min: noise at the data, positive.
        sigma_max: noise at the noise end, above `sigma_min`.
        power: $p$, its $\rho$; positive.

    Raises:
        ValueError: if the levels are not positive and in this order, or `power` is not positive.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        ts = jnp.linspace(0.0, 1.0, 18)
        levels = nk.paths.EDM().sigma(ts)
        assert jnp.allclose(levels[0], 80.0) and jnp.allclose(levels[-1], 0.002)
        ```

    Reference: Karras et al. (2022), "Elucidating the design space of diffusion-based generative
    models", arXiv 2206.00364, eq. 5.
    """

    sigma_min: float | Array = 0.002
    sigma_max: float | Array = 80.0
    power: float | Array = 7.0

    def __check_init__(self):
        check_levels(self.sigma_min, self.sigma_max)
        positive("power", self.power)

    def m(self, t: Time) -> Float[Array, "*times"]:
        t = as_time(t)
        most, least = self._roots()
        return ((1 - t) * most + t * least) ** self.power

    def t_of_ratio(
        self, a: Float[Array, "*times"], m: Float[Array, "*times"]
    ) -> Float[Array, "*times"]:
        most, least = self._roots()
        return (most - (m / a) ** (1 / self.power)) / (most - least)

    def _roots(self) -> tuple[float | Array, float | Array]:
        return self.sigma_max ** (1 / self.power), self.sigma_min ** (1 / self.power)


class Cosine(AbstractGaussianPath):
    r"""$a = \cos u / \cos u_1$, $m = \sqrt{1 - a^2}$ with
    $u = \frac{\pi}{2} \frac{1 - t + s}{1 + s}$ and $u_1 = u(1)$.

    $\dot m$ is infinite at $t = 1$: a velocity computed from noise is, too.

    Args:
        s: the offset, positive.

    Raises:
        ValueError: if `s` is not positive; for none there is `Trigonometric`.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        path = nk.paths.Cosine()
        assert jnp.allclose(path.a(0.4) ** 2 + path.m(0.4) ** 2, 1.0)
        ```

    Reference: Nichol and Dhariwal (2021), "Improved denoising diffusion probabilistic models",
    arXiv 2102.09672, eq. 17.
    """

    s: float | Array = 0.008

    def __check_init__(self):
        positive("s", self.s)

    def a(self, t: Time) -> Float[Array, "*times"]:
        return jnp.sin(self._quarter() * as_time(t)) / self._cosine()

    def m(self, t: Time) -> Float[Array, "*times"]:
        # 1 - a^2 without the cancellation: cos^2 v - cos^2 u = sin(u - v) sin(u + v).
        # The root of 1 - t apart: in one root the derivative by the offset is NaN at t = 1.
        left, quarter = 1 - as_time(t), self._quarter()
        rest = quarter * jnp.sinc(quarter / math.pi * left) * jnp.sin(quarter * (left + 2 * self.s))
        return jnp.sqrt(left) * jnp.sqrt(rest) / self._cosine()

    def dadt(self, t: Time) -> Float[Array, "*times"]:
        u = self._quarter() * ((1 - as_time(t)) + self.s)
        return self._quarter() * jnp.sin(u) / self._cosine()

    def dmdt(self, t: Time) -> Float[Array, "*times"]:
        return -self.a(t) * self.dadt(t) / self.m(t)

    def squared_diffusion(self, t: Time) -> Float[Array, "*times"]:
        return 2 * self.dadt(t) / self.a(t)

    def t_of_ratio(
        self, a: Float[Array, "*times"], m: Float[Array, "*times"]
    ) -> Float[Array, "*times"]:
        # Not the arcsine of its sine, which is near 1 at the data.
        sine = jnp.sin(jnp.asarray(self._quarter() * self.s))
        return jnp.arctan2(self._cosine() * a, jnp.sqrt(m**2 + (sine * a) ** 2)) / self._quarter()

    def _quarter(self) -> float | Array:
        return 0.5 * math.pi / (1 + self.s)

    def _cosine(self) -> Array:
        """cos u_1."""
        return jnp.cos(jnp.asarray(self._quarter() * self.s))


def check_levels(sigma_min: object, sigma_max: object) -> None:
    """Pass over two positive levels of noise, the lower one first.

    Raises:
        ValueError: for others.
    """
    positive("sigma_min", sigma_min)
    positive("sigma_max", sigma_max)
    try:
        least = float(sigma_min)  # pyright: ignore[reportArgumentType]
    except TypeError:  # traced
        return
    real("sigma_max", sigma_max, above=least, advice="It is the level at the noise end.")
