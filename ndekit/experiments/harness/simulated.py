"""Data that are simulated: trajectories and series, in parts to train, validate and test on."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Timed(NamedTuple):
    """Inputs, and what is to come of them at `ts`; NaN for what is missing.

    `rates` are the true derivatives at `test_y`, where the true field is known.
    """

    ts: tuple[float, ...]
    train_x: np.ndarray
    train_y: np.ndarray
    validation_x: np.ndarray
    validation_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    rates: np.ndarray | None = None


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
