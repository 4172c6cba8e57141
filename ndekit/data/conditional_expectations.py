"""Processes read at random times, whose expected future is known in closed form."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..numbers import counts, positive, real
from .host_random import AnyKey, generator
from .selection import of_rows
from .series import Series


class ExpectedPaths(NamedTuple):
    r"""Readings of a process, and the best prediction from them at each time; NumPy arrays.

    Attributes:
        series: a padded batch of readings, the first at time 0.
        ts: `(grid,)`, the times of the paths.
        paths: `(batch, grid, 1)`.
        expectation: `(batch, grid, 1)`, $E[X_t \mid \text{readings up to } t]$.
        optimal_loss: the mean over series of $\frac1n \sum_k (x_k - E[X_{t_k} \mid
            \text{readings before } t_k])^2$ over the $n$ readings after time 0: the least loss of a
            neural jump ODE (Herrera et al., eq. 10 with both weights equal), to divide by.
    """

    series: Series
    ts: Float[np.ndarray, " grid"]
    paths: Float[np.ndarray, "batch grid 1"]
    expectation: Float[np.ndarray, "batch grid 1"]
    optimal_loss: float


def black_scholes(
    num: int = 20_000,
    *,
    key: AnyKey,
    drift: float = 2.0,
    volatility: float = 0.3,
    start: float = 1.0,
    num_steps: int = 100,
    t1: float = 1.0,
    observed: float = 0.1,
) -> ExpectedPaths:
    r"""$dX = \mu X dt + \sigma X dW$; $E[X_t \mid x_s] = x_s e^{\mu(t-s)}$.

    Each step of a regular grid is observed with the same probability. The defaults are those of the
    paper on neural jump ODEs. Steps are exact in distribution.

    Args:
        num: paths.
        key: the same key gives the same paths.
        drift: $\mu$, per unit of time.
        volatility: $\sigma$.
        start: $X_0$, which is observed.
        num_steps: steps of the grid from 0 to `t1`.
        t1: the end.
        observed: the probability of each step, above 0 to 1.

    Returns:
        [`ndekit.data.ExpectedPaths`][].

    Raises:
        ValueError: if a number is out of range.

    Example:
        ```python
        import jax.random as jr
        import ndekit as nk

        made = nk.data.black_scholes(200, key=jr.key(0))
        assert made.paths.shape == made.expectation.shape == (200, 101, 1)
        ```

    Reference: Herrera, Krach and Teichmann (2021), *Neural jump ordinary differential equations*.
    """
    real("drift", drift)
    positive("volatility", volatility)
    positive("start", start)
    ts, normals, rows = _draws(num, num_steps, t1, observed, key)
    dt = t1 / num_steps
    growth = (drift - 0.5 * volatility**2) * dt + volatility * np.sqrt(dt) * normals
    paths = start * np.exp(np.cumsum(growth, axis=-1))
    paths = np.concatenate([np.full((num, 1), float(start)), paths], axis=-1)
    return _with_answer(ts, paths, rows, lambda x, dt: x * np.exp(drift * dt))


def ornstein_uhlenbeck(
    num: int = 20_000,
    *,
    key: AnyKey,
    mean: float = 4.0,
    speed: float = 2.0,
    volatility: float = 0.3,
    start: float = 1.0,
    num_steps: int = 100,
    t1: float = 1.0,
    observed: float = 0.1,
) -> ExpectedPaths:
    r"""$dX = k(m - X)dt + \sigma dW$; $E[X_t \mid x_s] = m + (x_s - m) e^{-k(t-s)}$.

    Each step of a regular grid is observed with the same probability. The defaults are those of the
    paper on neural jump ODEs. Steps are exact in distribution.

    Args:
        num: paths.
        key: the same key gives the same paths.
        mean: $m$.
        speed: $k$, per unit of time.
        volatility: $\sigma$.
        start: $X_0$, which is observed.
        num_steps: steps of the grid from 0 to `t1`.
        t1: the end.
        observed: the probability of each step, above 0 to 1.

    Returns:
        [`ndekit.data.ExpectedPaths`][].

    Raises:
        ValueError: if a number is out of range.

    Example:
        ```python
        import jax.random as jr
        import ndekit as nk

        made = nk.data.ornstein_uhlenbeck(200, key=jr.key(0))
        model_loss = 0.008  # of a model that is to predict `made.series`
        ratio = model_loss / made.optimal_loss  # 1 is as good as can be
        ```

    Reference: Herrera, Krach and Teichmann (2021), *Neural jump ordinary differential equations*.
    """
    real("mean", mean)
    real("start", start)
    positive("speed", speed)
    positive("volatility", volatility)
    ts, normals, rows = _draws(num, num_steps, t1, observed, key)
    decay = np.exp(-speed * t1 / num_steps)
    noise = volatility * np.sqrt((1 - decay**2) / (2 * speed)) * normals
    paths = np.empty((num, num_steps + 1))
    paths[:, 0] = start
    for step in range(num_steps):
        paths[:, step + 1] = mean + decay * (paths[:, step] - mean) + noise[:, step]
    return _with_answer(ts, paths, rows, lambda x, dt: mean + (x - mean) * np.exp(-speed * dt))


def _draws(
    num: int, num_steps: int, t1: float, observed: float, key: AnyKey
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The grid, standard normal numbers for its steps, and which of its points are read."""
    counts(num=num, num_steps=num_steps)
    positive("t1", t1)
    real("observed", observed, above=0.0, most=1.0)
    rng = generator(key)
    normals = rng.standard_normal((num, num_steps))
    rows = np.ones((num, num_steps + 1), bool)
    rows[:, 1:] = rng.random((num, num_steps)) < observed
    return np.linspace(0.0, t1, num_steps + 1), normals, rows


def _with_answer(
    ts: np.ndarray, paths: np.ndarray, rows: np.ndarray, expect: Callable
) -> ExpectedPaths:
    last = np.maximum.accumulate(np.where(rows, np.arange(len(ts)), 0), axis=-1)
    expectation = expect(np.take_along_axis(paths, last, axis=-1), ts - ts[last])
    # At each point, what is expected of it with what was read before it.
    before = last[:, :-1]
    errors = paths[:, 1:] - expect(np.take_along_axis(paths, before, axis=-1), ts[1:] - ts[before])
    found = rows[:, 1:].sum(axis=-1)
    losses = np.sum(errors**2, axis=-1, where=rows[:, 1:]) / np.maximum(found, 1)
    xs = paths[..., None].astype(np.float32)
    return ExpectedPaths(
        of_rows(ts, xs, np.ones(xs.shape, bool), rows),
        ts.astype(np.float32),
        xs,
        expectation[..., None].astype(np.float32),
        float(losses.mean()),
    )
