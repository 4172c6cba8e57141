"""Budgets instead of weights: at most so many steps, or at most such a loss."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax

from ..numbers import positive
from ..shapes import Scalar

# A multiplier of this, the least, is as good as none: one percent of the objective.
_SMALLEST = 0.01
_LARGEST = 1e6
# Beyond half as much again the price rises no faster: an optimiser needs time to answer.
_LARGEST_EXCESS = 0.5
_RECENT = 50.0  # updates
# Of the budget, on average: steps are whole numbers, and a batch is not like another.
_TOLERATED = 0.1


class Dual(eqx.Module):
    """What a budget carries from one update to the next.

    Attributes:
        budget: what it is of, in words.
        multiplier: the price of the constraint, as a multiple of the objective; positive.
        task, cost: means of the task loss and of the steps, of as many updates as `number` says.
        recent: the mean task loss of the last fifty updates or so.
        excess: by which part the budget was exceeded in them, on average.
        gap: by how much a validation loss exceeds that of the training batches.
    """

    budget: str = eqx.field(static=True)
    multiplier: Scalar
    task: Scalar
    cost: Scalar
    number: Scalar
    recent: Scalar
    excess: Scalar
    gap: Scalar

    def remark(self) -> str | None:
        """At the end of a training: that the budget was not kept, and what to do; else `None`.

        Not kept is exceeded by more than a tenth, in the mean of the last fifty updates or so.
        [`ndekit.train.fit`][] asks for it.
        """
        excess, price = float(jnp.max(self.excess)), float(jnp.max(self.multiplier))
        if round(excess, 3) <= _TOLERATED:
            return None
        if price >= _LARGEST:
            state = f"and its price is as high as it goes ({price:.3g}): it cannot be kept. Allow"
        else:
            state = f"and its price was still rising ({price:.3g}). Train longer, or allow"
        return f"The budget of {self.budget} was exceeded by {excess:.0%} at the end, {state} more."


class StepBudget(eqx.Module):
    r"""At most `target_steps` steps a solve, instead of a weight: an augmented Lagrangian whose
    multiplier rises while the budget is exceeded.

    With $g = n / N - 1$, $n$ the steps and $N$ the target, the loss is
    $\ell + s \mu\, [\max(0, 1 + \rho g)^2 - 1] / 2 \rho$, and after each update
    $\mu \leftarrow \mu\, e^{\eta g}$, $g$ clipped to $\pm \tfrac12$ and $\mu$ to $[10^{-2}, 10^6]$.
    The price adapts over orders of magnitude, and $s$ is the mean task loss $|\ell|$ so far: the
    defaults serve for losses of any size. A solve that keeps the budget by more than $1 / \rho$
    is left in peace. $n$ is the solver's own count, rejected steps included; its gradient is that
    of `StepCount`, scaled to $n$.

    Args:
        target_steps: $N$, of one solve, or on average over the samples; positive. A first step
            that is small by rule takes some of them.
        rate: $\eta$, of the dual ascent, in each update. Smaller for trainings of many thousand
            updates, and for optimisers that answer slowly.
        curvature: $\rho$.

    Raises:
        ValueError: if a number is not positive and finite.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        budget = nk.StepBudget(8.0)
        dual = budget.init()  # train.fit(carry=dual) hands it on and keeps it in checkpoints
        task, steps, counted = jnp.array(2.3), jnp.array(12), jnp.array(9.5)
        loss, dual, parts = budget(task, steps, counted, dual)
        ```

    Reference: Hestenes 1969 and Powell 1969; Bertsekas, *Constrained Optimization and Lagrange
    Multiplier Methods* (1982); the multiplicative ascent is that of exponentiated gradients
    (Kivinen and Warmuth 1997). As a budget of solver steps it is ours.
    """

    target_steps: float | int
    rate: float = 0.1
    curvature: float = 10.0

    def __check_init__(self):
        _check_positive(self, "target_steps", "rate", "curvature")

    def init(self) -> Dual:
        """Before the first update."""
        return _nothing_yet(f"{self.target_steps} steps a solve", _SMALLEST)

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
        dual = _noted(dual, task, steps, excess)
        added = _priced(self, dual, excess)
        return task + lax.stop_gradient(dual.task) * added, *_after(self, dual, excess)


class LossBudget(eqx.Module):
    r"""As few steps as possible with a task loss of at most `target_loss`.

    The other way round than [`ndekit.StepBudget`][]: with $g = \ell / x - 1$ the loss is
    $n / \bar n + \mu\, [\max(0, 1 + \rho g)^2 - 1] / 2 \rho$, $\bar n$ the mean of all steps.
    $\ell$ is the training batch's; [`observe`][ndekit.LossBudget.observe] tells of a validation
    loss, and what it exceeds the training batches by counts as well from then on.

    Args:
        target_loss: $x$, positive. One that cannot be reached leaves no room for the steps.
        rate, curvature: as for `StepBudget`.

    Raises:
        ValueError: if a number is not positive and finite.

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
    rate: float = 0.1
    curvature: float = 10.0

    def __check_init__(self):
        _check_positive(self, "target_loss", "rate", "curvature")

    def init(self) -> Dual:
        """Before the first update: the task comes first, until it has been learnt."""
        return _nothing_yet(f"a loss of {self.target_loss}", 1.0)

    def __call__(
        self, task: Scalar, steps: Any, step_count: Any, dual: Dual
    ) -> tuple[Scalar, Dual, dict[str, Scalar]]:
        """As [`ndekit.StepBudget`][]'s."""
        steps, step_count = _mean(steps, task), _mean(step_count, task)
        excess = (task + dual.gap.astype(task.dtype)) / self.target_loss - 1
        dual = _noted(dual, task, steps, excess)
        cost = _with_gradient_of(steps, step_count) / lax.stop_gradient(dual.cost)
        return cost + _priced(self, dual, excess), *_after(self, dual, excess)

    def observe(self, dual: Dual, validation_loss: Any) -> Dual:
        """The dual after a validation loss was measured."""
        gap = jnp.asarray(validation_loss, dual.gap.dtype) - dual.recent
        return eqx.tree_at(lambda d: d.gap, dual, jnp.maximum(gap, 0))


def _nothing_yet(budget: str, multiplier: float) -> Dual:
    zero = jnp.zeros(())
    return Dual(budget, jnp.full_like(zero, multiplier), zero, zero, zero, zero, zero, zero)


def _mean(x: Any, task: Scalar) -> Scalar:
    return jnp.mean(jnp.asarray(x).astype(task.dtype))


def _with_gradient_of(steps: Scalar, step_count: Scalar) -> Scalar:
    """`steps`, with the derivative of `step_count` scaled to it."""
    counted = lax.stop_gradient(step_count)
    ratio = steps / jnp.where(counted > 0, counted, 1)
    return lax.stop_gradient(steps) + lax.stop_gradient(ratio) * (step_count - counted)


def _priced(budget: StepBudget | LossBudget, dual: Dual, excess: Scalar) -> Scalar:
    r"""$\mu\, [\max(0, 1 + \rho g)^2 - 1] / 2 \rho$."""
    price, rho = lax.stop_gradient(dual.multiplier).astype(excess.dtype), budget.curvature
    return price * (jnp.maximum(0, 1 + rho * excess) ** 2 - 1) / (2 * rho)


def _after(
    budget: StepBudget | LossBudget, dual: Dual, excess: Scalar
) -> tuple[Dual, dict[str, Scalar]]:
    """The dual with its new price, and the numbers to log."""
    dual = _raised(dual, excess, budget.rate)
    parts = {"budget_multiplier": dual.multiplier, "budget_excess": excess}
    return dual, lax.stop_gradient(parts)


def _noted(dual: Dual, task: Scalar, steps: Scalar, excess: Scalar) -> Dual:
    """The means after one more update."""
    number = dual.number + 1

    def mean(old: Scalar, new: Scalar, most: float = jnp.inf) -> Scalar:
        new = lax.stop_gradient(new).astype(old.dtype)
        return old + (new - old) / jnp.minimum(number, most)

    noted = (
        mean(dual.task, jnp.abs(task)),
        mean(dual.cost, steps),
        number,
        mean(dual.recent, task, _RECENT),
        mean(dual.excess, excess, _RECENT),
    )
    return Dual(dual.budget, dual.multiplier, *noted, dual.gap)


def _raised(dual: Dual, excess: Scalar, rate: float) -> Dual:
    excess = lax.stop_gradient(excess).astype(dual.multiplier.dtype)
    rise = jnp.exp(rate * jnp.clip(excess, -_LARGEST_EXCESS, _LARGEST_EXCESS))
    multiplier = jnp.clip(dual.multiplier * rise, _SMALLEST, _LARGEST)
    return eqx.tree_at(lambda d: d.multiplier, dual, multiplier)


def _check_positive(budget: Any, *names: str) -> None:
    for name in names:
        positive(name, getattr(budget, name))
