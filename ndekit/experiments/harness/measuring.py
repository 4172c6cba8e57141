"""What a model is worth and what it costs: each batch solved as one state."""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .solves import with_solve
from .task import AbstractTask

NUM_TIMINGS = 20


class Measures(NamedTuple):
    """A model on one part of the data, each batch solved as one state."""

    metric: float  # the task's
    loss: float
    steps: float  # accepted and rejected, mean over batches
    evals: float  # of the vector field, mean over batches


@eqx.filter_jit
def predict(model: Any, x: Array) -> tuple[Array, Mapping[str, Any]]:
    prediction, solution = model(x)
    return prediction, solution.stats


def without_costs(model: Any) -> Any:
    """The model as one uses it: a prediction measures nothing."""
    return with_solve(model, costs={})


def measure(
    task: AbstractTask, model: Any, x: np.ndarray, targets: np.ndarray, batch_size: int
) -> Measures:
    """Worth and cost of predictions, in batches of `batch_size` and the rest."""
    model = without_costs(model)
    rows = []
    for start in range(0, len(x), batch_size):
        part = slice(start, start + batch_size)
        prediction, stats = predict(model, jnp.asarray(x[part]))
        loss, metric = task.judge(prediction, jnp.asarray(targets[part]))
        size = len(targets[part])
        rows.append((size, metric, loss, stats["num_steps"], stats["num_evals"]))
    sizes, metrics, losses, steps, evals = np.array(rows, dtype=float).T
    return Measures(
        metric=float(np.average(metrics, weights=sizes)),
        loss=float(np.average(losses, weights=sizes)),
        steps=float(steps.mean()),
        evals=float(evals.mean()),
    )


def time_predictions(models: Sequence[Any], x: np.ndarray) -> list[float]:
    """Seconds for one batch by each model, in turns: medians, compiled and waited for."""
    models, batch = [without_costs(model) for model in models], jnp.asarray(x)
    for model in models:
        jax.block_until_ready(predict(model, batch)[0])
    seconds: list[list[float]] = [[] for _ in models]
    for _ in range(NUM_TIMINGS):
        for model, of_model in zip(models, seconds, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(predict(model, batch)[0])
            of_model.append(time.perf_counter() - start)
    return [statistics.median(of_model) for of_model in seconds]
