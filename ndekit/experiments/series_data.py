"""Simulated series, and how far samples of series are apart."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .task import Timed

# Of an observation, where the data have a standard deviation of 1.
LORENZ_NOISE = 0.1


def simulated(
    drift: Callable, diffusion: Callable, y0: np.ndarray, ts: np.ndarray, seed: int, steps: int = 50
) -> np.ndarray:
    """`dy = drift(t, y) dt + diffusion(y) dW`, diagonal, at `ts`: from each to the next by so many
    steps of Euler.
    """
    rng, y, saved = np.random.default_rng(seed), y0, [y0]
    for start, end in zip(ts[:-1], ts[1:], strict=True):
        h = (end - start) / steps
        for i in range(steps):
            noise = np.sqrt(h) * rng.standard_normal(y.shape)
            y = y + h * drift(start + i * h, y) + diffusion(y) * noise
        saved.append(y)
    return np.stack(saved, axis=1)


def parts_of_series(ts: np.ndarray, series: np.ndarray, *, missing: float = 0.0) -> Timed:
    """Standardised, in parts of 3/4, 1/8 and 1/8; of the first, numbers are missing."""
    series = (series - series.mean((0, 1))) / series.std((0, 1))
    first, second = 3 * len(series) // 4, 7 * len(series) // 8
    series = series.astype(np.float32)
    holes = np.random.default_rng(11).uniform(size=series[:first].shape) < missing
    train = np.where(holes, np.float32(np.nan), series[:first])
    pairs = [part for part in (train, series[first:second], series[second:]) for _ in range(2)]
    return Timed(tuple(ts.tolist()), *pairs)


def ornstein_uhlenbeck(folder: str | None = None) -> Timed:
    r"""$dy = (0.02\, t - 0.1\, y)\, dt + 0.4\, dW$ from $y(0) \sim U(-1, 1)$ at $t = 0, ..., 31$,
    after diffrax's example (to $t = 63$, with noise that grows); 30 % of the training data are
    missing. Time is in units of eight.
    """
    t = np.arange(32.0)
    y0 = np.random.default_rng(1).uniform(-1, 1, (4096, 1))
    return parts_of_series(
        t / 8, simulated(lambda t, y: 0.02 * t - 0.1 * y, lambda y: 0.4, y0, t, 2), missing=0.3
    )


def stochastic_lorenz(folder: str | None = None) -> Timed:
    r"""Lorenz's system, $(\sigma, \rho, \beta) = (10, 28, 8/3)$, with noise
    $(0.1, 0.28, 0.3)\, dW$, from a normal state, at 40 times to $t = 2$; after torchsde's example,
    where the noise is proportional to the state and there are 100 times.
    """

    def drift(t: float, y: np.ndarray) -> np.ndarray:
        a, b, c = np.moveaxis(y, -1, 0)
        return np.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], axis=-1)

    ts = np.linspace(0.0, 2.0, 40)
    y0 = np.random.default_rng(3).standard_normal((1024, 3))
    series = simulated(drift, lambda y: np.array([0.1, 0.28, 0.3]), y0, ts, 4)
    noise = np.random.default_rng(5).standard_normal(series.shape)
    return parts_of_series(ts, series + LORENZ_NOISE * series.std((0, 1)) * noise)


def marginal_distance(
    ours: Float[Array, "number times size"], theirs: Float[Array, "other times size"]
) -> Float[Array, ""]:
    r"""The Wasserstein-1 distance of the laws of two samples at each time and of each number, in
    the mean: $\int_0^1 \lvert Q(p) - Q'(p) \rvert\, dp$ of the quantiles, by the midpoint rule with
    a point for each of ours, exact if as many are known of theirs. Missing numbers (NaN) are left
    out, and so are columns of nothing else.
    """
    parts = (jnp.arange(len(ours), dtype=ours.dtype) + 0.5) / len(ours)

    def quantiles(column: Array) -> Array:
        known = jnp.sum(~jnp.isnan(column)).astype(parts.dtype)
        return jnp.sort(column)[jnp.floor(parts * known).astype(jnp.int32)]  # NaN is last

    def columns(xs: Array) -> Array:
        return jax.vmap(quantiles, in_axes=1)(xs.reshape(len(xs), -1))

    return jnp.nanmean(jnp.abs(columns(ours) - columns(theirs)))
