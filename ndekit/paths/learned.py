"""A path with parameters to train."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numbers import count
from ..shapes import Time
from .diffusion import check_levels
from .gaussian import AbstractGaussianPath
from .roots import as_time, rising_root
from .splines import places, spline


class LearnedPath(AbstractGaussianPath):
    r"""$\log\sigma$ goes from $\log\sigma_{\max}$ to $\log\sigma_{\min}$ by a trained increasing
    warp $w$, and $x_t$ has a trained scale $S$:
    $a = S / \sqrt{1 + \sigma^2}$, $m = S \sigma / \sqrt{1 + \sigma^2}$.

    The warp is a cubic B-spline whose coefficients rise by the softmax of `warp`, the scale the
    exponential of one with the coefficients `log_scale`; both have two continuous derivatives. At 0
    the warp is the identity (equal steps of $\log\sigma$) and the variance of normalised data is
    kept. The ends are $\sigma_{\max}$ and $\sigma_{\min}$ whatever the parameters: a path cannot
    become easy by noising less.

    A diagonal path has a scale for each coordinate, and $\sigma$ in common; so a trained field is
    moved to it exactly, too, by [`ndekit.paths.scale_time`][].

    Args:
        sigma_min: level of noise at $t = 1$, positive; it is not trained.
        sigma_max: level of noise at $t = 0$, above `sigma_min`; it is not trained.
        num_knots: coefficients of the warp and of the scale, at least 4.
        size: number of coordinates of a diagonal path; `None` for one scale.

    Raises:
        ValueError: if the levels are not positive and in this order, or a number is too small.

    Example:
        ```python
        import equinox as eqx, jax.numpy as jnp, ndekit as nk

        path = nk.paths.LearnedPath(0.002, 80.0)
        bent = eqx.tree_at(lambda p: p.warp, path, 0.5 * jnp.arange(7.0))
        assert jnp.allclose(path.sigma(0.5), (0.002 * 80.0) ** 0.5)
        assert bent.sigma(0.5) > path.sigma(0.5)
        assert jnp.allclose(bent.sigma(1.0), 0.002)
        ```

    Reference: Shaul et al. (2024), "Bespoke solvers for generative flow models", arXiv 2310.19075,
    for paths as a warp and a scale.
    """

    warp: Float[Array, " knots-1"]
    log_scale: Float[Array, "knots *size"]
    sigma_min: float = eqx.field(static=True)
    sigma_max: float = eqx.field(static=True)

    def __init__(
        self, sigma_min: float, sigma_max: float, *, num_knots: int = 8, size: int | None = None
    ):
        check_levels(sigma_min, sigma_max)
        count("num_knots", num_knots, 4)
        shape = (num_knots,) if size is None else (num_knots, count("size", size))
        self.warp, self.log_scale = jnp.zeros(num_knots - 1), jnp.zeros(shape)
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)

    @classmethod
    def like(
        cls,
        path: AbstractGaussianPath,
        sigma_min: float,
        sigma_max: float,
        *,
        num_knots: int = 8,
        size: int | None = None,
    ) -> "LearnedPath":
        """A path to train that starts near another one, between these levels of noise.

        Coefficients are the values of `path`, so that the start is as smooth, and as near as the
        knots are dense.

        Args:
            path: a scalar path that has both levels.
            sigma_min: as of the class.
            sigma_max: as of the class.
            num_knots: as of the class.
            size: as of the class.

        Raises:
            ValueError: as of the class, or if `path` does not have the levels.
        """
        made = cls(sigma_min, sigma_max, num_knots=num_knots, size=size)
        t0, t1 = path.t_of_sigma(sigma_max), path.t_of_sigma(sigma_min)
        ts = t0 + (t1 - t0) * jnp.asarray(places(num_knots), t0.dtype)
        a, m = path.a(ts), path.m(ts)
        warp = jnp.log(sigma_max * a / m) / jnp.log(jnp.asarray(sigma_max / sigma_min))
        steps = jnp.diff(warp.at[0].set(0.0).at[-1].set(1.0))
        scale = 0.5 * jnp.log(a**2 + m**2)
        scale = scale if size is None else jnp.broadcast_to(scale[:, None], (num_knots, size))
        parts = (jnp.log(steps / _even_steps(num_knots, steps.dtype)), scale)
        return eqx.tree_at(lambda p: (p.warp, p.log_scale), made, parts)

    def a(self, t: Time) -> Float[Array, "*times_and_size"]:
        return self._scaled(t, 0)

    def m(self, t: Time) -> Float[Array, "*times_and_size"]:
        return self._scaled(t, 1)

    def ratio(self, t: Time) -> tuple[Float[Array, "*times"], Float[Array, "*times"]]:
        # By the smaller end's logarithm: there the rounding of a large exponent would be seen.
        t = as_time(t)
        falls = self._span(t.dtype) * (1 - self._warped(t))
        sigma = self.sigma_min * jnp.exp(falls)
        size = jnp.sqrt(1 + sigma**2)
        return 1 / size, sigma / size

    def sigma(self, t: Time) -> Float[Array, "*times"]:
        a, m = self.ratio(t)
        return m / a

    def t_of_ratio(
        self, a: Float[Array, "*times"], m: Float[Array, "*times"]
    ) -> Float[Array, "*times"]:
        share = 1 - jnp.log(m / (a * self.sigma_min)) / self._span(m.dtype)
        return rising_root(self._warped, share)

    def _scaled(self, t: Time, which: int) -> Array:
        t = as_time(t)
        scale = jnp.exp(spline(t, self.log_scale.astype(t.dtype)))
        part = self.ratio(t)[which]
        return part.reshape(*t.shape, *[1] * (scale.ndim - t.ndim)) * scale

    def _warped(self, t: Array) -> Array:
        """w."""
        even = jnp.log(_even_steps(len(self.warp) + 1, t.dtype))
        steps = jax.nn.softmax(self.warp.astype(t.dtype) + even)
        inner = jnp.cumsum(steps[:-1])
        ends = jnp.zeros((1,), t.dtype), jnp.ones((1,), t.dtype)
        return spline(t, jnp.concatenate([ends[0], inner, ends[1]]))

    def _span(self, dtype: jnp.dtype) -> Array:
        return jnp.log(jnp.asarray(self.sigma_max / self.sigma_min, dtype))


def _even_steps(num: int, dtype: jnp.dtype) -> Array:
    """From each coefficient of the identity to the next."""
    middles = places(num)
    return jnp.asarray(middles[1:] - middles[:-1], dtype)
