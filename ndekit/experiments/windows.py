"""Log-NCDEs on series whose class shows in the order of things: how deep, in windows how long."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import diffrax
import numpy as np
import optax
from jaxtyping import Array, Key

from ..controls import Windows
from ..data import Series
from ..models import NeuralCDE
from .harness.classification import AbstractSeriesClassification
from .harness.config import Config
from .harness.regularizers import Regularizer
from .harness.series import OfSeries, SeriesParts, series_options

# Channels, from 1, of the terms of the signature whose signs are asked for.
TERM = (3, 6, 1, 4)
ROWS, CHANNELS = 100, 6
BURST_ROWS, BURST, FREQUENCIES, NOISE = 200, 20, (1.0, 1.1), 0.3


@dataclasses.dataclass(frozen=True)
class Windowed(AbstractSeriesClassification):
    """Two classes by a neural CDE along log-signatures to a depth, in windows of some readings."""

    order: int
    window: int

    def build_model(
        self, config: Any, regularizer: Regularizer, data: SeriesParts, *, key: Key[Array, ""]
    ) -> OfSeries:
        options = series_options(config, regularizer, diffrax.Heun(), "substeps")
        return OfSeries(
            NeuralCDE(
                data.train_x.num_channels, 16, 2, order=self.order,
                windows=Windows.every(self.window), width=config.width, depth=config.depth,
                key=key, **options,
            )
        )  # fmt: skip


def signature_term(increments: np.ndarray, word: Sequence[int]) -> np.ndarray:
    """The iterated integral of straight lines, `(..., time, channel)`, along channels from 0."""
    # Of each beginning of the word, the integral so far. A line adds to it what Chen's relation
    # says: of a beginning's integral, the rest of the word as a power of the line.
    found = [np.ones(increments.shape[:-2])] + [np.zeros(increments.shape[:-2]) for _ in word]
    for number in range(increments.shape[-2]):
        line = increments[..., number, :]
        for end in range(len(word), 0, -1):
            power = np.ones(line.shape[:-1])
            for begin in range(end - 1, -1, -1):
                power = power * line[..., word[begin]] / (end - begin)
                found[end] = found[end] + found[begin] * power
    return found[-1]


def signs(length: int, sizes: Sequence[int]) -> SeriesParts:
    """Sums of rounded normal numbers, and the sign of a term of their signature.

    Series whose term is 0 are left out. The numbers are small ones: divided by 10, and the time
    goes to 1.
    """
    rng = np.random.default_rng(11)
    pairs = []
    for size in sizes:
        steps = np.rint(rng.normal(size=(2 * size, ROWS - 1, CHANNELS)))
        term = signature_term(steps, [channel - 1 for channel in TERM[:length]])
        kept = np.flatnonzero(np.abs(term) > 1e-9)[:size]
        paths = np.concatenate([np.zeros((size, 1, CHANNELS)), np.cumsum(steps[kept], 1)], axis=1)
        ts = np.broadcast_to(np.linspace(0, 1, ROWS, dtype=np.float32), paths.shape[:2])
        pairs += [Series(ts, (paths / 10).astype(np.float32)), (term[kept] > 0).astype(np.int32)]
    return _parts(pairs)


def bursts(sizes: Sequence[int]) -> SeriesParts:
    """Noise of two channels, in 20 rows of it a sine in each, one a little faster: which?"""
    rng = np.random.default_rng(12)
    pairs = []
    inside = np.arange(BURST) / BURST
    waves = np.stack([np.sin(2 * np.pi * f * inside) for f in FREQUENCIES], axis=-1)
    for size in sizes:
        xs = NOISE * rng.normal(size=(size, BURST_ROWS, 2))
        labels = rng.integers(0, 2, size)
        begins = rng.integers(0, BURST_ROWS - BURST, size)
        for row, (label, begin) in enumerate(zip(labels, begins, strict=True)):
            xs[row, begin : begin + BURST] += waves[:, ::-1] if label else waves
        ts = np.broadcast_to(np.linspace(0, 1, BURST_ROWS, dtype=np.float32), xs.shape[:2])
        pairs += [Series(ts, xs.astype(np.float32)), labels.astype(np.int32)]
    return _parts(pairs)


def _parts(pairs: list) -> SeriesParts:
    labels = pairs[-1]
    most = np.bincount(pairs[1]).argmax()
    return SeriesParts(*pairs, yardsticks={"the larger class": float(np.mean(labels == most))})


_CONFIG = Config(
    about="",
    load=lambda folder: signs(2, (4000, 500, 1000)),
    task=Windowed(2, 20),
    width=32,
    depth=1,
    final="tanh",
    rtol=1e-3,
    atol=1e-3,
    equal_steps=1,
    epochs=10,
    batch_size=50,
    optimizer=lambda num_updates: optax.adam(optax.cosine_decay_schedule(3e-3, num_updates)),
    updates_per_call=20,
    predict_batch=100,
    coefficients={},
)


def _sign(length: int, order: int, window: int) -> Config:
    word = ", ".join(map(str, TERM[:length]))
    return _CONFIG._replace(
        about=f"the sign of the signature's term ({word}): depth {order}, windows of {window}",
        load=lambda folder: signs(length, (4000, 500, 1000)),
        task=Windowed(order, window),
    )


def _burst(order: int, window: int) -> Config:
    return _CONFIG._replace(
        about=f"which channel is the faster one, in a burst: depth {order}, windows of {window}",
        load=lambda folder: bursts((2000, 500, 1000)),
        task=Windowed(order, window),
        epochs=15,
    )


ORDERS, WINDOWS = (1, 2, 3), (1, 4, 20)
PRESETS = {
    f"sign{length}_depth{order}_every{window}": _sign(length, order, window)
    for length in (2, 1, 3, 4)
    for window in reversed(WINDOWS)
    for order in ORDERS
}
PRESETS |= {
    f"bursts_depth{order}_every{window}": _burst(order, window)
    for window in reversed(WINDOWS)
    for order in ORDERS
}
