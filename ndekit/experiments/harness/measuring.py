"""What a model is worth and what it costs."""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .solves import with_solve
from .task import AbstractTask

NUM_TIMINGS = 20


class Measures(NamedTuple):
    """A model on one part of the data.

    A solve is that of a batch as one state, or that of each sample, as the model has it.

    Attributes:
        metric: the task's.
        steps: accepted and rejected, mean over solves.
        evals: of the vector field, mean over solves.
        most_steps: of a solve.
    """

    metric: float
    loss: float
    steps: float
    evals: float
    most_steps: float


def rows_of(data: Any, part: slice) -> Any:
    """Some samples of arrays, or of a tree of arrays, that have one in each row."""
    return jax.tree.map(lambda leaf: leaf[part], data)


@eqx.filter_jit
def predict(model: Any, x: Any) -> tuple[Any, Mapping[str, Any]]:
    prediction, solution = model(x)
    return prediction, solution.stats


def without_costs(model: Any) -> Any:
    """The model as one uses it: a prediction measures nothing."""
    return with_solve(model, costs={})


def measure(task: AbstractTask, model: Any, x: Any, targets: Any, batch_size: int) -> Measures:
    """Worth and cost of predictions, in batches of `batch_size` and the rest."""
    model = without_costs(model)
    rows, counts = [], []
    for start in range(0, len(x), batch_size):
        part = slice(start, start + batch_size)
        given, wanted = (jax.tree.map(jnp.asarray, rows_of(tree, part)) for tree in (x, targets))
        prediction, stats = predict(model, given)
        loss, metric = task.judge(prediction, wanted)
        rows.append((len(given), metric, loss))
        counts.append([np.atleast_1d(stats[name]) for name in ("num_steps", "num_evals")])
    sizes, metrics, losses = np.array(rows, dtype=float).T
    steps, evals = np.concatenate(counts, axis=1)
    return Measures(
        metric=float(np.average(metrics, weights=sizes)),
        loss=float(np.average(losses, weights=sizes)),
        steps=float(steps.mean()),
        evals=float(evals.mean()),
        most_steps=float(steps.max()),
    )


def time_predictions(models: Sequence[Any], x: Any) -> list[float]:
    """Seconds for one batch by each model, in turns: medians, compiled and waited for."""
    models, batch = [without_costs(model) for model in models], jax.tree.map(jnp.asarray, x)
    for model in models:
        jax.block_until_ready(predict(model, batch)[0])
    seconds: list[list[float]] = [[] for _ in models]
    for _ in range(NUM_TIMINGS):
        for model, of_model in zip(models, seconds, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(predict(model, batch)[0])
            of_model.append(time.perf_counter() - start)
    return [statistics.median(of_model) for of_model in seconds]
