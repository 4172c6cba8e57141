"""What every Gaussian probability path is: noise and data, mixed by two functions of time."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from ..shapes import Time
from .roots import as_time, rising_root


class AbstractGaussianPath(eqx.Module):
    r"""$x_t = a(t)\, x_1 + m(t)\, x_0$ with noise $x_0 \sim N(0, I)$ and data $x_1$: at $t = 0$
    noise, at $t = 1$ data.

    A path of one's own gives `a` and `m`, of a time or of an array of times; all else follows from
    them. $\sigma = m / a$ must fall. (Of the paths here $a$ rises or is constant and $m$ falls;
    only the scale of a `LearnedPath` is free.) Whoever knows a derivative or
    an inverse better than automatic differentiation and halving do may give that, too: `dadt`,
    `dmdt`, `squared_diffusion`, `t_of_ratio`. (Where $m$ has an infinite slope at an end at which
    it is 0, `squared_diffusion` must be given, or it is NaN there.)

    Times are those of flows. Diffusion papers run $s = 1 - t$, from data to noise.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        class Fading(nk.paths.AbstractGaussianPath):
            def a(self, t):
                return t * t

            def m(self, t):
                return (1 - t) ** 2

        path = Fading()
        assert jnp.allclose(path.sigma(0.5), 1.0)
        assert jnp.allclose(path.t_of_sigma(4.0), 1 / 3)
        ```
    """

    @abc.abstractmethod
    def a(self, t: Time) -> Float[Array, "*size"]:
        """What the data are multiplied by, a number, or one for each coordinate."""

    @abc.abstractmethod
    def m(self, t: Time) -> Float[Array, "*size"]:
        """What the noise is multiplied by."""

    def dadt(self, t: Time) -> Float[Array, "*size"]:
        """The derivative of `a`."""
        return slope(self.a, t)

    def dmdt(self, t: Time) -> Float[Array, "*size"]:
        """The derivative of `m`; it is infinite at the end of some paths, which say so."""
        return slope(self.m, t)

    def ratio(self, t: Time) -> tuple[Float[Array, "*times"], Float[Array, "*times"]]:
        """`a` and `m` up to a factor that they share: two numbers for each time, never both 0."""
        t = as_time(t)
        return self.a(t), self.m(t)

    def sigma(self, t: Time) -> Float[Array, "*times"]:
        r"""$\sigma = m / a$, the level of noise beside the data; infinite where $a$ is 0."""
        a, m = self.ratio(t)
        return m / a

    def rho(self, t: Time) -> Float[Array, "*times"]:
        r"""$\rho = a / m = 1 / \sigma$; infinite where $m$ is 0."""
        a, m = self.ratio(t)
        return a / m

    def log_rho(self, t: Time) -> Float[Array, "*times"]:
        r"""$\lambda = \log(a / m)$, half of the logarithm of the signal-to-noise ratio."""
        a, m = self.ratio(t)
        return jnp.log(a) - jnp.log(m)

    def lam(self, t: Time) -> Float[Array, "*times"]:
        r"""$\lambda$ of DPM-Solver: another name of `log_rho`."""
        return self.log_rho(t)

    def squared_diffusion(self, t: Time) -> Float[Array, "*size"]:
        r"""$g^2 = 2 m^2 (\dot a / a - \dot m / m)$, of the noising SDE
        $dx = (\dot a / a)\, x\, ds + g\, dw$ in $s = 1 - t$, and of its reverse.
        """
        a, m = self.a(t), self.m(t)
        return 2 * m * (m * self.dadt(t) / a - self.dmdt(t))

    def t_of_ratio(
        self, a: Float[Array, "*times"], m: Float[Array, "*times"]
    ) -> Float[Array, "*times"]:
        """The time at which `a(t)` is to `m(t)` as `a` to `m`, neither below 0, nor both 0.

        NaN or a time outside [0, 1] if there is none.
        """
        size = jax.lax.stop_gradient(a + m)
        rising = lambda t: (m * self.ratio(t)[0] - a * self.ratio(t)[1]) / size
        return rising_root(rising, jnp.zeros_like(a + m))

    def t_of_sigma(self, sigma: Time) -> Float[Array, "*times"]:
        """The time at which the level of noise is `sigma`; differentiable.

        Args:
            sigma: between `sigma(1)` and `sigma(0)`, ends included, which may be infinite; a number
                or an array.

        Returns:
            The time; NaN for a traced `sigma` that the path does not have.

        Raises:
            ValueError: for a known `sigma` that the path does not have.
        """
        level = as_time(sigma)
        # Also inside of jit: what is known is checked.
        with jax.ensure_compile_time_eval():
            slack = 64 * jnp.finfo(level.dtype).eps
            ends = jnp.zeros((), level.dtype), jnp.ones((), level.dtype)
            most, least = self.sigma(ends[0]), self.sigma(ends[1])
            inside = (level >= least * (1 - slack)) & (level <= most * (1 + slack))
            if not isinstance(inside, Tracer) and not jnp.all(inside):
                raise ValueError(
                    f"`sigma` must be between {float(least):g} and {float(most):g}, the levels of "
                    f"noise of this {type(self).__name__}, got {float(level[~inside][0]):g}."
                )
        # Not by 1 / sigma: that is infinite at the noise end of many paths.
        t = self.t_of_ratio(1 / jnp.maximum(level, 1), jnp.minimum(level, 1))
        return jnp.where(inside, t, jnp.nan)

    def sample(
        self, t: Time, x0: Float[Array, "*shape"], x1: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """$x_t$ from noise `x0` and data `x1`."""
        t = as_time(t)
        return self.a(t).astype(x1.dtype) * x1 + self.m(t).astype(x0.dtype) * x0

    def velocity(
        self, t: Time, x0: Float[Array, "*shape"], x1: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        r"""$\dot a x_1 + \dot m x_0$, the derivative of `sample`: the target of flow matching."""
        t = as_time(t)
        return times(self.dadt(t).astype(x1.dtype), x1) + times(self.dmdt(t).astype(x0.dtype), x0)


def slope(f: Callable, t: Time) -> Array:
    """The derivative of `f` at `t`, by forward mode."""
    t = as_time(t)
    return jax.jvp(lambda t: jnp.asarray(f(t), t.dtype), (t,), (jnp.ones_like(t),))[1]


def times(factor: Array, x: Array) -> Array:
    """`factor * x`, where nothing times an infinite factor is nothing."""
    return jnp.where(jnp.isinf(factor) & (x == 0), 0, factor) * x
