"""The contracts of step costs: what is read off a step, and at which steps."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from ..shapes import Count, Flag, Scalar, Time
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
        dtype: the dtype of readings.
        key: `diffeqsolve(key=...)`, or `None`.
        max_steps: the bound on steps, or `None` if there is none or it is not known.
        ts: the times of `SaveAt(ts=...)`, growing as inside the solve, or `None`.
    """

    dtype: Any = eqx.field(static=True)
    key: Any
    max_steps: int | None = eqx.field(static=True)
    ts: Any


class AbstractPlacement(eqx.Module):
    """At which steps of a solve a step cost is read, and what the readings become.

    The readings arrive one by one (`add`), so that a solve need not keep them. `pull` is the vjp of
    `read` by one reading, which lets the replayed reverse pass go through the steps backwards.
    """

    cost: eqx.AbstractVar[AbstractStepCost]

    @abc.abstractmethod
    def init(self, surroundings: Surroundings) -> Any:
        """The accumulator before the first step."""

    @abc.abstractmethod
    def add(self, total: Any, reading: Scalar, place: Place) -> Any:
        """The accumulator after an attempt; the reading of a rejected one comes as 0, and must
        leave no trace.
        """

    @abc.abstractmethod
    def read(self, total: Any, num_accepted: Count) -> Any:
        """The cost of the solve: a scalar or an array."""

    @abc.abstractmethod
    def pull(self, total: Any, num_accepted: Count, place: Place, ct: Any) -> Scalar:
        """The cotangent of one reading, from that of `read` and the final accumulator."""


Placements = dict[str, AbstractPlacement]


def init_totals(placements: Placements, surroundings: Surroundings) -> dict[str, Any]:
    return {name: p.init(surroundings) for name, p in placements.items()}


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
    placements: Placements, totals: dict, readings: dict, place: Place
) -> dict[str, Any]:
    """The totals with one step's readings added where the step was accepted."""
    # Not `where(accepted, add(total, reading), total)`: a reading that overflowed in a rejected
    # step would give NaN derivatives through the unused branch.
    clean = {name: jnp.where(place.accepted, r, 0) for name, r in readings.items()}
    return {name: p.add(totals[name], clean[name], place) for name, p in placements.items()}


def read_totals(placements: Placements, totals: dict, num_accepted: Count) -> dict[str, Any]:
    return {name: p.read(totals[name], num_accepted) for name, p in placements.items()}


def pull_readings(
    placements: Placements, totals: dict, num_accepted: Count, place: Place, ct: dict
) -> dict[str, Scalar]:
    return {n: p.pull(totals[n], num_accepted, place, ct[n]) for n, p in placements.items()}
