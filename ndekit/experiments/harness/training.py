"""Trainings that differ by their seed alone."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.random as jr

from ...data import Batches
from ...train import FitResult, WeightAverage, fit
from .config import Coefficient, Config
from .errors import SettingError
from .loss import averaging, constant, first_carry, make_loss
from .measuring import measure
from .regularizers import Regularizer


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
            _check_width(constant(coefficient), getattr(data, "ts", (0.0, 1.0)))
        self.per_epoch = len(data.train_x) // config.batch_size
        self.num_updates = epochs * self.per_epoch
        self.loss_fn = make_loss(config.task, regularizer, coefficient, self.num_updates)
        self.carry = first_carry(regularizer, coefficient)
        if config.average_from is not None:
            self.loss_fn = averaging(self.loss_fn)
        self.optimizer = config.optimizer(self.num_updates)

    @property
    def updates_per_call(self) -> int:
        """The most that divide an epoch, so that every epoch ends between two calls."""
        most = min(self.config.updates_per_call, self.per_epoch)
        return next(n for n in range(most, 0, -1) if self.per_epoch % n == 0)

    def train(
        self,
        seed: int,
        folder: Path,
        *,
        progress: bool,
        stop: Callable[[], bool] | None = None,
    ) -> FitResult:
        """Train, with log and checkpoint in `folder`; goes on from the checkpoint if it may, and
        ends with one when `stop` says so.
        """
        epochs = self.num_updates // self.per_epoch
        result = self.go_on(
            seed, folder, self.num_updates,
            evaluate=self.evaluate,
            evaluate_every=self.per_epoch * max(1, math.ceil(epochs / 20)),
            log_path=folder / "log.jsonl",
            progress=progress,
            stop=stop,
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
        return {task.metric.name: found.pop("metric"), **found}
