"""The forward loop: attempts until every lane has arrived."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ... import tree
from ...shapes import Count, Flag, State
from ..programs.counted_loops import counted, is_on_host, turns_together, until
from ..programs.lanes import Lanes
from . import stepping
from .attempt import Lane, Proposal, attempt, is_active, start
from .checkpoints import default_checkpoints
from .outcome import Outcome, Recording, finish
from .planned import on_grid, planned
from .problem import Operands, Problem
from .record import Details, Record, empty_record
from .resets import ResetRows, arrive, empty_rows
from .saving import any_lane
from .streams import Streams, empty_streams, flow

# Bytes of all states of a solve whose length is known, on an accelerator: what is run again there
# asks the host after every step.
_ALL_OF_COUNTED = 2**28


class _Loop(eqx.Module):
    lane: Lane
    streams: Streams
    record: Record | None
    number: Count
    go: Flag
    resets: ResetRows | None


def solve_forward(problem: Problem, lanes: Lanes, flat: list) -> Outcome:
    """Solve in all lanes at once."""
    return _finished(problem, lanes, flat, _looped(problem, lanes, flat, None))


def record_forward(
    problem: Problem, lanes: Lanes, alone: bool, flat: list, plan: Record | None = None
) -> tuple[Outcome, Recording]:
    """Solve, and keep what the reverse pass needs. `alone`: the stages of each step, if that is
    how this problem is replayed where there are no lanes. `plan`: the times of a solve that has
    been made before; they are taken again.
    """
    record = _empty_record(problem, lanes, flat)
    way = _Way(alone and problem.steps_at_once, plan)
    loop = _looped(problem, lanes, flat, record, way)
    assert loop.record is not None  # as one was given
    end = None if problem.undo is None else (*recorded_state(problem, loop.lane), ())
    still = _memo_of_no_step(problem, lanes, flat, loop) if problem.kept else None
    recording = Recording(loop.record, loop.lane.totals, end, still)
    return _finished(problem, lanes, flat, loop), recording


class _Way(NamedTuple):
    """What is done in a turn besides an attempt."""

    notes_stages: bool = False
    plan: Record | None = None
    counts: bool = False  # whether nobody asks if there is another


def _looped(
    problem: Problem, lanes: Lanes, flat: list, record: Record | None, way: _Way = _Way()
) -> _Loop:
    lane, plan = _in_all(problem, lanes, start)(flat, None), way.plan
    lane, rows = arrive(problem, lanes, flat, lane, _in_all(problem, lanes, empty_rows)(flat, None))
    streams = _in_all(problem, lanes, empty_streams)(flat, None)
    go = _anyone(problem, lanes, flat, lane) if plan is None else plan.num_steps > 0
    loop = _Loop(lane, streams, record, jnp.array(0), go, rows)
    has_pages = record is not None and record.page > 0
    way = way._replace(counts=problem.num_turns is not None and plan is None and not has_pages)
    turn = lambda loop: _turn(problem, lanes, flat, loop, way)
    if has_pages:
        return lax.while_loop(lambda loop: loop.go, lambda loop: _turn_page(turn, loop), loop)
    if way.counts:
        most = problem.most_turns
        assert most is not None  # as it is known
        if record is not None:
            loop = dataclasses.replace(loop, record=dataclasses.replace(record, counts=True))
        return counted(most, turn, loop)
    together = 1 if plan is not None else turns_together(problem.max_steps)
    return until(lambda loop: loop.go, turn, loop, together)


def _turn_page(turn: Callable[[_Loop], _Loop], loop: _Loop) -> _Loop:
    """As many turns as a page of the record holds."""
    record: Any = loop.record
    goes_on = lambda loop: loop.go & (loop.record.num_steps < record.page)
    loop = lax.while_loop(goes_on, turn, dataclasses.replace(loop, record=record.new_page()))
    return dataclasses.replace(loop, record=record.with_page(loop.record))


def _finished(problem: Problem, lanes: Lanes, flat: list, loop: _Loop) -> Outcome:
    outcome = lanes.map(lambda flat, _, *rest: finish(problem, _join(problem, flat), *rest))
    return outcome(flat, None, loop.lane, loop.streams, loop.resets)


def _empty_record(problem: Problem, lanes: Lanes, flat: list) -> Record:
    most = problem.most_turns
    assert most is not None  # refused before
    lane = _in_all(problem, lanes, start)(flat, None)
    memo = _in_all(problem, lanes, lambda problem, operands: stepping.memo_like(problem, operands))
    left, drawn = memo(flat, None)
    state = (*recorded_state(problem, lane), (left, drawn))
    in_bytes = tree.num_bytes(state), tree.num_bytes(drawn)
    checkpoints = _num_checkpoints(problem, lanes, *in_bytes)
    details, stages = _details_like(problem, lane), None
    if problem.steps_at_once:
        stages = jax.tree.map(lambda y: jnp.stack([y] * problem.num_stages), lane.y)
    given = lane.t, state, details, stages, most, checkpoints
    return empty_record(*given, operands=flat, by_lane=_by_lane(problem, lanes))


def _by_lane(problem: Problem, lanes: Lanes) -> bool:
    """Whether each lane shall be replayed by its own steps: those that the others took while it
    tried in vain are nothing to it. Not where rejected attempts are replayed too, nor where nothing
    is ever rejected; nor where a step takes less than to look it up.
    """
    may_reject = problem.norm is not None
    return bool(lanes.levels) and may_reject and not problem.moving and not lanes.last


def _num_checkpoints(problem: Problem, lanes: Lanes, row_bytes: int, noise_bytes: int) -> int:
    """The user's, or the default; no fewer where a solve is known to be short than elsewhere."""
    max_steps, most = problem.max_steps, problem.most_turns
    assert max_steps is not None and most is not None
    if problem.undo is not None:
        return 0
    if problem.checkpoints is not None:
        return min(problem.checkpoints, most)
    if problem.num_turns is not None and not is_on_host() and most * row_bytes <= _ALL_OF_COUNTED:
        return most
    sure = 0 if problem.between is None else problem.between.sure_steps
    number = lambda steps: default_checkpoints(
        steps, row_bytes, noise_bytes, sure, in_lanes=bool(lanes.levels)
    )
    return max(number(most), min(number(max_steps), most))


def _memo_of_no_step(problem: Problem, lanes: Lanes, flat: list, loop: _Loop) -> Any:
    """Evaluated only if a lane has rows for attempts that it gave up."""
    record: Any = loop.record
    of_lane = lambda problem, operands: stepping.no_step(problem, operands)[1]
    memo = lambda: _in_all(problem, lanes, of_lane)(flat, None)
    gave_up = any_lane(record.num_steps > loop.lane.num_accepted)
    return lax.cond(gave_up, memo, lambda: tree.zeros_like(jax.eval_shape(memo)))


def _in_all(problem: Problem, lanes: Lanes, fn: Any) -> Any:
    return lanes.map(lambda flat, _: fn(problem, _join(problem, flat)))


def recorded_state(problem: Problem, lane: Lane) -> tuple[State, Any]:
    """What a checkpoint holds, besides the memo of the step that follows."""
    return lane.y, lane.carry if problem.stepper.keeps_carry else ()


def _turn(problem: Problem, lanes: Lanes, flat: list, loop: _Loop, way: _Way) -> _Loop:
    one_attempt = lambda flat, *given: attempt(problem, _join(problem, flat), *given)
    before, now = loop.lane, None
    if way.plan is not None:
        now = planned(way.plan, loop.number)
        before = lanes.map(lambda _, __, *given: on_grid(problem, *given))(flat, None, before, now)
    lane, proposal = lanes.map(one_attempt)(flat, loop.number, before, now)
    streams = flow(problem, lanes, flat, loop.streams, lane, proposal)
    lane, rows = arrive(problem, lanes, flat, lane, loop.resets)
    record = loop.record
    if record is not None:
        # Of a solve whose length is known the record has as many rows.
        wanted = loop.go if problem.moving else any_lane(proposal.accepted)
        if way.counts:
            wanted = jnp.array(True)
        details = lanes.map(lambda _, __, *given: _details(problem, *given))
        noted = details(flat, None, before, proposal, lane)
        state = stages = None
        if way.notes_stages:
            stages = proposal.trial.stages[: problem.num_stages]
            stages = jax.tree.map(lambda *rows: jnp.stack(rows), *stages)
        else:
            state = (*recorded_state(problem, before), proposal.memo)
        record = record.append(state, stages, lane.t, noted, proposal.accepted, wanted)
    number = loop.number + 1
    if way.counts:
        return _Loop(lane, streams, record, number, loop.go, rows)
    if way.plan is not None:
        return _Loop(lane, streams, record, number, number < way.plan.num_steps, rows)
    go = _anyone(problem, lanes, flat, lane)
    if problem.max_steps is not None:
        go = go & (number < problem.max_steps)
    return _Loop(lane, streams, record, number, go, rows)


def _details(problem: Problem, lane: Lane, proposal: Proposal, after: Lane) -> Details | None:
    """What is noted of an attempt besides its times."""
    if problem.moving:
        return _details_of_grid(problem, lane, proposal, after)
    if problem.leaps:
        t_end = jnp.where(proposal.accepted, proposal.t_end, proposal.t)
        return Details(t_end, lane.made_jump)
    return None


def _details_of_grid(problem: Problem, lane: Lane, proposal: Proposal, after: Lane) -> Details:
    trial, ends = proposal.trial, (proposal.t_end, lane.made_jump)
    if problem.grid == "owned":
        next_ends = (after.t, after.t_next)
        return Details(*ends, proposal.accepted, proposal.accepted, (), next_ends, lane.clipped)
    finite = tree.all_finite((trial.y1, trial.error, trial.rates, trial.carry))
    return Details(*ends, proposal.accepted, finite, lane.controller_state)


def _details_like(problem: Problem, lane: Lane) -> Details | None:
    """Arrays of the shapes and dtypes of `_details`."""
    flag = jnp.zeros_like(lane.t, jnp.bool_)
    if problem.grid == "owned":
        return Details(lane.t, lane.made_jump, flag, flag, (), (lane.t, lane.t), flag)
    if problem.moving:
        return Details(lane.t, lane.made_jump, flag, flag, lane.controller_state)
    return Details(lane.t, lane.made_jump) if problem.leaps else None


def _anyone(problem: Problem, lanes: Lanes, flat: list, lane: Lane) -> Flag:
    active = lanes.map(lambda flat, _, lane: is_active(lane, _join(problem, flat)))
    return any_lane(active(flat, None, lane))


def _join(problem: Problem, flat: list) -> Operands:
    return jax.tree.unflatten(problem.treedef, flat)
