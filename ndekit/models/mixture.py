"""Mixtures of Gaussians: laws of which everything along a Gaussian path is known exactly."""

from typing import Any, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Key, UInt

from ..choices import check_choice
from ..paths import AbstractGaussianPath
from ..paths.conversion import Prediction
from ..paths.gaussian import times
from ..paths.roots import as_time
from ..shapes import Args, Time
from .densities import LOG_2_PI, AbstractDensity, check_points


class GaussianMixture(AbstractDensity):
    r"""$\sum_k w_k\, N(\mu_k, \mathrm{diag}\, s_k^2)$.

    The yardstick of flows: along any Gaussian path the velocity, the score and the best guess of
    the data are known in closed form (`velocity`, `predict`), and so is the law itself (`along`).
    Of data points with a small common spread it is what a network that knows them by heart would
    say.

    Args:
        means: $\mu_k$, `(modes, *shape)`.
        stds: $s_k$, positive: a number for all, one for each mode, `(modes,)`, or one for each
            coordinate of each, `(modes, *shape)`.
        weights: $w_k$, `(modes,)`, not negative; they are normalised. By default all are equal.

    Raises:
        ValueError: if the shapes do not fit, or a number is out of range.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, ndekit as nk

        law = nk.models.GaussianMixture(jnp.array([[-2.0, 0.0], [2.0, 0.0]]), 0.5)
        path = nk.paths.CondOT()
        flow = nk.models.CNF(law.velocity(path), nk.models.StandardNormal(2))
        x = law.sample((3,), key=jr.key(0))
        assert jnp.allclose(flow.log_prob(x), law.log_prob(x), atol=1e-3)
        ```
    """

    means: Float[Array, "modes *shape"]
    log_stds: Float[Array, "modes ..."]  # with axes of length 1 where a mode has one spread
    log_weights: Float[Array, " modes"]

    def __init__(self, means: Any, stds: Any, weights: Any = None):
        means = jnp.asarray(means)
        if not jnp.issubdtype(means.dtype, jnp.floating) or means.ndim < 1 or 0 in means.shape:
            raise ValueError(
                f"`means` must be floating points of shape (modes, ...), got {means.dtype}"
                f"{list(means.shape)}."
            )
        weights = jnp.ones(len(means), means.dtype) if weights is None else weights
        self.means = means
        self.log_stds = jnp.log(_spreads(stds, means))
        weights = _numbers("weights", weights, means, ((len(means),),), zero=True)
        self.log_weights = jnp.log(weights / jnp.sum(weights))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.means.shape[1:]

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "*batch"]:
        return jax.nn.logsumexp(self._joint(x, self.means, self._variance()), axis=-1)

    def sample(
        self, batch: tuple[int, ...] = (), *, key: Key[Array, ""] | UInt[Array, "2"]
    ) -> Float[Array, "..."]:
        mode_key, noise_key = jr.split(key)
        mode = jr.categorical(mode_key, self.log_weights, shape=batch)
        noise = jr.normal(noise_key, (*batch, *self.shape), self.means.dtype)
        return self.means[mode] + jnp.exp(self.log_stds)[mode] * noise

    def along(self, path: AbstractGaussianPath, t: Time) -> "GaussianMixture":
        """The law of $x_t$ on a path whose data have this one: a mixture, too.

        Args:
            path: any Gaussian path, diagonal ones included.
            t: one time, in [0, 1]; not where the path has the data without noise, if a mode has
                next to no spread.
        """
        a, m = self._path_at(path, t)
        parts = lambda law: (law.means, law.log_stds)
        moved = a * self.means, 0.5 * jnp.log(a**2 * self._variance() + m**2)
        return eqx.tree_at(parts, self, moved)

    def predict(
        self,
        path: AbstractGaussianPath,
        t: Time,
        x: Float[Array, "..."],
        what: Prediction = "velocity",
    ) -> Float[Array, "..."]:
        r"""The mean of data, noise or velocity given $x_t = x$, or the score, exactly.

        At an end of a path every one of them is finite that has a limit there.

        Args:
            path: any Gaussian path, diagonal ones included.
            t: one time, in [0, 1].
            x: points, `(*batch, *shape)`.
            what: `"data"`, `"noise"`, `"velocity"` or `"score"`.

        Raises:
            ValueError: if `what` is none of the four, or `x` has another shape.
        """
        check_choice("what", what, get_args(Prediction))
        check_points(x, self.shape, ", as the means are")
        (a, m), variance = self._path_at(path, t), self._variance()
        means, total = a * self.means, a**2 * variance + m**2
        share = jax.nn.softmax(self._joint(x, means, total), axis=-1)
        share = share.reshape(*share.shape, *[1] * len(self.shape))
        off = self._from_modes(x, means) / self._beside(x, total)
        mean = lambda values: jnp.sum(share * values, axis=-len(self.shape) - 1)
        if what == "score":
            return -mean(off)
        # Without the axis of the modes, which is in front of each point's.
        m = m.reshape(m.shape[1:])
        noise = m.reshape(*[1] * (x.ndim - m.ndim), *m.shape) * mean(off)
        if what == "noise":
            return noise
        data = mean(self._beside(x, self.means) + self._beside(x, a * variance) * off)
        return data if what == "data" else _velocity(path, t, x, data, noise, -mean(off))

    def velocity(self, path: AbstractGaussianPath) -> "MixtureNetwork":
        """The exact velocity field on a path, called as `field(t, y, args)`."""
        return self.network(path, "velocity")

    def network(
        self, path: AbstractGaussianPath, predicts: Prediction = "noise"
    ) -> "MixtureNetwork":
        """What a network that has learnt this law without an error says: `predict`, called as
        `network(t, x, args)`. It says what it predicts, which samplers check.
        """
        return MixtureNetwork(self, path, predicts)

    def _variance(self) -> Array:
        return jnp.exp(2 * self.log_stds)

    def _path_at(self, path: AbstractGaussianPath, t: Time) -> tuple[Array, Array]:
        """`a` and `m` beside the means: with axes for the mode and for each coordinate."""
        if jnp.ndim(t):
            raise ValueError(
                f"`t` must be one time for all points, got shape {jnp.shape(t)}. Map over times "
                "with `jax.vmap`."
            )
        parts = [part(as_time(t)).astype(self.means.dtype) for part in (path.a, path.m)]
        sizes = [part.shape or (1,) * len(self.shape) for part in parts]
        a, m = (part.reshape(1, *size) for part, size in zip(parts, sizes, strict=True))
        return a, m

    def _beside(self, x: Array, rows: Array) -> Array:
        """Numbers of modes with axes in front for those of a batch of points."""
        return rows.reshape(*[1] * (x.ndim - len(self.shape)), *rows.shape)

    def _from_modes(self, x: Array, means: Array) -> Array:
        """From each mode to each point, `(*batch, modes, *shape)`."""
        return jnp.expand_dims(x, x.ndim - len(self.shape)) - self._beside(x, means)

    def _joint(self, x: Array, means: Array, variance: Array) -> Array:
        """The log density of point and mode, `(*batch, modes)`."""
        check_points(x, self.shape, ", as the means are")
        axes = tuple(range(-len(self.shape), 0))
        squares = self._from_modes(x, means) ** 2 / self._beside(x, variance)
        logs = jnp.broadcast_to(jnp.log(variance) + LOG_2_PI, means.shape)
        constants = self.log_weights - 0.5 * jnp.sum(logs, axis=axes)
        total = jnp.sum(squares, axis=axes)
        return constants.reshape(*[1] * (total.ndim - 1), -1) - 0.5 * total


class MixtureNetwork(eqx.Module):
    """The network that [`ndekit.models.GaussianMixture.network`][] makes."""

    law: GaussianMixture
    path: AbstractGaussianPath
    predicts: Prediction = eqx.field(static=True)

    def __call__(self, t: Time, y: Float[Array, "..."], args: Args = None) -> Float[Array, "..."]:
        return self.law.predict(self.path, t, y, self.predicts)


def _velocity(
    path: AbstractGaussianPath, t: Time, x: Array, data: Array, noise: Array, score: Array
) -> Array:
    t = as_time(t)
    here = lambda part: part(t).astype(x.dtype)
    a, m, dadt, dmdt = map(here, (path.a, path.m, path.dadt, path.dmdt))
    # Where m is 0 its slope may be infinite, but m dm/dt is finite. Elsewhere the squared diffusion
    # may be infinite: it is asked for at a time where it is not.
    ends = m == 0
    elsewhere = jnp.where(jnp.all(ends), t, 0.5)
    growth, g2 = dadt / jnp.where(ends, a, 1), path.squared_diffusion(elsewhere).astype(x.dtype)
    ends, growth, g2, dadt, dmdt = (
        part.reshape(*[1] * (x.ndim - part.ndim), *part.shape)
        for part in (ends, growth, g2, dadt, dmdt)
    )
    inside = times(dadt, data) + times(dmdt, noise)
    return jnp.where(ends, growth * x + 0.5 * g2 * score, inside)


def _spreads(stds: Any, means: Array) -> Array:
    given = jnp.asarray(stds, means.dtype)
    known = ((), (len(means),), means.shape)
    given = _numbers("stds", given, means, known, zero=False)
    rows = jnp.broadcast_to(given, (len(means),)) if given.ndim == 0 else given
    return rows.reshape(*rows.shape, *[1] * (means.ndim - rows.ndim))


def _numbers(
    name: str, given: Any, means: Array, shapes: tuple[tuple[int, ...], ...], *, zero: bool
) -> Array:
    """Finite numbers of one of these shapes, positive, or at least not negative."""
    given = jnp.asarray(given, means.dtype)
    if given.shape not in shapes:
        wanted = " or ".join(map(str, dict.fromkeys(shapes)))
        raise ValueError(f"`{name}` must have the shape {wanted}, got {given.shape}.")
    if isinstance(given, Tracer):
        return given
    values = np.asarray(given)
    sound = (values >= 0) if zero else (values > 0)
    if not (np.all(np.isfinite(values) & sound) and values.sum() > 0):
        bound = "not negative, with a positive sum" if zero else "positive"
        raise ValueError(f"`{name}` must be finite and {bound}, got {given!r}.")
    return given
