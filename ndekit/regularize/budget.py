"""Budgets instead of weights: at most so many steps, or at most such a loss."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax

from ..shapes import Scalar

# Of the running means: about fifty updates.
_MEMORY = 0.98


class Dual(eqx.Module):
    """What a budget carries from one update to the next.

    Attributes:
        multiplier: the price of the constraint, as a multiple of the objective; not negative.
        task, cost: running means, of as many updates as `number` says.
        gap: by how much a validation loss exceeds that of the training batches.
    """

    multiplier: Scalar
    task: Scalar
    cost: Scalar
    number: Scalar
    gap: Scalar


class StepBudget(eqx.Module):
    r"""At most `target_steps` steps a solve, instead of a weight: an augmented Lagrangian whose
    multiplier rises while the budget is exceeded.

    With $g = n / N - 1$, $n$ the steps and $N$ the target, the loss is
    $\ell + s\, [\max(0, \mu + \rho g)^2 - \mu^2] / 2 \rho$, and after each update
    $\mu \leftarrow \max(0, \mu + \eta g)$. $s$ is a running mean of the task loss $|\ell|$, so
    that $\mu$ has no unit and the defaults serve for losses of any size. $n$ is the solver's own
    count, rejected steps included; its gradient is that of `StepCount`, scaled to $n$.

    Args:
        target_steps: $N$, of one solve, or on average over the samples; positive. A first step
            that is small by rule takes some of them.
        rate: $\eta$, of the dual ascent: a solve of twice the budget raises $\mu$ by this much in
            each update.
        curvature: $\rho$.

    Raises:
        ValueError: if a number is not positive.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        budget = nk.StepBudget(8.0)
        dual = budget.init()  # train.fit(carry=dual) hands it on and keeps it in checkpoints
        task, steps, counted = jnp.array(2.3), jnp.array(12), jnp.array(9.5)
        loss, dual, parts = budget(task, steps, counted, dual)
        ```

    Reference: Hestenes 1969 and Powell 1969; Bertsekas, *Constrained Optimization and Lagrange
    Multiplier Methods* (1982), for inequalities. As a budget of solver steps it is ours.
    """

    target_steps: float | int
    rate: float = 0.02
    curvature: float = 1.0

    def __check_init__(self):
        _check_positive(self, "target_steps", "rate", "curvature")

    def init(self) -> Dual:
        """Before the first update."""
        return _nothing_yet()

    def __call__(
        self, task: Scalar, steps: Any, step_count: Any, dual: Dual
    ) -> tuple[Scalar, Dual, dict[str, Scalar]]:
        """The loss to differentiate, what to carry on, and numbers to log.

        Args:
            task: the task loss.
            steps: `sol.stats["num_steps"]`; an array of samples is averaged.
            step_count: `sol.costs[...]` of a `StepCount()`, likewise.
            dual: as carried from the update before.
        """
        steps, step_count = _mean(steps, task), _mean(step_count, task)
        excess = _with_gradient_of(steps, step_count) / self.target_steps - 1
        dual = _noted(dual, task, steps)
        added = _augmented(excess, dual.multiplier, self.curvature)
        loss = task + lax.stop_gradient(dual.task) * added
        dual = _raised(dual, excess, self.rate)
        parts = {"budget_multiplier": dual.multiplier, "budget_excess": excess}
        return loss, dual, lax.stop_gradient(parts)


class LossBudget(eqx.Module):
    r"""As few steps as possible with a task loss of at most `target_loss`.

    The other way round than [`ndekit.StepBudget`][]: with $g = \ell / x - 1$ the loss is
    $n / \bar n + [\max(0, \mu + \rho g)^2 - \mu^2] / 2 \rho$, $\bar n$ a running mean of the steps.
    $\ell$ is the training batch's; [`observe`][ndekit.LossBudget.observe] tells of a validation
    loss, and what it exceeds the training batches by counts as well from then on.

    Args:
        target_loss: $x$, positive. One that cannot be reached leaves no room for the steps.
        rate, curvature: as for `StepBudget`.

    Raises:
        ValueError: if a number is not positive.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        budget = nk.LossBudget(0.1)
        dual = budget.init()
        loss, dual, parts = budget(jnp.array(0.3), jnp.array(12), jnp.array(9.5), dual)
        dual = budget.observe(dual, 0.35)  # train.fit(after_evaluate=...) is the place
        ```
    """

    target_loss: float | int
    rate: float = 0.02
    curvature: float = 1.0

    def __check_init__(self):
        _check_positive(self, "target_loss", "rate", "curvature")

    def init(self) -> Dual:
        """Before the first update: the task comes first, until it has been learnt."""
        return eqx.tree_at(lambda d: d.multiplier, _nothing_yet(), jnp.ones(()))

    def __call__(
        self, task: Scalar, steps: Any, step_count: Any, dual: Dual
    ) -> tuple[Scalar, Dual, dict[str, Scalar]]:
        """As [`ndekit.StepBudget`][]'s."""
        steps, step_count = _mean(steps, task), _mean(step_count, task)
        excess = (task + dual.gap.astype(task.dtype)) / self.target_loss - 1
        dual = _noted(dual, task, steps)
        cost = _with_gradient_of(steps, step_count) / lax.stop_gradient(dual.cost)
        loss = cost + _augmented(excess, dual.multiplier, self.curvature)
        dual = _raised(dual, excess, self.rate)
        parts = {"budget_multiplier": dual.multiplier, "budget_excess": excess}
        return loss, dual, lax.stop_gradient(parts)

    def observe(self, dual: Dual, validation_loss: Any) -> Dual:
        """The dual after a validation loss was measured."""
        gap = jnp.asarray(validation_loss, dual.gap.dtype) - dual.task
        return eqx.tree_at(lambda d: d.gap, dual, jnp.maximum(gap, 0))


def _nothing_yet() -> Dual:
    return Dual(*(jnp.zeros(()) for _ in range(5)))


def _mean(x: Any, task: Scalar) -> Scalar:
    return jnp.mean(jnp.asarray(x).astype(task.dtype))


def _with_gradient_of(steps: Scalar, step_count: Scalar) -> Scalar:
    """`steps`, with the derivative of `step_count` scaled to it."""
    counted = lax.stop_gradient(step_count)
    ratio = steps / jnp.where(counted > 0, counted, 1)
    return lax.stop_gradient(steps) + lax.stop_gradient(ratio) * (step_count - counted)


def _augmented(excess: Scalar, multiplier: Scalar, curvature: float) -> Scalar:
    price = lax.stop_gradient(multiplier).astype(excess.dtype)
    return (jnp.maximum(0, price + curvature * excess) ** 2 - price**2) / (2 * curvature)


def _noted(dual: Dual, task: Scalar, steps: Scalar) -> Dual:
    """The running means after one more update; of the first few, plain means."""
    kept = jnp.minimum(_MEMORY, dual.number / (dual.number + 1))
    blend = lambda old, new: kept * old + (1 - kept) * lax.stop_gradient(new).astype(old.dtype)
    means = (blend(dual.task, jnp.abs(task)), blend(dual.cost, steps))
    return Dual(dual.multiplier, *means, dual.number + 1, dual.gap)


def _raised(dual: Dual, excess: Scalar, rate: float) -> Dual:
    step = rate * lax.stop_gradient(excess).astype(dual.multiplier.dtype)
    return eqx.tree_at(lambda d: d.multiplier, dual, jnp.maximum(0, dual.multiplier + step))


def _check_positive(budget: Any, *names: str) -> None:
    for name in names:
        if not getattr(budget, name) > 0:
            raise ValueError(f"`{name}` must be positive, but got {getattr(budget, name)}.")
