"""Spoken vowels with dropped rows, by models of series with as many parameters each."""

from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from ..controls import Windows
from ..data import Series, drop_rows, pad, standardize, ucr
from ..fields import CDEField
from ..models import GRUD, ODERNN, Flowed, GRUDt, GRUODEBayes, LinearCDE, NeuralCDE
from .harness.classification import AbstractSeriesClassification
from .harness.config import Config
from .harness.regularizers import Regularizer
from .harness.series import NoSolve, OfSeries, SeriesParts, series_options

CHANNELS, CLASSES = 12, 9
DROPPED = (0, 30, 50, 70)  # percent of the rows


class OfLast(eqx.Module):
    """The prediction of a flow-and-reset model after the last row."""

    def __call__(self, said: Flowed) -> Float[Array, " out"]:
        return said.last


class OfState(eqx.Module):
    """An affine layer of the state after the last row, whatever the model itself predicts."""

    layer: eqx.nn.Linear

    def __call__(self, said: Flowed) -> Float[Array, " out"]:
        return self.layer(said.state)


def _ncde(options: Callable, key: Any, **more: Any) -> OfSeries:
    field = CDEField(32, CHANNELS + 1, 32, 3, key=jr.fold_in(key, 1))
    return OfSeries(
        NeuralCDE(CHANNELS, 32, CLASSES, field=field, key=key, **options("substeps"), **more)
    )


def _ncde_hermite(options: Callable, key: Any) -> OfSeries:
    return _ncde(options, key, scheme="hermite")


def _log_ncde(options: Callable, key: Any) -> OfSeries:
    return _ncde(options, key, order=2, windows=Windows.every(4))


def _linear_cde(options: Callable, key: Any) -> OfSeries:
    return OfSeries(NoSolve(LinearCDE(CHANNELS, 232, CLASSES, block_size=4, key=key)))


def _ode_rnn(options: Callable, key: Any) -> OfSeries:
    given: dict[str, Any] = dict(width=64, depth=2, gap=True, key=key, **options("steps_per_gap"))
    return OfSeries(ODERNN(CHANNELS, 40, CLASSES, **given), OfLast())


def _gru_ode_bayes(options: Callable, key: Any) -> OfSeries:
    own, layer = jr.split(key)
    model = GRUODEBayes(
        CHANNELS, hidden_size=35, prepared=6, key=own, **options("steps_per_gap")
    )  # fmt: skip
    return OfSeries(model, OfState(eqx.nn.Linear(35, CLASSES, key=layer)))


def _gru_dt(options: Callable, key: Any) -> OfSeries:
    return OfSeries(GRUDt(CHANNELS, 63, CLASSES, key=key), OfLast())


def _gru_d(options: Callable, key: Any) -> OfSeries:
    return OfSeries(GRUD(CHANNELS, 61, CLASSES, key=key), OfLast())


MODELS: dict[str, Callable[[Callable, Any], OfSeries]] = {
    "ncde": _ncde,
    "ncde_hermite": _ncde_hermite,
    "log_ncde": _log_ncde,
    "linear_cde": _linear_cde,
    "ode_rnn": _ode_rnn,
    "gru_ode_bayes": _gru_ode_bayes,
    "gru_dt": _gru_dt,
    "gru_d": _gru_d,
}


class Vowels(AbstractSeriesClassification):
    """Series to classes by cross-entropy."""

    def build_model(
        self, config: Any, regularizer: Regularizer, data: SeriesParts, *, key: Key[Array, ""]
    ) -> OfSeries:
        solver = diffrax.Tsit5() if config.equal_steps is None else diffrax.Heun()
        options = lambda equal: series_options(config, regularizer, solver, equal)
        return MODELS[config.model](options, key)


def vowels(dropped: int, *, official: bool = False, folder: str | None = None) -> SeriesParts:
    """JapaneseVowels without some of its rows: 640 series of 7 to 29 rows, of nine speakers.

    Both published parts together are split into 70, 15 and 15 % of each class; or, `official`, into
    the published 270 to train and 370 to test, with none to validate. Values are standardised and
    times divided by the longest series.
    """
    found = ucr("JapaneseVowels", folder)
    series = [*found.train_x, *found.test_x]
    labels = np.concatenate([found.train_y, found.test_y])
    numbers = np.arange(len(series))
    first = len(found.train_x)
    parts = (numbers[:first], numbers[:0], numbers[first:])
    if not official:
        parts = _stratified(labels, (0.7, 0.15))
    if dropped:
        series = drop_rows(series, dropped / 100, key=jr.key(7))
    scaling = standardize([series[i] for i in parts[0]])
    x = pad(scaling(series))
    pairs: list[Any] = [tree for part in parts for tree in (x[part], labels[part])]
    return SeriesParts(*pairs, yardsticks=_yardsticks(pairs))


def _stratified(labels: np.ndarray, fractions: Sequence[float]) -> tuple[np.ndarray, ...]:
    """Numbers of disjoint parts, with the same fraction of each class: these and the rest."""
    rng = np.random.default_rng(5)
    parts: list[list[np.ndarray]] = [[] for _ in range(len(fractions) + 1)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        ends = np.rint(np.cumsum(fractions) * len(members)).astype(int)
        for part, chosen in zip(parts, np.split(members, ends), strict=True):
            part.append(chosen)
    return tuple(np.sort(np.concatenate(part)) for part in parts)


def _yardsticks(pairs: Sequence[Any]) -> dict[str, float]:
    """The accuracy of who always says the same, and of who looks at means over time alone."""
    (train, labels), (test, asked) = pairs[:2], pairs[4:]
    most = np.bincount(labels).argmax()
    means, wanted = _means(train), _means(test)
    centres = np.stack([means[labels == label].mean(axis=0) for label in np.unique(labels)])
    nearest = np.argmin(np.sum((wanted[:, None] - centres) ** 2, axis=-1), axis=1)
    return {
        "the largest class": float(np.mean(asked == most)),
        "the nearest class by means over time": float(np.mean(np.unique(labels)[nearest] == asked)),
    }


def _means(series: Series) -> np.ndarray:
    xs, mask = np.asarray(series.xs), np.asarray(series.mask)
    return xs.sum(axis=1, where=mask) / np.maximum(mask.sum(axis=1), 1)


_VOWELS = Config(
    about="",
    load=lambda folder: vowels(30, folder=folder),
    task=Vowels(),
    width=32,
    depth=3,
    final="tanh",
    rtol=1e-3,
    atol=1e-3,
    equal_steps=1,
    epochs=60,
    batch_size=32,
    optimizer=lambda num_updates: optax.adam(optax.cosine_decay_schedule(3e-3, num_updates)),
    updates_per_call=14,
    predict_batch=96,
    coefficients={},
    max_steps=1024,
)
_COEFFICIENTS = {
    "steps": 1e-2,
    "budget": 12.0,
    "error": 1.0,
    "error_sum": 0.1,
    "error_squared": 0.01,
    "stiffness": 0.1,
    "error+stiffness": 1.0,
    "local_time": 1.0,
    "local_step": 1.0,
}


def _preset(model: str, dropped: int, **options: Any) -> Config:
    official = options.get("official", False)
    split = ", published split" if official else ""
    return _VOWELS._replace(
        about=f"JapaneseVowels, {dropped} % of the rows dropped{split}: {model}",
        model=model,
        load=lambda folder: vowels(dropped, official=official, folder=folder),
    )


def _adaptive(dropped: int) -> Config:
    plain = _preset("ncde", dropped)
    return plain._replace(
        about=f"{plain.about}, Tsit5 at tolerance 1e-3, for regularisers",
        equal_steps=None,
        coefficients=_COEFFICIENTS,
    )


PRESETS = {f"{model}_{dropped}": _preset(model, dropped) for dropped in DROPPED for model in MODELS}
PRESETS = {"ncde_30": PRESETS["ncde_30"], **PRESETS}
PRESETS |= {f"ncde_adaptive_{dropped}": _adaptive(dropped) for dropped in DROPPED}
PRESETS |= {f"{model}_30_official": _preset(model, 30, official=True) for model in MODELS}
