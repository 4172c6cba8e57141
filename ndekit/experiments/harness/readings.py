"""Series for latent ODEs: what of them is read, and what is asked about them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import Float

from ...data import Series, hopper, nafld, pad, split, standardize
from ...data.selection import of_rows, random_rows
from ...data.series import AnyArray
from .measuring import rows_of
from .series import SeriesParts

CHANNELS, TIMES, SHARE = 37, 49, 0.12  # of PhysioNet 2012, which the twin has the shape of
NOISE = 0.05  # of a reading of the twin
DECADE = 3652.5  # days


class Given(eqx.Module):
    """What a model is told: series to be read, and the times at which values are then wanted."""

    series: Series
    ts: Float[AnyArray, "*batch times"]

    def __len__(self) -> int:
        return len(self.series)


class Wanted(NamedTuple):
    """Readings at those times. Errors are means over series of weighted sums of squares; what was
    not read weighs nothing.

    Attributes:
        trained, asked: weights of each reading in the loss, and in the metric.
    """

    xs: Float[AnyArray, "*batch times channels"]
    trained: Float[AnyArray, "*batch times channels"]
    asked: Float[AnyArray, "*batch times channels"]


def twin(sizes: tuple[int, int, int] = (1280, 256, 512)) -> SeriesParts:
    """Series of the shape of PhysioNet 2012, all of one random linear oscillator with four states:
    37 channels at 49 times of which 12 % are read, with noise, most of them in [0, 1].
    """
    rng = np.random.default_rng(0)
    ts = np.linspace(0.0, 1.0, TIMES)
    draws = rng.standard_normal((4, 4))
    rates, modes = np.linalg.eig(draws - draws.T)
    rates = rates * (2 * np.pi / np.abs(rates).max())  # the faster mode turns once
    starts = rng.standard_normal((sum(sizes), 4)) @ np.linalg.inv(modes).T
    states = ((starts[:, None] * np.exp(ts[:, None] * rates)) @ modes.T).real
    readout = rng.standard_normal((4, CHANNELS))
    true = 0.5 + 0.2 * states @ (readout / np.linalg.norm(readout, axis=0))
    mask = rng.random(true.shape) < SHARE
    xs = np.where(mask, true + NOISE * rng.standard_normal(true.shape), 0)
    all_ts = np.broadcast_to(ts.astype(np.float32), (len(xs), TIMES))
    weights = mean_weights(mask)
    given = Given(Series(all_ts, xs.astype(np.float32), mask), all_ts)
    wanted = Wanted(xs.astype(np.float32), weights, weights)
    rules = {
        "each channel's mean": lambda given: np.broadcast_to(
            channel_means(given.series, slice(sizes[0])), true.shape
        ),
        "the path without noise": lambda given: true,
    }
    return _in_parts(given, wanted, sizes, rules)


def hopping(share: float, folder: str | None = None) -> SeriesParts:
    """A hopping robot at 100 times, channels scaled to [0, 1]: the first row and `share` of the
    others are read, all are asked for.
    """
    sizes = (1000, 200, 400)
    robots = hopper(folder)
    xs = np.asarray(robots.xs[: sum(sizes), :100], np.float64)
    train = xs[: sizes[0]]
    low, high = train.min((0, 1)), train.max((0, 1))
    xs = ((xs - low) / (high - low)).astype(np.float32)
    ts = np.linspace(0.0, 1.0, 100, dtype=np.float32)
    mask = np.ones(xs.shape, bool)
    others = np.broadcast_to(np.arange(100) > 0, mask.shape[:2])
    rows = random_rows(others, round(share * 99), np.random.default_rng(7))
    rows[:, 0] = True
    weights = mean_weights(mask)
    given = Given(of_rows(ts, xs, mask, rows), np.broadcast_to(ts, rows.shape))
    rules = {
        "each channel's mean": lambda given: np.broadcast_to(
            channel_means(given.series, slice(sizes[0])), xs.shape
        ),
        "straight lines between rows": lambda given: _straight(given),
    }
    return _in_parts(given, Wanted(xs, weights, weights), sizes, rules)


def visits(folder: str | None = None) -> SeriesParts:
    """HDL cholesterol and blood pressure of patients, standardised: what was read in the first half
    of the span of each is told, that in the second is asked for. Trained on both. A reading counts
    as much as any other of its channel, and each channel as much as the other.
    """
    people = nafld(folder)
    parts = split(people.ids, (0.6, 0.1, 0.3), key=jr.key(0))
    sizes = tuple(len(part) for part in parts)
    chosen = [people.series[i] for part in parts for i in part]
    scaling = standardize(chosen[: sizes[0]], times=False)
    batch: Any = pad(scaling(chosen))  # as NumPy's arrays
    real = np.arange(batch.ts.shape[1]) < batch.length[:, None]
    last = np.take_along_axis(batch.ts, batch.length[:, None] - 1, axis=1)
    ts = np.where(real, batch.ts, last) - batch.ts[:, :1]
    early = real & (ts <= 0.5 * ts[:, -1:])
    ts = (ts / DECADE).astype(np.float32)
    late = batch.mask & ~early[..., None]
    trained = np.zeros(batch.xs.shape, np.float32)
    asked = np.zeros_like(trained)
    for part in _slices(sizes):
        trained[part], asked[part] = mask_weights(batch.mask[part]), mask_weights(late[part])
    given = Given(of_rows(ts, batch.xs.astype(np.float32), batch.mask, early), ts)
    wanted = Wanted(batch.xs.astype(np.float32), trained, asked)
    return _in_parts(given, wanted, sizes, _forecasts(wanted, slice(sizes[0])))


def mean_weights(mask: np.ndarray) -> np.ndarray:
    """Each series counts by the mean of its readings."""
    number = mask.sum((1, 2), keepdims=True)
    return (mask / np.maximum(number, 1)).astype(np.float32)


def mask_weights(mask: np.ndarray) -> np.ndarray:
    """The mean over channels of the means over the readings of all series."""
    number = np.maximum(mask.sum((0, 1)), 1)
    return (mask * (len(mask) / (mask.shape[-1] * number))).astype(np.float32)


def channel_means(series: Series, part: slice) -> np.ndarray:
    """Of what was read in some of the series."""
    one = rows_of(series, part)
    return np.sum(one.xs, (0, 1), dtype=float) / np.maximum(one.mask.sum((0, 1)), 1)


def error_of(values: np.ndarray, wanted: Wanted) -> float:
    return float(np.mean(np.sum(wanted.asked * (wanted.xs - values) ** 2, (1, 2), dtype=float)))


def _slices(sizes: tuple[int, ...]) -> list[slice]:
    ends = np.cumsum([0, *sizes])
    return [slice(int(a), int(b)) for a, b in zip(ends[:-1], ends[1:], strict=True)]


def _in_parts(
    given: Given,
    wanted: Wanted,
    sizes: tuple[int, ...],
    rules: Mapping[str, Callable[[Given], np.ndarray]],
) -> SeriesParts:
    """The parts, and the errors of rules for all series on the last of them."""
    parts = _slices(sizes)
    both = [rows_of(tree, part) for part in parts for tree in (given, wanted)]
    test = parts[-1]
    yardsticks = {
        name: error_of(rule(given)[test], rows_of(wanted, test)) for name, rule in rules.items()
    }
    return SeriesParts(*both, yardsticks=yardsticks)


def _straight(given: Given) -> np.ndarray:
    """Straight lines between rows of which all channels were read; constant behind the last."""
    rows = [(one.ts[: one.length], one.xs[: one.length]) for one in given.series]
    lines = [
        np.stack([np.interp(ts, at, x) for x in xs.T], axis=-1)
        for ts, (at, xs) in zip(given.ts, rows, strict=True)
    ]
    return np.stack(lines)


def _forecasts(wanted: Wanted, train: slice) -> dict[str, Callable[[Given], np.ndarray]]:
    """Rules that give each channel of a patient one number. Where nothing was read, that is the
    mean of all patients, which is 0.
    """

    def constant(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values[:, None], wanted.xs.shape)

    def averages(given: Given) -> np.ndarray:
        series: Any = given.series
        return series.xs.sum(1) / np.maximum(series.mask.sum(1), 1)

    def shrunken(given: Given) -> np.ndarray:
        """The weight, and by which factor it is drawn to the mean, are best on training data."""
        told, found = rows_of(wanted, train), np.zeros((len(given), 2))
        least = np.full(2, np.inf)
        for weight in np.arange(0.05, 1.01, 0.05):
            smooth = smoothed(given.series, weight)
            one = smooth[train, None]
            total = lambda x: np.sum(told.asked * x, (0, 1), dtype=float)  # noqa: B023
            factor = total(one * told.xs) / total(one**2)
            errors = total((told.xs - factor * one) ** 2)
            better = errors < least
            least = np.where(better, errors, least)
            found = np.where(better, factor * smooth, found)
        return found

    return {
        "the mean of all patients": lambda given: np.zeros(wanted.xs.shape),
        "the patient's last reading": lambda given: constant(smoothed(given.series, 1.0)),
        "the patient's mean": lambda given: constant(averages(given)),
        "the patient's shrunken average": lambda given: constant(shrunken(given)),
    }


def smoothed(series: Series, weight: float) -> np.ndarray:
    """The exponentially weighted average of each channel, `(series, channel)`, that begins with its
    first reading; 0 where there is none.
    """
    average, begun = np.zeros(series.xs[:, 0].shape), np.zeros(series.xs[:, 0].shape, bool)
    for row in range(series.xs.shape[1]):
        x, read = series.xs[:, row], series.mask[:, row]
        moved = np.where(begun, average + weight * (x - average), x)
        average, begun = np.where(read, moved, average), begun | read
    return average
