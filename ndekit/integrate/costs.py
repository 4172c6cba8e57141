"""The contracts of step costs: what is read off a step, and at which steps."""

import abc
from collections.abc import Mapping
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp

from .. import tree
from ..shapes import Count, Flag, Scalar
from .step import Step


class AbstractStepCost(eqx.Module):
    """A number read off one accepted step, differentiable in whatever the step depends on.

    Implement `of_step`; everything else (accumulation, gradients, both engines) follows.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        class Speed(nk.AbstractStepCost):
            def of_step(self, step):
                return step.h * jnp.mean(step.rates[0] ** 2)

        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 1.0, None, jnp.ones(2),
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4),
            costs={"speed": Speed()},
        )
        ```
    """

    @abc.abstractmethod
    def of_step(self, step: Step) -> Scalar:
        """The cost of one accepted step; a scalar, finite wherever the step is."""


class AbstractPlacement(eqx.Module):
    """At which steps of a solve a step cost is read, and how the readings become one number.

    The readings arrive one by one (`add`), so that a solve need not keep them. `share` states the
    derivative of the final number by one reading, which lets the replayed reverse pass go through
    the steps in any order.
    """

    cost: eqx.AbstractVar[AbstractStepCost]

    @abc.abstractmethod
    def init(self, dtype: Any, key: Any) -> Any:
        """The accumulator before the first step. `key` is `diffeqsolve(key=...)`, or `None`."""

    @abc.abstractmethod
    def add(self, total: Any, reading: Scalar, number: Count) -> Any:
        """The accumulator after accepted step `number` (0, 1, ...)."""

    @abc.abstractmethod
    def read(self, total: Any, num_accepted: Count) -> Scalar:
        """The cost of the solve."""

    @abc.abstractmethod
    def share(self, total: Any, num_accepted: Count, number: Count) -> Scalar:
        """d read / d (reading of accepted step `number`), from the final accumulator."""


class EveryStep(AbstractPlacement):
    r"""A step cost over all accepted steps: $\sum_n c_n$, their mean, or their maximum.

    A bare cost in `costs={...}` means `EveryStep(cost, "sum")`. Rejected attempts count nothing.

    Args:
        cost: the step cost.
        reduce: `"sum"`, `"mean"` (over accepted steps) or `"max"` (its derivative is that of the
            first largest reading).

    Raises:
        ValueError: for any other `reduce`.
    """

    cost: AbstractStepCost
    reduce: Literal["sum", "mean", "max"] = eqx.field(static=True, default="sum")

    def __check_init__(self):
        if not isinstance(self.cost, AbstractStepCost):
            raise ValueError(
                f"`EveryStep` takes a step cost, but got {self.cost!r}. Pass e.g. `StepError()`."
            )
        if self.reduce not in ("sum", "mean", "max"):
            raise ValueError(f"`reduce` must be 'sum', 'mean' or 'max', but got {self.reduce!r}.")

    def init(self, dtype: Any, key: Any) -> tuple[Scalar, Count]:
        return jnp.zeros((), dtype), jnp.array(-1)

    def add(self, total: tuple[Scalar, Count], reading: Scalar, number: Count) -> tuple:
        value, at = total
        if self.reduce == "max":
            larger = (at < 0) | (reading > value)
            return jnp.where(larger, reading, value), jnp.where(larger, number, at)
        return value + reading, at

    def read(self, total: tuple[Scalar, Count], num_accepted: Count) -> Scalar:
        value, _ = total
        return value * self._normaliser(value, num_accepted)

    def share(self, total: tuple[Scalar, Count], num_accepted: Count, number: Count) -> Scalar:
        value, at = total
        if self.reduce == "max":
            return (number == at).astype(value.dtype)
        return self._normaliser(value, num_accepted)

    def _normaliser(self, value: Scalar, num_accepted: Count) -> Scalar:
        if self.reduce == "mean":
            return 1 / jnp.maximum(num_accepted, 1).astype(value.dtype)
        return jnp.ones((), value.dtype)


def as_placements(costs: Mapping[str, Any] | None) -> dict[str, AbstractPlacement]:
    """The `costs=` argument, each bare cost made `EveryStep(cost, "sum")`."""
    if costs is None:
        return {}
    if not isinstance(costs, Mapping):
        raise ValueError(
            f"`costs` must be a dict of named costs, but got {costs!r}. "
            "Write `costs={'steps': StepCount()}`."
        )
    return {name: _as_placement(name, cost) for name, cost in costs.items()}


def _as_placement(name: str, cost: Any) -> AbstractPlacement:
    if isinstance(cost, AbstractPlacement):
        return cost
    if isinstance(cost, AbstractStepCost):
        return EveryStep(cost)
    raise ValueError(
        f"`costs[{name!r}]` must be a step cost or a placement, but got {cost!r}. "
        "Pass an instance such as `StepCount()` or `EveryStep(StepError(), 'mean')`."
    )


Placements = dict[str, AbstractPlacement]


def init_totals(placements: Placements, dtype: Any, key: Any) -> dict[str, Any]:
    return {name: p.init(dtype, key) for name, p in placements.items()}


def readings_of(placements: Placements, step: Step, dtype: Any) -> dict[str, Scalar]:
    """Each cost of one step, checked to be a scalar."""
    readings = {}
    for name, placement in placements.items():
        reading = jnp.asarray(placement.cost.of_step(step))
        if reading.shape != () or not jnp.issubdtype(reading.dtype, jnp.floating):
            raise ValueError(
                f"The cost {name!r} must be a real floating scalar, but `of_step` returned "
                f"{reading.dtype}{list(reading.shape)}."
            )
        readings[name] = reading.astype(dtype)
    return readings


def add_readings(
    placements: Placements, totals: dict, readings: dict, number: Count, accepted: Flag
) -> dict[str, Any]:
    """The totals with one step's readings added where the step was accepted."""
    # Not `where(accepted, add(total, reading), total)`: a reading that overflowed in a rejected
    # step would give NaN derivatives through the unused branch.
    clean = {name: jnp.where(accepted, r, 0) for name, r in readings.items()}
    return {
        name: tree.where(accepted, p.add(totals[name], clean[name], number), totals[name])
        for name, p in placements.items()
    }


def read_totals(placements: Placements, totals: dict, num_accepted: Count) -> dict[str, Scalar]:
    return {name: p.read(totals[name], num_accepted) for name, p in placements.items()}


def shares_of(placements: Placements, totals: dict, num_accepted: Count, number: Count) -> dict:
    return {name: p.share(totals[name], num_accepted, number) for name, p in placements.items()}
