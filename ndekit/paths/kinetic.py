"""The path of least kinetic energy for given data."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt

from ..numbers import count
from ..shapes import Time
from .gaussian import AbstractGaussianPath
from .posterior import posterior_variance
from .roots import as_time
from .splines import monotone

# Below this the speed of the angle is not followed: all angles are as good. It is what is left of
# rounding where the data are Gaussian, and bounds the slope of the path.
LEAST_WEIGHT = 1e-2


class KineticOptimal(AbstractGaussianPath):
    r"""$a = r \sin\theta$, $m = r \cos\theta$: of all paths from $(0, 1)$ to $(1, 0)$ the one with
    the least $\frac{1}{d} \int_0^1 E \lVert v(t, x_t) \rVert^2\, dt$, $v$ the marginal velocity.

    With $\mathrm{mmse}(s) = \frac{1}{d} E \lVert x_1 - E[x_1 \mid x_1 + x_0 / s] \rVert^2$ and
    $\gamma = 1 - \mathrm{mmse}(\tan\theta) / \cos^2\theta$ the energy is
    $\int \dot r^2 + r^2 \gamma\, \dot\theta^2$, so in the plane with the angle
    $\varphi = \int_0^\theta \sqrt\gamma$ the best path is the straight line from the angle 0 to
    $\Phi = \varphi(\pi / 2)$, and its energy $2 - 2 \cos\Phi$, `path.energy`.

    For Gaussian data this is `Trigonometric`, for a single point `CondOT`. Make one by
    `KineticOptimal.fit(x1, key=key)` from data, or by `KineticOptimal.of(mmse)`.

    Little energy is not few steps of a solver: see [`ndekit.paths.LearnedPath`][].

    Args:
        shares: of $\Phi$ in equal steps of $\theta$ from 0 to $\pi / 2$, positive, with the sum 1.
        length: $\Phi$, between 0 and $\pi / 2$.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, ndekit as nk

        x1 = jnp.array([[1.0], [-1.0]])
        path = nk.paths.KineticOptimal.fit(x1, key=jr.key(0))
        # 2 would be that of straight lines whose velocity knows both ends.
        assert 0 < path.energy < 2
        assert path.a(0.0) == 0 and path.a(1.0) == 1
        ```

    Reference: Shaul et al. (2023), "On kinetic optimal probability paths for generative models",
    arXiv 2306.06626, theorem 4.
    """

    shares: Float[Array, " steps"]
    length: Float[Array, ""]

    @classmethod
    def of(cls, mmse: Callable[[Array], Array], *, num_knots: int = 257) -> "KineticOptimal":
        r"""From the error of the best guess of normalised data.

        Args:
            mmse: takes $s$, positive, and gives the mean squared error for each coordinate.
            num_knots: of $\theta$, at least 2.

        Raises:
            ValueError: if `num_knots` is too small.
        """
        count("num_knots", num_knots, 2)
        ends = jnp.linspace(0.0, 0.5 * math.pi, num_knots)
        angles = 0.5 * (ends[1:] + ends[:-1])
        gamma = 1 - jax.lax.map(mmse, jnp.tan(angles)) / jnp.cos(angles) ** 2
        weight = jnp.sqrt(jnp.clip(gamma, 0, 1))
        # A sum over the middles; at the ends s is 0 and infinite.
        length = jnp.mean(weight) * (0.5 * math.pi)
        shares = jnp.maximum(weight, LEAST_WEIGHT)
        return cls(shares / jnp.sum(shares), length)

    @classmethod
    def fit(
        cls,
        x1: Any,
        *,
        key: Key[Array, ""] | UInt[Array, "2"],
        num_samples: int = 4096,
        num_knots: int = 257,
    ) -> "KineticOptimal":
        r"""From data points, by Monte Carlo over points and noise.

        Args:
            x1: points, `(n, ...)`, with a mean square of 1 for each coordinate.
            key: draws points and noise.
            num_samples: pairs of a point and a noise, the same at every angle. Memory grows as
                `num_samples * n`.
            num_knots: of $\theta$, at least 2.

        Raises:
            ValueError: if `x1` is not normalised, or a number is too small.
        """
        return cls.of(posterior_variance(x1, key=key, num=num_samples), num_knots=num_knots)

    @property
    def energy(self) -> Float[Array, ""]:
        r"""$2 - 2 \cos\Phi$, the least kinetic energy, for each coordinate."""
        return 4 * jnp.sin(0.5 * self.length) ** 2

    def a(self, t: Time) -> Float[Array, "*times"]:
        t = as_time(t)
        return self._radius(t) * jnp.sin(self._angle(t, self.shares))

    def m(self, t: Time) -> Float[Array, "*times"]:
        # The same from the other end: the small angle itself, not a right angle less a large one.
        t = as_time(t)
        return self._radius(t) * jnp.sin(self._angle(1 - t, self.shares[::-1]))

    def _radius(self, t: Array) -> Array:
        return jnp.sqrt(1 - self.energy.astype(t.dtype) * t * (1 - t))

    def _angle(self, t: Array, shares: Array) -> Array:
        """How far the straight line has come at `t`, as an angle of the path."""
        # For a short arc the angle is t times the whole one, up to its square.
        length = jnp.maximum(self.length, 1e-3).astype(t.dtype)
        past = jnp.arctan2(t * jnp.sin(length), (1 - t) + t * jnp.cos(length)) / length
        return monotone(past, shares.astype(t.dtype), 0.5 * math.pi / len(shares))
