"""The contracts of step costs: what is read off a step, and at which steps."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ... import tree
from ...shapes import Count, Flag, Scalar, State, Time
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


class Place(eqx.Module):
    """Where a reading stands: accepted step `number` (0, 1, ...), from `t0` to `t1`.

    A rejected attempt has the number of the accepted step that will follow it, and `accepted`
    false.
    """

    number: Count
    t0: Time
    t1: Time
    accepted: Flag


class Surroundings(eqx.Module):
    """What a placement may want to know of the solve before it starts.

    Attributes:
        t0, y0: where it starts.
        key: `diffeqsolve(key=...)`, or `None`.
        max_steps: the bound on steps, or `None` if there is none or it is not known.
        ts: the times of `SaveAt(ts=...)`, growing as inside the solve, or `None`.
    """

    t0: Time
    y0: State
    key: Any
    max_steps: int | None = eqx.field(static=True)
    ts: Any

    @property
    def dtype(self) -> Any:
        """The dtype of readings."""
        return tree.real_dtype(self.y0)


class AbstractPlacement(eqx.Module):
    """At which steps of a solve a step cost is read, and what the readings become.

    `reading` is what the step's cost says. The readings arrive one by one (`add`), so that a solve
    need not keep them. `pull` is the vjp of `read` by one reading, which lets the replayed reverse
    pass go through the steps backwards.
    """

    cost: eqx.AbstractVar[AbstractStepCost]

    def reading(self, step: Step, name: str) -> Any:
        """What is read off one step: its cost, checked to be a scalar."""
        reading = jnp.asarray(self.cost.of_step(step))
        if reading.shape != () or not jnp.issubdtype(reading.dtype, jnp.floating):
            raise ValueError(
                f"The cost {name!r} must be a real floating scalar, but `of_step` returned "
                f"{reading.dtype}{list(reading.shape)}."
            )
        return reading.astype(tree.real_dtype(step.y0))

    @abc.abstractmethod
    def init(self, surroundings: Surroundings) -> Any:
        """The accumulator before the first step."""

    @abc.abstractmethod
    def add(self, total: Any, reading: Any, place: Place) -> Any:
        """The accumulator after an attempt; the reading of a rejected one comes as 0, and must
        leave no trace.
        """

    @abc.abstractmethod
    def read(self, total: Any, num_accepted: Count) -> Any:
        """The cost of the solve: a scalar or an array."""

    @abc.abstractmethod
    def pull(self, total: Any, num_accepted: Count, place: Place, ct: Any) -> Any:
        """The cotangent of one reading, from that of `read` and the final accumulator."""


Placements = dict[str, AbstractPlacement]


class AbstractTrajectoryCost(eqx.Module):
    """A number read off the states at a few times, which are chosen before the solve.

    It is no sum over steps: it goes into `diffeqsolve(costs=...)` like the others, under any
    adjoint, and costs what a few more entries of `SaveAt(ts=...)` cost.
    """

    @abc.abstractmethod
    def times(self, t0: Time, t1: Time, *, key: Any) -> Array:
        """The times, in any order, between `t0` and `t1`; `key` is `None` if the solve has none."""

    @abc.abstractmethod
    def of_states(self, ts: Array, ys: State) -> Scalar:
        """The cost, from the states at those times, stacked on the first axis."""


def init_totals(placements: Placements, surroundings: Surroundings) -> dict[str, Any]:
    return {name: p.init(surroundings) for name, p in placements.items()}


def readings_of(placements: Placements, step: Step) -> dict[str, Any]:
    return {name: placement.reading(step, name) for name, placement in placements.items()}


def add_readings(
    placements: Placements, totals: dict, readings: dict, place: Place
) -> dict[str, Any]:
    """The totals with one step's readings added where the step was accepted."""
    # Not `where(accepted, add(total, reading), total)`: a reading that overflowed in a rejected
    # step would give NaN derivatives through the unused branch.
    clean = jax.tree.map(lambda r: jnp.where(place.accepted, r, 0), readings)
    return {name: p.add(totals[name], clean[name], place) for name, p in placements.items()}


def read_totals(placements: Placements, totals: dict, num_accepted: Count) -> dict[str, Any]:
    return {name: p.read(totals[name], num_accepted) for name, p in placements.items()}


def pull_readings(
    placements: Placements, totals: dict, num_accepted: Count, place: Place, ct: dict
) -> dict[str, Any]:
    return {n: p.pull(totals[n], num_accepted, place, ct[n]) for n, p in placements.items()}
