"""Processes whose best prediction is known: how near a model of series comes to it."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from ..data import (
    ExpectedPaths,
    Series,
    black_scholes,
    double_ou,
    double_ou_filter,
    ornstein_uhlenbeck,
)
from ..models import GRUODEBayes, JumpODE, bayes_loss, jump_loss, masked_gaussian
from .harness.config import Config
from .harness.regularizers import Regularizer
from .harness.series import AbstractSeriesTask, OfSeries, SeriesParts, series_options
from .harness.task import Metric

PARTS = ("train", "validation", "test")
STEPS = 100  # of the grid on which the paths of the jump ODEs lie


class Asked(NamedTuple):
    """Series, and the number by which a loss of theirs is divided to be told, in each row."""

    series: Series
    unit: Float[np.ndarray, " batch"]


class Jumps(AbstractSeriesTask):
    """Conditional expectations by a neural jump ODE; its loss over the least that is possible."""

    metric: ClassVar[Metric] = Metric("ratio", False, 1.0, "to the least")

    def build_model(
        self, config: Any, regularizer: Regularizer, data: SeriesParts, *, key: Key[Array, ""]
    ) -> OfSeries:
        """By tolerances, or by Euler's method on the grid of the paths, as published."""
        options = series_options(config, regularizer, diffrax.Tsit5(), "steps_per_gap")
        grid = None
        if config.equal_steps is not None:
            del options["steps_per_gap"]
            number = STEPS * config.equal_steps
            grid = tuple(np.linspace(0.0, 1.0, number + 1).tolist())
            options |= dict(solver=diffrax.Euler(), max_steps=number)
        model = JumpODE(
            1, hidden_size=10, width=config.width, depth=config.depth, t0=0.0, key=key, **options
        )
        return OfSeries(model, grid=grid)

    def judge(self, prediction: Any, targets: Asked, step: Any = None) -> tuple[Array, Array]:
        """The loss, and the same over the loss of the conditional expectation."""
        losses = jax.vmap(jump_loss)(prediction, targets.series)
        return jnp.mean(losses), jnp.mean(losses / targets.unit)


class Likelihood(AbstractSeriesTask):
    """Forecasts of the next reading by a GRU-ODE-Bayes: minus the log likelihood of a reading."""

    metric: ClassVar[Metric] = Metric("NLL", False, 1.0, "nats a reading")

    def build_model(
        self, config: Any, regularizer: Regularizer, data: SeriesParts, *, key: Key[Array, ""]
    ) -> OfSeries:
        options = series_options(config, regularizer, diffrax.Tsit5(), "steps_per_gap")
        return OfSeries(GRUODEBayes(2, hidden_size=config.width, t0=0.0, key=key, **options))

    def judge(self, prediction: Any, targets: Asked, step: Any = None) -> tuple[Array, Array]:
        """The published loss of a reading, and the part of it that forecasts."""
        losses = jax.vmap(bayes_loss)(prediction, targets.series)
        nll = jax.vmap(_nll)(prediction, targets.series)
        return jnp.mean(losses / targets.unit), jnp.mean(nll / targets.unit)


def _nll(said: Any, series: Series) -> Float[Array, ""]:
    read = series.clean()
    xs, mask = jnp.asarray(read.xs), jnp.asarray(read.mask)
    return -masked_gaussian(xs, said.before[:, 0], mask, said.before[:, 1])


def _paths(simulate: Callable[..., ExpectedPaths], sizes: tuple[int, int, int]) -> SeriesParts:
    """Series of a process with a known conditional expectation."""
    parts, yardsticks = [], {}
    for number, (name, size) in enumerate(zip(PARTS, sizes, strict=True)):
        made = simulate(size, key=jr.key(number))
        parts += [made.series, Asked(made.series, np.full(size, made.optimal_loss, np.float32))]
        if name == "test":
            yardsticks = {
                "the last reading": _of_last_reading(made.series) / made.optimal_loss,
                "the conditional expectation": 1.0,
            }
    return SeriesParts(*parts, yardsticks=yardsticks)


def _of_last_reading(series: Series) -> float:
    """The loss of who expects that nothing changes."""
    read = series.mask[:, 1:, 0]
    errors = np.sum(np.diff(series.xs[..., 0], axis=1) ** 2, axis=1, where=read)
    return float(np.mean(errors / np.maximum(read.sum(axis=1), 1)))


def _readings(spread: float, sizes: tuple[int, int, int]) -> SeriesParts:
    """Double Ornstein-Uhlenbeck series, and what their exact filter says of them."""
    parts, yardsticks = [], {}
    for number, (name, size) in enumerate(zip(PARTS, sizes, strict=True)):
        made = double_ou(size, key=jr.key(number), spread=spread)
        count = made.series.mask.sum()
        parts += [made.series, Asked(made.series, np.full(size, count / size, np.float32))]
        if name == "test":
            exact = double_ou_filter(made.series, made.others["mean"])
            yardsticks = {
                "one Gaussian for each channel": _of_one_gaussian(parts[0], made.series),
                "the Kalman filter": float(exact.marginal_nll.sum() / count),
            }
    return SeriesParts(*parts, yardsticks=yardsticks)


def _of_one_gaussian(train: Series, test: Series) -> float:
    """Minus the log likelihood of a reading by mean and variance of the training readings."""
    total = 0.0
    for channel in range(train.num_channels):
        seen = train.xs[..., channel][train.mask[..., channel]].astype(float)
        asked = test.xs[..., channel][test.mask[..., channel]].astype(float)
        off = (asked - seen.mean()) ** 2 / seen.var()
        total += 0.5 * np.sum(off + np.log(2 * np.pi * seen.var()))
    return float(total / test.mask.sum())


_COEFFICIENTS = {
    "steps": 1e-3,
    "budget": 60.0,
    "error": 0.1,
    "error_sum": 0.01,
    "error_squared": 1e-3,
    "stiffness": 0.01,
    "error+stiffness": 0.1,
    "local_time": 0.1,
    "local_step": 0.1,
}
_JUMPS = Config(
    about="Black-Scholes paths by a neural jump ODE: Euler on the grid, Adam",
    load=lambda folder: _paths(black_scholes, (16000, 1000, 4000)),
    task=Jumps(),
    width=50,
    depth=2,
    final="linear",
    rtol=1e-3,
    atol=1e-3,
    equal_steps=1,
    epochs=25,
    batch_size=200,
    optimizer=lambda num_updates: optax.adamw(
        optax.cosine_decay_schedule(3e-3, num_updates), weight_decay=5e-4
    ),
    updates_per_call=10,
    predict_batch=500,
    coefficients={},
)
_PUBLISHED_JUMPS = dict(
    epochs=200, optimizer=lambda num_updates: optax.adamw(1e-3, weight_decay=5e-4)
)
_ADAPTIVE = dict(equal_steps=None, coefficients=_COEFFICIENTS)
_OU = _JUMPS._replace(
    about="Ornstein-Uhlenbeck paths, the same",
    load=lambda folder: _paths(ornstein_uhlenbeck, (16000, 1000, 4000)),
)
_DOUBLE = Config(
    about="two correlated OU processes of known means by a GRU-ODE-Bayes: Tsit5, Adam",
    load=lambda folder: _readings(0.0, (4000, 500, 1000)),
    task=Likelihood(),
    width=50,
    depth=1,
    final="linear",
    rtol=1e-3,
    atol=1e-3,
    epochs=40,
    batch_size=100,
    optimizer=lambda num_updates: optax.adam(optax.cosine_decay_schedule(1e-2, num_updates)),
    updates_per_call=10,
    predict_batch=500,
    coefficients=_COEFFICIENTS,
    max_steps=1024,
)

PRESETS = {
    "black_scholes": _JUMPS,
    "black_scholes_adaptive": _JUMPS._replace(
        about="the same by Tsit5 at tolerance 1e-3, for regularisers", **_ADAPTIVE
    ),
    "black_scholes_published": _JUMPS._replace(
        about="Black-Scholes paths as published: 200 epochs, Adam at 1e-3", **_PUBLISHED_JUMPS
    ),
    "ou": _OU,
    "ou_adaptive": _OU._replace(about="the same by Tsit5 at tolerance 1e-3", **_ADAPTIVE),
    "ou_published": _OU._replace(about="Ornstein-Uhlenbeck paths as published", **_PUBLISHED_JUMPS),
    "double_ou": _DOUBLE,
    "double_ou_means": _DOUBLE._replace(
        about="the same, each series with means of its own, as published",
        load=lambda folder: _readings(0.5, (4000, 500, 1000)),
    ),
    "double_ou_published": _DOUBLE._replace(
        about="the same with the published numbers: 10,000 series, 50 epochs, Adam at 1e-3",
        load=lambda folder: _readings(0.5, (8000, 1000, 1000)),
        epochs=50,
        batch_size=500,
        updates_per_call=4,
        optimizer=lambda num_updates: optax.adamw(1e-3, weight_decay=5e-4),
    ),
}
