"""The vjp of one recorded step, in all lanes."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .. import tree
from ..shapes import Count, Flag, State, Time
from .costs import readings_of, shares_of
from .forward import Recording
from .lanes import Lanes
from .problem import Operands, Problem, result_dtype
from .saved_values import Found, Place, SavedValues


@dataclass(frozen=True, eq=False)
class Replay:
    """What stays fixed during one reverse pass."""

    problem: Problem
    lanes: Lanes
    perturbed: Operands  # of bools
    parameters: tuple[
        int, ...
    ]  # positions in `flat` of perturbed constants and arrays inside costs
    flat: list[Any]
    recording: Recording
    num_accepted: Count
    ct_costs: Any
    saved: SavedValues | None

    @property
    def wants_times(self) -> bool:
        return bool(self.perturbed.t0 or self.perturbed.t1)

    @property
    def chained(self) -> bool:
        """Whether the last stage of a step matters beyond being the next step's first.

        If not, a step is replayed as a function of its state alone, and the first stage is part of
        it. If so, the first stage is an input of its own, whose cotangent goes to the step before,
        where it was the last stage; else it would be differentiated twice.
        """
        return bool(self.ct_costs) or self.saved is not None

    def map(self, fn: Any) -> Any:
        """`fn(operands, shared, *each)` over all lanes, the operands ours unless given."""
        joined = lambda flat, *rest: fn(jax.tree.unflatten(self.problem.treedef, flat), *rest)
        return self.lanes.map(joined)

    def where(self, pred: Flag, if_true: Any, if_false: Any) -> Any:
        choose = self.lanes.map(lambda _, __, *given: tree.where(*given))
        return choose(self.flat, None, pred, if_true, if_false)

    def with_parameters(self, values: list[Any]) -> list[Any]:
        flat = list(self.flat)
        for position, value in zip(self.parameters, values, strict=True):
            flat[position] = value
        return flat


class Cotangents(eqx.Module):
    """The loss's derivative by everything at the start of some step."""

    parameters: list[Any]  # summed over the steps seen
    y: State
    carry: Any
    t0: Any
    t1: Any
    found: Found | None
    remaining: Count  # accepted steps before this one, in each lane


class RecordedStep(eqx.Module):
    """One recorded step, in all lanes."""

    number: Count
    t0: Time
    t1: Time
    y: State
    accepted: Flag


def pull(pass_: Replay, ct: Cotangents, step: RecordedStep) -> Cotangents:
    """The loss's derivative before a step, from that after it."""
    out, vjp = _linearize(pass_, step)
    remaining = ct.remaining - step.accepted.astype(ct.remaining.dtype)
    found, ct_info, d_times = ct.found, None, tree.zeros_like((step.t0, step.t1))
    if pass_.saved is not None and found is not None:
        place = Place(step.t0, step.t1, out.info, step.accepted)
        found, ct_saved = pass_.saved.pull(found, place)
        ct_info, d_times = ct_saved.info, (ct_saved.t0, ct_saved.t1)
    after = (ct.y, ct.carry)
    ct_y1, ct_carry1 = pass_.where(step.accepted, after, tree.zeros_like(after))
    ct_readings = _ct_readings(pass_, step.accepted, remaining)
    pulled = vjp(_Advanced(ct_y1, ct_carry1, ct_readings, ct_info))
    ct_times = (ct.t0, ct.t1)
    if pass_.wants_times:
        ends = (step.t0, step.t1, step.accepted)
        d_times = tree.add(pulled[3], d_times)
        ct_times = pass_.map(_own_times)(pass_.flat, None, ends, d_times, ct_times)
    return Cotangents(
        parameters=tree.add(ct.parameters, pulled[0]),
        y=pass_.where(step.accepted, pulled[1], ct.y),
        carry=pass_.where(step.accepted, pulled[2], ct.carry),
        t0=ct_times[0],
        t1=ct_times[1],
        found=found,
        remaining=remaining,
    )


def _linearize(pass_: Replay, step: RecordedStep) -> tuple["_Advanced", Any]:
    """The step in all lanes, and its vjp by (parameters, y, carry) and, if wanted, times."""
    stepper, problem = pass_.problem.stepper, pass_.problem
    carry = ()
    if pass_.chained:
        init = pass_.map(lambda ops, _, t, y: stepper.init(problem.field(ops), t, y))
        carry = init(pass_.flat, None, step.t0, step.y)
    advance = pass_.map(lambda ops, *rest: _advance(pass_, ops, *rest))

    def run(parameters: list, y: State, carry: Any, times: tuple) -> _Advanced:
        t0, t1 = times
        return advance(pass_.with_parameters(parameters), step.number, y, carry, t0, t1)

    parameters = [pass_.flat[i] for i in pass_.parameters]
    times = (step.t0, step.t1)
    if pass_.wants_times:
        return jax.vjp(run, parameters, step.y, carry, times)
    return jax.vjp(lambda p, y, k: run(p, y, k, times), parameters, step.y, carry)


class _Advanced(eqx.Module):
    """Everything of one step that a loss can depend on."""

    y1: State
    carry: Any
    readings: dict[str, Any]
    info: Any


def _advance(
    pass_: Replay, operands: Operands, number: Count, y: State, carry: Any, t0: Time, t1: Time
) -> _Advanced:
    """One step of one lane."""
    problem = pass_.problem
    field = problem.field(operands, number)
    if not pass_.chained:
        carry = problem.stepper.init(field, t0, y)
        return _Advanced(problem.stepper.step(field, t0, t1, y, carry).y1, (), {}, None)
    trial = problem.stepper.step(field, t0, t1, y, carry)
    placements = problem.full_placements(operands)
    readings = {}
    if placements:
        # Fenced, or each stage's cotangent would be computed anew for each cost that reads it.
        step = problem.view(operands, t0, t1, y, problem.fence(number)(trial))
        readings = readings_of(placements, step, result_dtype(operands))
    info = None
    if operands.ts is not None:
        info = problem.stepper.dense_info(t1 - t0, y, trial)
    return _Advanced(trial.y1, trial.carry, readings, info)


def _ct_readings(pass_: Replay, accepted: Flag, number: Count) -> dict[str, Any]:
    """What the loss says of each cost of accepted step `number`."""

    def of_lane(
        operands: Operands, _: Any, totals: Any, ct: Any, accepted: Flag, *counts: Count
    ) -> dict:
        placements = pass_.problem.full_placements(operands)
        shares = shares_of(placements, totals, *counts)
        return tree.masked(accepted, {name: ct[name] * share for name, share in shares.items()})

    if not pass_.ct_costs:
        return {}
    counts = (pass_.num_accepted, number)
    return pass_.map(of_lane)(
        pass_.flat, None, pass_.recording.totals, pass_.ct_costs, accepted, *counts
    )


def _own_times(operands: Operands, _: Any, ends: tuple, d_times: tuple, ct: tuple) -> tuple:
    """Times that the user owns: only the first step sees t0, only the last sees t1."""
    t0, t1, accepted = ends
    at_start = accepted & (t0 == operands.t0)
    at_end = accepted & (t1 == operands.t1)
    return ct[0] + jnp.where(at_start, d_times[0], 0), ct[1] + jnp.where(at_end, d_times[1], 0)
