"""The loss of a training: the task's, and what a regularizer adds to it."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int

from ...regularize import Steer, StepBudget, penalty, schedules
from .config import Coefficient
from .regularizers import Regularizer
from .solves import with_solve
from .task import AbstractTask


def make_loss(
    task: AbstractTask, regularizer: Regularizer, coefficient: Coefficient, num_updates: int
) -> Callable[..., tuple]:
    """The task's loss and what the regularizer adds to it, as `fit` wants it."""
    add = _penalised(regularizer, coefficient, num_updates)
    width = constant(coefficient) if regularizer.means == "end" else regularizer.end
    end = Steer(width) if width else None

    def loss_fn(
        model: Any,
        batch: tuple[Any, Any],
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
            task.metric.name: metric,
            # Of a batch, or the means of its samples where each is solved for itself.
            "steps": jnp.mean(solution.stats["num_steps"]),
            "evals": jnp.mean(solution.stats["num_evals"]),
            "task": plain,
            **parts,
        }
        return loss, metrics, *after

    return loss_fn


def first_carry(regularizer: Regularizer, coefficient: Coefficient) -> Any:
    """What the loss carries from one update to the next, before the first; `None` for nothing."""
    if regularizer.means != "budget":
        return None
    return StepBudget(constant(coefficient)).init()


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
        budget = StepBudget(constant(coefficient))

        def within_budget(task: Array, solution: Any, step: Array, carry: Any) -> tuple:
            steps = jnp.mean(solution.stats["num_steps"])
            count = jnp.mean(solution.costs["steps"])
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


def constant(coefficient: Coefficient) -> float:
    """The coefficient, if it is no schedule."""
    if isinstance(coefficient, tuple):
        raise ValueError(f"A schedule of the coefficient ({coefficient}) has no meaning here.")
    return coefficient
