"""The vjp of one recorded step, in all lanes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax

from ... import tree
from ...shapes import Count, Flag, State, Time
from ..control.user_times import OwnedTimes
from ..costs.contracts import Place, pull_readings, readings_of
from ..forward import stepping
from ..forward.grid import Grid, next_grid, remembered
from ..forward.outcome import Recording
from ..forward.problem import Operands, Problem
from ..forward.record import RecordedStep
from ..forward.saving import inside_of
from ..forward.streams import value_of
from ..programs.equations import primitive_names
from ..programs.lanes import Lanes
from ..programs.outer_products import merge_outer_products
from .idle_lanes import is_looked_into, memo_of, place_of
from .saving_vjp import Found, Inside, SavedValues
from .streams_vjp import ct_of_interpolant, ct_of_step_end, ct_of_steps


@dataclass(frozen=True, eq=False)
class Replay:
    """What stays fixed during one reverse pass."""

    problem: Problem
    lanes: Lanes
    # Positions in `flat` of perturbed constants and arrays inside costs.
    parameters: tuple[int, ...]
    flat: list[Any]
    recording: Recording
    num_accepted: Count
    ct_outcome: Any
    saved: list[SavedValues | None]
    resets: Any  # those that were made
    side_by_side: bool = False  # whether steps are lanes

    @property
    def chained(self) -> bool:
        return self.problem.chained

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
    owned: OwnedTimes
    found: list[Found | None]
    remaining: Count  # accepted steps before this one, in each lane
    grid: Grid | None  # where the grid is differentiated
    resets_left: Any = None  # resets before this step, in each lane


def step_vjp(pass_: Replay, ct: Cotangents, step: RecordedStep, number: Count) -> Cotangents:
    """The loss's derivative before a step, from that after it."""
    out, vjp = linearize(pass_, step, number)
    remaining = ct.remaining - step.accepted.astype(ct.remaining.dtype)
    parameters, found, ct_info, d_times = pull_inside(pass_, ct, step, out.info, remaining)
    after = (ct.y, ct.carry)
    ct_y1, ct_carry1 = pass_.where(step.accepted, after, tree.zeros_like(after))
    ct_readings = ct_of_readings(pass_, step, remaining)
    kept = [None if kept is None else kept.rows for kept in pass_.ct_outcome.streams.at_steps]
    at_steps = pass_.map(lambda ops, _, *rest: ct_of_steps(pass_.problem, *rest))
    ct_steps = at_steps(pass_.flat, None, kept, step.accepted, remaining)
    ct_grid, tried = ct.grid, step.t1 > step.t0
    if ct_grid is not None:
        ct_grid = pass_.where(tried, ct_grid, tree.zeros_like(ct_grid))
    pulled = vjp(Advanced(ct_y1, ct_carry1, ct_readings, ct_info, ct_steps, ct_grid))
    ct_owned, before = ct.owned, (pulled.y, pulled.carry)
    if pulled.times is not None:
        d_times = tree.add(pulled.times, _with_step_times(pass_, d_times, step, remaining))
    if ct.grid is not None:
        # A rejected attempt hands the state on as it is, and depends on it through its error. A
        # lane that has finished hands on everything.
        handed_on = pass_.where(step.accepted, tree.zeros_like(after), after)
        before = pass_.where(tried, tree.add(handed_on, before), after)
        ct_grid = pass_.where(tried, Grid(d_times[0], d_times[1], pulled.grid[0]), ct.grid)
        ct_owned = pass_.where(tried, tree.add(ct_owned, pulled.grid[1]), ct_owned)
    else:
        before = pass_.where(step.accepted, before, after)
    parameters = tree.add(parameters, pulled.parameters)
    y, carry = before
    left = ct.resets_left
    return Cotangents(parameters, y, carry, ct_owned, found, remaining, ct_grid, left)


def _with_step_times(
    pass_: Replay, d_times: tuple[Time, Time], step: RecordedStep, number: Count
) -> tuple[Time, Time]:
    """With what the loss says of the step's end as one of the times that a solve gives out."""
    streams = pass_.ct_outcome.streams
    kept = [None if kept is None else kept.ts for kept in streams.at_steps]
    dense = None if streams.dense is None else streams.dense.ts
    of_lane = pass_.map(lambda ops, _, *rest: ct_of_step_end(pass_.problem, *rest))
    d_start, d_end = d_times
    return d_start, d_end + of_lane(pass_.flat, None, step.t1, kept, dense, step.accepted, number)


def pull_inside(
    pass_: Replay, ct: Cotangents, step: RecordedStep, info: Any, remaining: Count
) -> tuple[list[Any], list[Found | None], Any, tuple[Time, Time]]:
    """What the loss says of the inside of a step: of values at `ts`, dense output, an event."""
    d_times = tree.zeros_like((step.t0, step.t1))
    parameters, found = list(ct.parameters), list(ct.found)
    if not pass_.problem.interpolates:
        return parameters, found, None, d_times
    dense, watched = pass_.ct_outcome.streams.dense, pass_.ct_outcome.watched
    last = None if watched is None else (watched.t0, watched.t1, watched.info)
    whole = (None if dense is None else dense.rows, last)
    about = pass_.map(lambda ops, _, *rest: ct_of_interpolant(*rest))
    ends, counts = (step.t0, step.t1), (pass_.num_accepted, remaining)
    ct_info, d_times = about(pass_.flat, None, ends, info, step.accepted, whole, counts)
    for i, values in enumerate(pass_.saved):
        before = ct.found[i]
        if values is None or before is None:
            continue
        found[i], d = values.pull(before, Inside(step.t0, step.t1, info, step.accepted))
        ct_info, d_times = tree.add(ct_info, d.info), tree.add(d_times, (d.t0, d.t1))
        for position, value in zip(values.parameters, d.constants, strict=True):
            at = pass_.parameters.index(position)
            parameters[at] = parameters[at] + value
    return parameters, found, ct_info, d_times


class _Given(eqx.Module):
    """Everything that one step depends on."""

    parameters: list[Any]
    y: State
    carry: Any
    times: Any  # `None` where nobody asks for their derivative
    grid: Any  # (what the controller remembers, the user's times), where it is differentiated


class Advanced(eqx.Module):
    """Everything of one step that a loss can depend on."""

    y1: State
    carry: Any
    readings: dict[str, Any]
    info: Any
    at_steps: list[Any]
    grid: Grid | None


def linearize(
    pass_: Replay, step: RecordedStep, number: Count
) -> tuple[Advanced, Callable[[Advanced], _Given]]:
    """The step in all lanes, and its vjp."""
    problem, flat = pass_.problem, pass_.flat
    stepper, carry, memo = problem.stepper, step.carry, _memo(pass_, step)
    if problem.kept is not None:
        carry = carry if stepper.keeps_carry else memo[0][0]
    elif pass_.chained and not stepper.keeps_carry:
        carry = stepper.stand_in(step.y)
    smooth, fixed = eqx.partition(carry, eqx.is_inexact_array)
    times, grid = (step.t0, step.t1), None
    if problem.moving and step.details is not None:
        owned = pass_.map(lambda ops, _: problem.owned_times(ops))(flat, None)
        grid = (remembered(problem, step.details.memory), owned)
    advance = pass_.map(lambda ops, *rest: _advance(pass_, ops, *rest))

    def run(given: _Given) -> Advanced:
        start = (given.y, eqx.combine(given.carry, fixed))
        ends = times if given.times is None else given.times
        filled = pass_.with_parameters(given.parameters)
        given_also = (memo, step.accepted, step.details)
        return advance(filled, number, start, ends, given.grid, *given_also)

    parameters = [flat[i] for i in pass_.parameters]
    given = _Given(parameters, step.y, smooth, times if problem.moving else None, grid)
    out, vjp = jax.vjp(run, given)
    if "dot_general" not in primitive_names(problem.dynamics.jaxpr.jaxpr):
        return out, lambda ct: vjp(ct)[0]
    return out, lambda ct: merge_outer_products(vjp, ct)[0]


def _memo(pass_: Replay, step: RecordedStep) -> Any:
    # Side by side there are steps that were made, and copies of one.
    return step.memo if pass_.side_by_side else memo_of(pass_.where, pass_.recording, step)


def _advance(
    pass_: Replay,
    operands: Operands,
    number: Count,
    start: tuple[State, Any],
    ends: tuple[Time, Time],
    grid: Any,
    memo: Any,
    accepted: Flag,
    details: Any,
) -> Advanced:
    """One step of one lane."""
    problem, stepper = pass_.problem, pass_.problem.stepper
    made_jump = getattr(details, "made_jump", None)
    (t0, t1), (y, carry) = place = ends, start
    if not pass_.chained:
        carry, made_jump = (), None
    if pass_.side_by_side:
        trial = stepping.at_stages(problem, operands, number, (t0, t1), y, memo)
    else:
        keeps = stepper.keeps_carry and pass_.chained
        (t0, t1), (y, carry) = place_of(operands, keeps, place, is_looked_into(accepted, details))
        trial = stepping.again(problem, operands, number, (t0, t1), (y, carry), memo, made_jump)
    readings, placements = {}, problem.full_placements(operands)
    if placements:
        # Fenced, or each stage's cotangent would be computed anew for each cost that reads it.
        seen = stepping.view(problem, operands, t0, t1, y, problem.fence(number)(trial))
        readings = readings_of(placements, seen)
    info = inside_of(problem, (t0, t1), y, trial) if problem.interpolates else None
    at_steps = [
        None if plan.every == 0 else value_of(plan, constants, t1, trial.y1)
        for plan, constants in zip(problem.plans, operands.fns, strict=True)
    ]
    after = None
    if grid is not None:
        memory, owned = grid
        after = next_grid(problem, operands, Grid(*ends, memory), details, owned, y, trial)
    carry = eqx.filter(trial.carry, eqx.is_inexact_array) if pass_.chained else ()
    return Advanced(trial.y1, carry, readings, info, at_steps, after)


def ct_of_readings(pass_: Replay, step: RecordedStep, number: Count) -> dict[str, Any]:
    """What the loss says of each cost of accepted step `number`."""

    def of_lane(
        operands: Operands, _: Any, totals: Any, ct: Any, num_accepted: Count, place: Place
    ) -> dict:
        placements = pass_.problem.full_placements(operands)
        pulled = pull_readings(placements, totals, num_accepted, place, ct)
        return tree.masked(place.accepted, pulled)

    if not pass_.ct_outcome.costs:
        return {}
    place = Place(number, step.t0, step.t1, step.accepted)
    totals, ct = pass_.recording.totals, pass_.ct_outcome.costs
    return pass_.map(of_lane)(pass_.flat, None, totals, ct, pass_.num_accepted, place)
