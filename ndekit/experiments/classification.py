"""A classifier with an ODE inside: build it, train it, and measure what it costs to use."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from ..data import Batches, Dataset
from ..diagnose import StepTable, record_steps
from ..fields import MLP, Affine
from ..models import NeuralODE, ODEClassifier
from ..regularize import Steer, StepBudget, penalty, schedules
from ..train import FitResult, fit
from .config import Coefficient, Config
from .regularizers import Regularizer

NUM_TIMINGS = 20


class Measures(NamedTuple):
    """A model on one part of the data, each batch solved as one state."""

    accuracy: float  # from 0 to 1
    loss: float
    steps: float  # accepted and rejected, mean over batches
    evals: float  # of the vector field, mean over batches


def build_model(
    config: Config, regularizer: Regularizer, data: Dataset, *, key: Key[Array, ""]
) -> ODEClassifier:
    """Pixels are the state, time enters both layers of the field, a linear layer reads the end."""
    field_key, head_key = jr.split(key)
    size = data.num_features
    field = MLP(
        size, config.width, 1, time="concat_each_layer", final=config.final, near_zero=False,
        key=field_key,
    )  # fmt: skip
    ode = NeuralODE(
        field,
        controller=diffrax.PIDController(
            rtol=config.rtol, atol=config.atol, pcoeff=config.pcoeff, icoeff=config.icoeff
        ),
        costs=regularizer.costs,
        max_steps=config.max_steps,
    )
    return ODEClassifier(eqx.nn.Identity(), ode, Affine(size, data.num_classes, key=head_key))


def make_loss(
    regularizer: Regularizer, coefficient: Coefficient, num_updates: int
) -> Callable[..., tuple]:
    """Cross-entropy and what the regularizer adds to it, as `fit` wants it."""
    add = _penalised(regularizer, coefficient, num_updates)
    end = Steer(_number(coefficient)) if regularizer.means == "end" else None

    def loss_fn(
        model: ODEClassifier,
        batch: tuple[Array, Array],
        step: Int[Array, ""],
        *,
        key: Array,
        **carry: Any,
    ) -> tuple:
        x, labels = batch
        if end is not None:
            ode = model.ode
            _, t1 = end.draw(ode.t0, ode.t1, key=key)
            model = dataclasses.replace(model, ode=dataclasses.replace(ode, t1=t1))
        logits, solution = model(x, key=key)
        task, accuracy = judge(logits, labels)
        loss, parts, *after = add(task, solution, step, **carry)
        metrics = {
            "accuracy": accuracy,
            "steps": solution.stats["num_steps"],
            "evals": solution.stats["num_evals"],
            "task": task,
            **parts,
        }
        return loss, metrics, *after

    return loss_fn


def first_carry(regularizer: Regularizer, coefficient: Coefficient) -> Any:
    """What the loss carries from one update to the next, before the first; `None` for nothing."""
    if regularizer.means != "budget":
        return None
    return StepBudget(_number(coefficient)).init()


def _penalised(regularizer: Regularizer, coefficient: Coefficient, num_updates: int) -> Callable:
    """`(task, solution, step) -> (loss, parts)`, or with a carry also given and returned."""
    if regularizer.means == "budget":
        budget = StepBudget(_number(coefficient))

        def within_budget(task: Array, solution: Any, step: Array, carry: Any) -> tuple:
            steps, count = solution.stats["num_steps"], solution.costs["steps"]
            loss, carry, parts = budget(task, steps, count, carry)
            return loss, {"cost_steps": count, **parts}, carry

        return within_budget
    if isinstance(coefficient, tuple):
        schedule = schedules.exponential(*coefficient, steps=num_updates)
    else:
        schedule = schedules.constant(coefficient)
    coefficients = {
        name: lambda step, weight=weight: weight * schedule(step)
        for name, weight in regularizer.weights.items()
    }

    def added(task: Array, solution: Any, step: Array) -> tuple:
        penalised, parts = penalty(solution.costs, coefficients, step)
        return task + penalised, parts

    return added


def _number(coefficient: Coefficient) -> float:
    if isinstance(coefficient, tuple):
        raise ValueError(f"A schedule of the coefficient ({coefficient}) has no meaning here.")
    return coefficient


def judge(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross-entropy and accuracy."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses), jnp.mean(jnp.argmax(logits, axis=-1) == labels)


@eqx.filter_jit
def predict(model: ODEClassifier, x: Array) -> tuple[Array, Mapping[str, Any]]:
    logits, solution = model(x)
    return logits, solution.stats


def without_costs(model: ODEClassifier) -> ODEClassifier:
    """The model as one uses it: a prediction measures nothing."""
    return dataclasses.replace(model, ode=dataclasses.replace(model.ode, costs={}))


def measure(model: ODEClassifier, x: np.ndarray, labels: np.ndarray, batch_size: int) -> Measures:
    """Accuracy and cost of predictions, in batches of `batch_size` and the rest."""
    model = without_costs(model)
    rows = []
    for start in range(0, len(x), batch_size):
        part = slice(start, start + batch_size)
        logits, stats = predict(model, jnp.asarray(x[part]))
        loss, accuracy = judge(logits, jnp.asarray(labels[part]))
        size = len(labels[part])
        rows.append((size, accuracy, loss, stats["num_steps"], stats["num_evals"]))
    sizes, accuracies, losses, steps, evals = np.array(rows, dtype=float).T
    return Measures(
        accuracy=float(np.average(accuracies, weights=sizes)),
        loss=float(np.average(losses, weights=sizes)),
        steps=float(steps.mean()),
        evals=float(evals.mean()),
    )


def time_prediction(model: ODEClassifier, x: np.ndarray) -> float:
    """Seconds for one batch: the median of several, compiled and waited for."""
    model, batch = without_costs(model), jnp.asarray(x)
    jax.block_until_ready(predict(model, batch)[0])
    seconds = []
    for _ in range(NUM_TIMINGS):
        start = time.perf_counter()
        jax.block_until_ready(predict(model, batch)[0])
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def see_solver(model: ODEClassifier, config: Config, x: np.ndarray) -> StepTable:
    """Each step of the solve of one batch."""
    ode = model.ode
    return record_steps(
        diffrax.ODETerm(ode.field), ode.solver, ode.t0, ode.t1, ode.dt0,  # pyright: ignore
        model.encoder(jnp.asarray(x)), stepsize_controller=ode.controller,
        max_steps=config.max_steps,
    )  # fmt: skip


class Trainer:
    """Trains models that differ by their seed alone, so that they share one compiled program."""

    def __init__(
        self,
        config: Config,
        regularizer: Regularizer,
        coefficient: Coefficient,
        data: Dataset,
        epochs: int,
    ):
        self.config, self.regularizer, self.data = config, regularizer, data
        self.per_epoch = len(data.train_x) // config.batch_size
        self.num_updates = epochs * self.per_epoch
        self.loss_fn = make_loss(regularizer, coefficient, self.num_updates)
        self.carry = first_carry(regularizer, coefficient)
        self.optimizer = config.optimizer(self.num_updates)

    def train(self, seed: int, folder: Path, *, progress: bool) -> FitResult:
        """Train, with log and checkpoint in `folder`; goes on from the checkpoint if it may."""
        model_key, batch_key, fit_key = jr.split(jr.key(seed), 3)
        data, config = self.data, self.config
        epochs = self.num_updates // self.per_epoch
        evaluate_every = self.per_epoch * max(1, math.ceil(epochs / 20))
        return fit(
            build_model(config, self.regularizer, data, key=model_key),
            self.loss_fn,
            Batches((data.train_x, data.train_y), batch_size=config.batch_size, key=batch_key),
            optimizer=self.optimizer,
            num_updates=self.num_updates,
            key=fit_key,
            updates_per_call=math.gcd(config.updates_per_call, self.per_epoch),
            evaluate=self.evaluate,
            evaluate_every=evaluate_every,
            log_path=folder / "log.jsonl",
            checkpoint_dir=folder,
            progress=progress,
            carry=self.carry,
        )

    def evaluate(self, model: ODEClassifier) -> dict[str, float]:
        """What the curves show: validation data, or test data where none is held out.

        Nothing is chosen by it.
        """
        data = self.data
        x, labels = data.validation_x, data.validation_y
        if not len(x):
            x, labels = data.test_x, data.test_y
        return measure(model, x, labels, self.config.predict_batch)._asdict()
