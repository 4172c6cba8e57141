"""Training with a regularizer: the loss, and runs that differ by their seed."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.random as jr
from jaxtyping import Array, Int

from ...data import Batches
from ...regularize import Steer, StepBudget, penalty, schedules
from ...train import FitResult, WeightAverage, fit
from .config import Coefficient, Config
from .measuring import measure
from .registry import SettingError
from .regularizers import Regularizer
from .solves import with_solve
from .task import AbstractTask


def make_loss(
    task: AbstractTask, regularizer: Regularizer, coefficient: Coefficient, num_updates: int
) -> Callable[..., tuple]:
    """The task's loss and what the regularizer adds to it, as `fit` wants it."""
    add = _penalised(regularizer, coefficient, num_updates)
    width = _number(coefficient) if regularizer.means == "end" else regularizer.end
    end = Steer(width) if width else None

    def loss_fn(
        model: Any,
        batch: tuple[Array, Array],
        step: Int[Array, ""],
        *,
        key: Array,
        **carry: Any,
    ) -> tuple:
        x, targets = batch
        if end is not None:
            _, t1 = end.draw(model.ode.t0, model.ode.t1, key=key)
            model = with_solve(model, t1=t1)
        prediction, solution = model(x, key=key)
        plain, metric = task.judge(prediction, targets, step)
        loss, parts, *after = add(plain, solution, step, **carry)
        metrics = {
            task.metric: metric,
            "steps": solution.stats["num_steps"],
            "evals": solution.stats["num_evals"],
            "task": plain,
            **parts,
        }
        return loss, metrics, *after

    return loss_fn


def first_carry(regularizer: Regularizer, coefficient: Coefficient) -> Any:
    """What the loss carries from one update to the next, before the first; `None` for nothing."""
    if regularizer.means != "budget":
        return None
    return StepBudget(_number(coefficient)).init()


def averaging(loss_fn: Callable[..., tuple]) -> Callable[..., tuple]:
    """The same loss, with the mean of the weights carried along beside what it carries itself."""

    def loss_and_average(model: Any, batch: Any, step: Any, *, key: Array, carry: Any) -> tuple:
        own, average = carry
        given = {} if own is None else {"carry": own}
        loss, metrics, *after = loss_fn(model, batch, step, key=key, **given)
        return loss, metrics, (after[0] if after else None, average.seen(model))

    return loss_and_average


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


def _check_width(width: float, ts: Sequence[float]) -> None:
    span = ts[-1] - ts[0]
    if width >= span:
        raise SettingError(
            f"The coefficient of `steer` is how far the end time may be from t1: less than the "
            f"{span:g} that a solve spans, but it is {width:g}."
        )


class Trainer:
    """Trains models that differ by their seed alone, so that they share one compiled program."""

    def __init__(
        self,
        config: Config,
        regularizer: Regularizer,
        coefficient: Coefficient,
        data: Any,
        epochs: int,
    ):
        self.config, self.regularizer, self.data = config, regularizer, data
        if regularizer.means == "end":
            _check_width(_number(coefficient), getattr(data, "ts", (0.0, 1.0)))
        self.per_epoch = len(data.train_x) // config.batch_size
        self.num_updates = epochs * self.per_epoch
        self.loss_fn = make_loss(config.task, regularizer, coefficient, self.num_updates)
        self.carry = first_carry(regularizer, coefficient)
        if config.average_from is not None:
            self.loss_fn = averaging(self.loss_fn)
        self.optimizer = config.optimizer(self.num_updates)

    @property
    def updates_per_call(self) -> int:
        return math.gcd(self.config.updates_per_call, self.per_epoch)

    def train(self, seed: int, folder: Path, *, progress: bool) -> FitResult:
        """Train, with log and checkpoint in `folder`; goes on from the checkpoint if it may."""
        epochs = self.num_updates // self.per_epoch
        result = self.go_on(
            seed, folder, self.num_updates,
            evaluate=self.evaluate,
            evaluate_every=self.per_epoch * max(1, math.ceil(epochs / 20)),
            log_path=folder / "log.jsonl",
            progress=progress,
        )  # fmt: skip
        if self.config.average_from is None:
            return result
        return result._replace(model=result.carry[1].into(result.model))

    def go_on(self, seed: int, folder: Path, until: int, **options: Any) -> FitResult:
        """Train up to `until` updates, from the checkpoint in `folder` if there is one. The model
        has the last weights, no mean of them.
        """
        model_key, batch_key, fit_key = jr.split(jr.key(seed), 3)
        data, config = self.data, self.config
        model = config.task.build_model(config, self.regularizer, data, key=model_key)
        carry = self.carry
        if config.average_from is not None:
            start = int(config.average_from * self.num_updates)
            carry = (carry, WeightAverage(model, start=start))
        return fit(
            model,
            self.loss_fn,
            Batches((data.train_x, data.train_y), batch_size=config.batch_size, key=batch_key),
            optimizer=self.optimizer,
            num_updates=until,
            key=fit_key,
            updates_per_call=self.updates_per_call,
            checkpoint_dir=folder,
            carry=carry,
            **options,
        )

    def evaluate(self, model: Any) -> dict[str, float]:
        """What the curves show: validation data, or test data where none is held out.

        Nothing is chosen by it.
        """
        data, task = self.data, self.config.task
        x, targets = data.validation_x, data.validation_y
        if not len(x):
            x, targets = data.test_x, data.test_y
        found = measure(task, model, x, targets, self.config.predict_batch)._asdict()
        return {task.metric: found.pop("metric"), **found}
