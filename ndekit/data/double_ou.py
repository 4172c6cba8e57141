"""Two correlated Ornstein-Uhlenbeck processes read in turns, with their exact likelihood."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ..numbers import counts, positive, real
from .host_random import AnyKey, generator
from .selection import of_rows, random_rows
from .series import Series
from .simulated import Simulated


def double_ou(
    num: int = 10_000,
    *,
    key: AnyKey,
    spread: float = 0.5,
    speed: float = 1.0,
    volatility: float = 0.1,
    correlation: float = 0.99,
    t1: float = 10.0,
    num_steps: int = 200,
    num_readings: int = 20,
) -> Simulated:
    r"""$dX_c = k(\mu_c - X_c)dt + \sigma dW_c$, $X(0) = 0$, with correlated $W_1$ and $W_2$.

    About `num_readings` (up to a fifth more or fewer) random points of a regular grid are read: the
    first channel alone (40 %), the second alone (40 %) or both. As the channels are correlated, the
    one that is read tells about the other. The defaults are those of GRU-ODE-Bayes; steps are exact
    in distribution.

    Args:
        num: series.
        key: the same key gives the same series.
        spread: each series has its own means $\mu = (1, -1)$ and up to so much more or less, evenly
            distributed; with 0 they are the same for all, and known to a model that has learnt
            them.
        speed: $k$, per unit of time.
        volatility: $\sigma$.
        correlation: of the two noises, between -1 and 1.
        t1: the end.
        num_steps: steps of the grid from 0 to `t1`.
        num_readings: rows of a series, on average.

    Returns:
        [`ndekit.data.Simulated`][] with the means of each series as `others["mean"]`.

    Raises:
        ValueError: if a number is out of range.

    Example:
        ```python
        import jax.random as jr
        import ndekit as nk

        made = nk.data.double_ou(100, key=jr.key(0))
        exact = nk.data.double_ou_filter(made.series, made.others["mean"])
        floor = exact.marginal_nll.sum() / made.series.mask.sum()  # for a reading
        ```

    Reference: De Brouwer, Simm, Arany and Moreau (2019), *GRU-ODE-Bayes*, section 5.1.
    """
    counts(num=num, num_steps=num_steps, num_readings=num_readings)
    _check(speed, volatility, correlation)
    real("spread", spread, least=0.0)
    positive("t1", t1)
    if 1.2 * num_readings > num_steps:
        raise ValueError(
            f"`num_readings` must be at most {num_steps / 1.2:g} for {num_steps} points of the "
            f"grid, got {num_readings}."
        )
    rng = generator(key)
    mean = np.array([1.0, -1.0]) + rng.uniform(-spread, spread, (num, 2))
    decay, factor = _transition(t1 / num_steps, speed, volatility, correlation)
    noise = rng.standard_normal((num_steps, num, 2)) @ factor.T
    paths = np.zeros((num, num_steps + 1, 2))
    for step in range(num_steps):
        paths[:, step + 1] = mean + decay * (paths[:, step] - mean) + noise[step]
    ts = np.linspace(0.0, t1, num_steps + 1)
    series = read_in_turns(ts, paths, num_readings, (0.4, 0.4), rng)
    return Simulated(
        series, ts.astype(np.float32), paths.astype(np.float32), {"mean": mean.astype(np.float32)}
    )


def read_in_turns(
    ts: np.ndarray, paths: np.ndarray, num_readings: int, alone: tuple[float, float],
    rng: np.random.Generator,
) -> Series:  # fmt: skip
    """About so many random rows of two channels, after time 0; a row has one channel or both.

    `alone` is the probability of a row with the first channel alone, and with the second.
    """
    share = rng.uniform(0.8, 1.2, len(paths))
    number = np.maximum(1, np.rint(num_readings * share)).astype(int)
    candidates = np.ones(paths.shape[:2], bool)
    candidates[:, 0] = False
    rows = random_rows(candidates, number, rng)
    turn = rng.random(paths.shape[:2])
    first, second = alone
    mask = np.stack([(turn < first) | (turn >= first + second), turn >= first], axis=-1)
    return of_rows(ts, paths.astype(np.float32), mask, rows)


class Filtered(NamedTuple):
    """What the exact filter of a linear process says of readings; NumPy arrays in float64.

    Attributes:
        mean: `(batch, time, 2)`, expected of each channel before the row is read.
        variance: `(batch, time, 2)`, of each channel before the row is read.
        nll: `(batch,)`, minus the logarithm of the density of all readings of a series.
        marginal_nll: `(batch,)`, the same with the two readings of a row taken for independent
            given the past. A model that predicts a mean and a variance for each channel has at
            least this loss, on average.
    """

    mean: Float[np.ndarray, "batch time 2"]
    variance: Float[np.ndarray, "batch time 2"]
    nll: Float[np.ndarray, " batch"]
    marginal_nll: Float[np.ndarray, " batch"]


def double_ou_filter(
    series: Series,
    mean: Any,
    *,
    speed: float = 1.0,
    volatility: float = 0.1,
    correlation: float = 0.99,
) -> Filtered:
    r"""The Kalman filter of [`ndekit.data.double_ou`][]: its exact likelihood and predictions.

    Args:
        series: a batch with one leading axis and two channels, read after time 0.
        mean: `(batch, 2)`, $\mu$ of each series, or `(2,)`.
        speed: as the series were made with.
        volatility: likewise.
        correlation: likewise.

    Returns:
        [`ndekit.data.Filtered`][].

    Raises:
        ValueError: if the series have another shape or are read at time 0, where nothing is random.

    Example:
        ```python
        import jax.random as jr
        import ndekit as nk

        made = nk.data.double_ou(100, key=jr.key(0), spread=0.0)
        exact = nk.data.double_ou_filter(made.series, [1.0, -1.0])
        ```
    """
    _check(speed, volatility, correlation)
    if len(series.batch_shape) != 1 or series.num_channels != 2 or np.any(series.ts[:, 0] <= 0):
        raise ValueError(
            "`series` must be a batch with one leading axis and two channels, read after time 0, "
            f"got the shape {series.xs.shape} and first times from {np.min(series.ts[..., 0])}."
        )
    xs, mask = np.asarray(series.xs, np.float64), np.asarray(series.mask)
    gaps = np.diff(np.asarray(series.ts, np.float64), axis=-1, prepend=0.0)
    target = np.broadcast_to(np.asarray(mean, np.float64), (len(xs), 2))
    means, variances = np.empty(xs.shape), np.empty(xs.shape)
    nll, marginal_nll = np.zeros(len(xs)), np.zeros(len(xs))
    state, spread = np.zeros((len(xs), 2)), np.zeros((len(xs), 2, 2))
    shape = np.array([[1.0, correlation], [correlation, 1.0]])
    for row in range(xs.shape[1]):
        decay = np.exp(-speed * gaps[:, row])[:, None]
        state = target + decay * (state - target)
        grown = volatility**2 * (1 - decay**2) / (2 * speed)
        spread = decay[..., None] ** 2 * spread + grown[..., None] * shape
        means[:, row], variances[:, row] = state, np.diagonal(spread, axis1=1, axis2=2)
        marginal = _nll(xs[:, row], means[:, row], variances[:, row])
        marginal_nll += np.sum(marginal, axis=-1, where=mask[:, row])
        for channel in range(2):
            read = mask[:, row, channel]
            density = _nll(xs[:, row, channel], state[:, channel], spread[:, channel, channel])
            nll += np.where(read, density, 0.0)
            state, spread = _updated(state, spread, xs[:, row, channel], channel, read)
    return Filtered(means, variances, nll, marginal_nll)


def _updated(
    state: np.ndarray, spread: np.ndarray, x: np.ndarray, channel: int, read: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The state after an exact reading of one channel, where there was one."""
    covariance = spread[:, :, channel]
    gain = covariance / np.where(read, covariance[:, channel], 1.0)[:, None]
    error = x - state[:, channel]
    return (
        np.where(read[:, None], state + gain * error[:, None], state),
        np.where(read[:, None, None], spread - gain[:, :, None] * covariance[:, None, :], spread),
    )


def _nll(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    # What is known exactly, a channel just read, is not asked for: any variance will do.
    variance = np.where(variance > 0, variance, 1.0)
    return 0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))


def _transition(
    dt: float, speed: float, volatility: float, correlation: float
) -> tuple[float, np.ndarray]:
    """Of a step, the decay towards the mean and a root of the covariance of its noise."""
    decay = np.exp(-speed * dt)
    variance = volatility**2 * (1 - decay**2) / (2 * speed)
    return decay, np.sqrt(variance) * np.linalg.cholesky([[1, correlation], [correlation, 1]])


def _check(speed: float, volatility: float, correlation: float) -> None:
    positive("speed", speed)
    positive("volatility", volatility)
    real("correlation", correlation, above=-1.0, below=1.0)
