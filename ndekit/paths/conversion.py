"""One prediction from another: data, noise, velocity and score along a Gaussian path."""

from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..choices import check_choice
from ..numbers import real
from ..shapes import Time
from .gaussian import AbstractGaussianPath, times
from .roots import as_time

Prediction = Literal["data", "noise", "velocity", "score"]


def convert(
    path: AbstractGaussianPath,
    t: Time,
    x: Float[Array, "*shape"],
    value: Float[Array, "*shape"],
    *,
    src: Prediction,
    dst: Prediction,
) -> Float[Array, "*shape"]:
    r"""What a network that predicts `src` says of `dst`, at the point `x` of a path.

    All follow from $x = a x_1 + m x_0$, velocity $= \dot a x_1 + \dot m x_0$ and score
    $= -x_0 / m$. They are affine in `x` and `value`, so expectations given `x` convert as samples
    do, and guidance may be applied to any of them.

    At an end where $a$ or $m$ is 0 not everything is determined. Then:

    - where $a = 0$, `x` is noise alone and says nothing of the data: the data are 0, the mean of
      centred data, unless the velocity gives them;
    - where $m = 0$, `x` is data alone: the noise is 0, the mean, unless the velocity gives it, and
      so is a score that neither noise nor velocity gives;
    - a quantity that grows without bound stays infinite there: the score from noise that is not 0
      where $m = 0$, and the velocity from noise where $\dot m$ is infinite (`VP`, `Cosine`,
      `LogVariance` and `VP` shifted, at $t = 1$), or from data where $\dot a$ is
      (`LogVariance` at $t = 0$).

    Nothing is NaN for finite input. Near an end an error of `value` is multiplied by what the
    conversion demands, $|\delta x_0| = \rho\, |\delta x_1|$ for instance, and rounding no more.

    Args:
        path: the path.
        t: one time, in [0, 1].
        x: a point, of any shape (of the path's, where that is diagonal).
        value: what is predicted there.
        src: what `value` is: `"data"`, `"noise"`, `"velocity"` or `"score"`.
        dst: what to make of it, one of the same.

    Returns:
        The other prediction, in the dtype of `x`.

    Raises:
        ValueError: if `src` or `dst` is none of the four, shapes differ, or a known `t` is outside
            [0, 1].

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        path = nk.paths.VP()
        noise, data = jnp.array([1.0, -1.0]), jnp.array([0.0, 2.0])
        x = path.sample(0.4, noise, data)
        found = nk.paths.convert(path, 0.4, x, noise, src="noise", dst="velocity")
        assert jnp.allclose(found, path.velocity(0.4, noise, data), rtol=1e-4)
        ```

    Reference: Lai et al. (2025), "The principles of diffusion models", arXiv 2510.21890.
    """
    _check(t, x, value, src, dst)
    if src == dst:
        return value
    here = Here(path, t, x.dtype)
    data, noise = here.parts(x, value, src)
    if dst == "data":
        return data
    if dst == "noise":
        return noise
    if dst == "velocity":
        return (
            here.velocity_of_score(x, value, data, noise)
            if src == "score"
            else (times(here.dadt, data) + times(here.dmdt, noise))
        )
    return here.score_of_velocity(x, value, noise) if src == "velocity" else -over(noise, here.m)


class Here:
    """A path at one time, in the dtype of the point."""

    def __init__(self, path: AbstractGaussianPath, t: Time, dtype: jnp.dtype):
        t = as_time(t)
        # Infinite at the noise end, so only where it is asked for.
        self.squared_diffusion = lambda: path.squared_diffusion(t).astype(dtype)
        self.a, self.m = path.a(t).astype(dtype), path.m(t).astype(dtype)
        self.dadt, self.dmdt = path.dadt(t).astype(dtype), path.dmdt(t).astype(dtype)

    def parts(self, x: Array, value: Array, src: Prediction) -> tuple[Array, Array]:
        """Data and noise."""
        if src == "velocity":
            return self.parts_of_velocity(x, value)
        if src == "data":
            return value, over(x - self.a * value, self.m, at_zero=True)
        noise = value if src == "noise" else -self.m * value
        return over(x - self.m * noise, self.a, at_zero=True), noise

    def parts_of_velocity(self, x: Array, v: Array) -> tuple[Array, Array]:
        """Data and noise, from the two equations that `x` and `v` are."""
        # Divided by the larger slope, which may be infinite.
        size = jnp.maximum(jnp.abs(self.dadt), jnp.abs(self.dmdt))
        dadt, dmdt = _share(self.dadt, size), _share(self.dmdt, size)
        v = over(v, size, at_zero=True)
        determinant = self.a * dmdt - self.m * dadt
        data = over(dmdt * x - self.m * v, determinant, at_zero=True)
        noise = over(self.a * v - dadt * x, determinant, at_zero=True)
        # Where nothing moves the velocity is 0 and `x` alone speaks.
        rests = determinant == 0
        data = jnp.where(rests, over(x, jnp.where(self.m == 0, self.a, 0), at_zero=True), data)
        return data, jnp.where(rests, over(x, self.m, at_zero=True), noise)

    def velocity_of_score(self, x: Array, score: Array, data: Array, noise: Array) -> Array:
        known = times(self.dadt, data) + times(self.dmdt, noise)
        growth, g2 = self._at_data()
        # m dm/dt is finite where m is 0 and its slope infinite.
        return jnp.where(self.m == 0, growth * x + 0.5 * g2 * score, known)

    def score_of_velocity(self, x: Array, v: Array, noise: Array) -> Array:
        growth, g2 = self._at_data()
        given = over(v - growth * x, 0.5 * g2, at_zero=True)
        return jnp.where(g2 > 0, given, -over(noise, jnp.where(g2 > 0, 1, self.m)))

    def _at_data(self) -> tuple[Array, Array]:
        """The linear rate and the squared diffusion where m is 0; nothing elsewhere."""
        ends = self.m == 0
        growth = jnp.where(ends, self.dadt, 0) / jnp.where(ends, self.a, 1)
        return growth, jnp.where(ends, self.squared_diffusion(), 0)


def over(x: Array, y: Array, *, at_zero: bool = False) -> Array:
    """`x / y`, where 0 / 0 is 0; with `at_zero` all else over 0 is 0 as well.

    Derivatives are those of the quotient where `y` is not 0, and 0 where it is.
    """
    y = jnp.asarray(y, x.dtype)
    zero = (y == 0) if at_zero else (y == 0) & (x == 0)
    return jnp.where(zero, 0, x / jnp.where(zero, 1, y))


def _share(slope: Array, size: Array) -> Array:
    """`slope / size`, 1 in size where both are infinite."""
    infinite = jnp.isinf(slope)
    return jnp.where(infinite, jnp.sign(slope), over(jnp.where(infinite, 0, slope), size))


def _check(t: Time, x: Array, value: Array, src: str, dst: str) -> None:
    check_choice("src", src, get_args(Prediction))
    check_choice("dst", dst, get_args(Prediction))
    if x.shape != value.shape:
        raise ValueError(
            f"`value` must have the shape of `x`, {x.shape}, got {value.shape}. "
            "For a batch use `jax.vmap`."
        )
    real("t", t, least=0.0, most=1.0, advice="Noise is at 0, data are at 1.")
