"""A path whose noise is multiplied, on the same curve."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numbers import positive
from ..shapes import Time
from .gaussian import AbstractGaussianPath
from .roots import as_time, without_rounding


class Shifted(AbstractGaussianPath):
    r"""$x_{w(t)}$ of another path, with $\sigma(w(t)) = \mathrm{shift} \cdot \sigma(t)$.

    More time is spent in noise for `shift` above 1, as large images want it. On `CondOT()` it is
    $m' = \mathrm{shift} \cdot m / (1 + (\mathrm{shift} - 1)\, m)$. A path that ends at a finite
    `sigma` is continued beyond its ends by its own formulas; `LearnedPath` has none and cannot be
    shifted: NaN.

    Args:
        path: the path; one that is no longer trained, or trained as part of this one.
        shift: what $\sigma$ is multiplied by, positive.

    Raises:
        ValueError: if `shift` is not positive.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        path = nk.paths.Shifted(nk.paths.CondOT(), 3.0)
        assert jnp.allclose(path.sigma(0.5), 3.0)
        assert jnp.allclose(path.m(0.5), 3.0 * 0.5 / (1 + 2.0 * 0.5))
        ```

    Reference: Esser et al. (2024), "Scaling rectified flow transformers for high-resolution image
    synthesis", arXiv 2403.03206, eq. 23.
    """

    path: AbstractGaussianPath
    shift: float | Array

    def __check_init__(self):
        positive("shift", self.shift)

    def a(self, t: Time) -> Float[Array, "*size"]:
        a, _, factor = self._moved(t)
        return factor * a

    def m(self, t: Time) -> Float[Array, "*size"]:
        _, m, factor = self._moved(t)
        return factor * m

    def ratio(self, t: Time) -> tuple[Float[Array, "*times"], Float[Array, "*times"]]:
        a, m = self.path.ratio(t)
        return a, self.shift * m

    def dadt(self, t: Time) -> Float[Array, "*size"]:
        return self._slopes(t)[0]

    def dmdt(self, t: Time) -> Float[Array, "*size"]:
        return self._slopes(t)[1]

    def squared_diffusion(self, t: Time) -> Float[Array, "*size"]:
        return self.path.squared_diffusion(self._warp(t)) * self._pace(t)[0]

    def t_of_ratio(
        self, a: Float[Array, "*times"], m: Float[Array, "*times"]
    ) -> Float[Array, "*times"]:
        return self.path.t_of_ratio(self.shift * a, m)

    def _warp(self, t: Time) -> Array:
        """w, which only rounding does not put beyond 0 or 1."""
        w = self.path.t_of_ratio(*self.ratio(as_time(t)))
        return without_rounding(w)

    def _moved(self, t: Time) -> tuple[Array, Array, Array]:
        """`a` and `shift * m` at t, and the factor that takes them to w.

        Not `a` and `m` at w themselves: near an end the rounding of w would be all that is left.
        """
        a, m = self.path.a(as_time(t)), self.shift * self.path.m(as_time(t))
        w = self._warp(t)
        signal, noise = self.ratio(as_time(t))
        near_data = signal > noise
        # Of the two the one that does not vanish: the other may have an infinite slope by w.
        at_w = self.path.a(jnp.where(near_data, w, 0.5)), self.path.m(jnp.where(near_data, 0.5, w))
        sizes = range(near_data.ndim, a.ndim)  # of a path with a scale for each coordinate
        near_data = jnp.expand_dims(near_data, tuple(sizes))
        by_a, by_m = at_w[0] / jnp.where(near_data, a, 1), at_w[1] / jnp.where(near_data, 1, m)
        return a, m, jnp.where(near_data, by_a, by_m)

    def _slopes(self, t: Time) -> tuple[Array, Array]:
        """The smaller of a and m by the determinant, for the reason that `_moved` gives."""
        a, m = self.a(t), self.m(t)
        pace, determinant = self._pace(t)
        w = self._warp(t)
        dadt, dmdt = self.path.dadt(w) * pace, self.path.dmdt(w) * pace
        return (
            jnp.where(a > m, dadt, (a * dmdt - determinant) / m),
            jnp.where(a > m, (determinant + m * dadt) / a, dmdt),
        )

    def _pace(self, t: Time) -> tuple[Array, Array]:
        r"""$\dot w$ and the determinant $a \dot m - m \dot a$ of the shifted path.

        By $d \log\sigma / dt$, the same at $t$ and at $w$, not by automatic differentiation: that
        has 0 times infinity at the ends.
        """
        t = as_time(t)
        here, there = self._determinant(t), self._determinant(self._warp(t))
        scale = self.shift * self._moved(t)[2] ** 2
        finite = jnp.isfinite(here) & jnp.isfinite(there)
        # Where nothing moves the pace makes no difference, as long as it is a number.
        regular = finite & (there != 0)
        ratio = jnp.where(regular, here, 1) / jnp.where(regular, there, 1)
        # At an end where a or m goes like a square root the determinant goes like its inverse; in
        # the limit the ratio of both is the square root of the pace.
        return jnp.where(finite, scale * ratio, scale**2), scale * here

    def _determinant(self, t: Array) -> Array:
        """Of the path itself."""
        a, m = self.path.a(t), self.path.m(t)
        return a * self.path.dmdt(t) - m * self.path.dadt(t)
