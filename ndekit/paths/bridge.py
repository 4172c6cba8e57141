"""What lies between two samples: a straight line with noise around it."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numbers import real
from ..shapes import Time
from .conversion import over
from .roots import as_time


class AbstractBridge(eqx.Module):
    r"""$x_t = (1 - t)\, x_0 + t\, x_1 + \sigma_t z$ with $z \sim N(0, I)$, between samples of
    anything.
    """

    @abc.abstractmethod
    def deviation(self, t: Time) -> Float[Array, "*times"]:
        r"""$\sigma_t$."""

    @abc.abstractmethod
    def velocity(
        self,
        t: Time,
        x: Float[Array, "*shape"],
        x0: Float[Array, "*shape"],
        x1: Float[Array, "*shape"],
    ) -> Float[Array, "*shape"]:
        r"""$\dot\sigma_t / \sigma_t\, (x - \mu_t) + x_1 - x_0$, the target at `x`."""

    @abc.abstractmethod
    def score(
        self,
        t: Time,
        x: Float[Array, "*shape"],
        x0: Float[Array, "*shape"],
        x1: Float[Array, "*shape"],
    ) -> Float[Array, "*shape"]:
        r"""$-(x - \mu_t) / \sigma_t^2$, of the density between `x0` and `x1`; 0 where the
        deviation is 0 and there is no density.
        """

    def mean(
        self, t: Time, x0: Float[Array, "*shape"], x1: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        r"""$\mu_t = (1 - t) x_0 + t x_1$."""
        t = as_time(t).astype(x1.dtype)
        return (1 - t) * x0 + t * x1

    def sample(
        self,
        t: Time,
        x0: Float[Array, "*shape"],
        x1: Float[Array, "*shape"],
        z: Float[Array, "*shape"],
    ) -> Float[Array, "*shape"]:
        """$x_t$, with standard normal noise `z`."""
        return self.mean(t, x0, x1) + self.deviation(t).astype(z.dtype) * z


class Bridge(AbstractBridge):
    r"""$x_t = (1 - t)\, x_0 + t\, x_1 + \sigma \sqrt{t (1 - t)}\, z$ with $z \sim N(0, I)$.

    Both ends may be samples of anything. Between pairs of an entropic coupling with
    $\varepsilon = 2 \sigma^2$, [`ndekit.couplings.SchroedingerBridge`][], it is the Schrödinger
    bridge. With `sigma=0` it is the straight line.

    Args:
        sigma: standard deviation of the Brownian motion at time 1, at least 0.

    Raises:
        ValueError: if `sigma` is out of range.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        bridge = nk.paths.Bridge(1.0)
        x0, x1, z = jnp.zeros(2), jnp.ones(2), jnp.array([1.0, -1.0])
        x = bridge.sample(0.2, x0, x1, z)
        drift = bridge.velocity(0.2, x, x0, x1) + 0.5 * bridge.score(0.2, x, x0, x1)
        assert jnp.allclose(drift, (x1 - x) / 0.8)  # of the pinned Brownian motion
        ```

    Reference: Tong et al. (2024), "Simulation-free Schrödinger bridges via score and flow
    matching", arXiv 2307.03672, eq. 8.
    """

    sigma: float | Array

    def __check_init__(self):
        real("sigma", self.sigma, least=0.0)

    def deviation(self, t: Time) -> Float[Array, "*times"]:
        r"""$\sigma \sqrt{t (1 - t)}$, 0 at both ends."""
        t = as_time(t)
        return self.sigma * jnp.sqrt(t * (1 - t))

    def velocity(
        self,
        t: Time,
        x: Float[Array, "*shape"],
        x0: Float[Array, "*shape"],
        x1: Float[Array, "*shape"],
    ) -> Float[Array, "*shape"]:
        r"""$\frac{1 - 2 t}{2 t (1 - t)} (x - \mu_t) + x_1 - x_0$, the target at `x`; at the ends,
        where `x` is the mean, $x_1 - x_0$.
        """
        t = as_time(t).astype(x.dtype)
        away = x - self.mean(t, x0, x1)
        return over((1 - 2 * t) * away, 2 * t * (1 - t)) + (x1 - x0)

    def score(
        self,
        t: Time,
        x: Float[Array, "*shape"],
        x0: Float[Array, "*shape"],
        x1: Float[Array, "*shape"],
    ) -> Float[Array, "*shape"]:
        r"""$-(x - \mu_t) / (\sigma^2 t (1 - t))$, of the density between `x0` and `x1`; 0 at the
        ends and for `sigma=0`, where there is no density.
        """
        t = as_time(t).astype(x.dtype)
        return -over(x - self.mean(t, x0, x1), self.sigma**2 * t * (1 - t))


class NoisyLine(AbstractBridge):
    r"""$x_t = (1 - t)\, x_0 + t\, x_1 + \sigma z$ with $z \sim N(0, I)$: the same noise at all
    times, the ends included.

    The target is $x_1 - x_0$ whatever the noise, and bounded. A flow that is trained on it carries
    the law of $x_0$ to that of $x_1$, both blurred by `sigma`. Between independent pairs it is
    I-CFM, between pairs of [`ndekit.couplings.ExactOT`][] OT-CFM.

    Args:
        sigma: standard deviation of the noise, at least 0.

    Raises:
        ValueError: if `sigma` is out of range.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        line = nk.paths.NoisyLine(0.1)
        x0, x1, z = jnp.zeros(2), jnp.ones(2), jnp.array([1.0, -1.0])
        x = line.sample(0.5, x0, x1, z)
        assert jnp.allclose(x, jnp.array([0.6, 0.4]))
        assert jnp.allclose(line.velocity(0.5, x, x0, x1), x1 - x0)
        ```

    Reference: Tong et al. (2024), "Improving and generalizing flow-based generative models with
    minibatch optimal transport", arXiv 2302.00482, section 3.2.
    """

    sigma: float | Array

    def __check_init__(self):
        real("sigma", self.sigma, least=0.0)

    def deviation(self, t: Time) -> Float[Array, "*times"]:
        r"""$\sigma$, at all times."""
        t = as_time(t)
        return self.sigma * jnp.ones_like(t)

    def velocity(
        self,
        t: Time,
        x: Float[Array, "*shape"],
        x0: Float[Array, "*shape"],
        x1: Float[Array, "*shape"],
    ) -> Float[Array, "*shape"]:
        """$x_1 - x_0$, the target at every `x`."""
        return x1 - x0

    def score(
        self,
        t: Time,
        x: Float[Array, "*shape"],
        x0: Float[Array, "*shape"],
        x1: Float[Array, "*shape"],
    ) -> Float[Array, "*shape"]:
        r"""$-(x - \mu_t) / \sigma^2$; 0 for `sigma=0`, where there is no density."""
        variance = self.sigma**2 * jnp.ones((), x.dtype)
        return -over(x - self.mean(t, x0, x1), variance, at_zero=True)
