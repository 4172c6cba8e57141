"""The forward loop: attempts until every lane has arrived."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from diffrax import RESULTS
from jax import lax

from .. import tree
from ..shapes import Count, Flag, State, Time
from .attempt import Lane, attempt, is_active, start
from .costs import read_totals
from .lanes import Lanes
from .problem import Operands, Problem, result_dtype
from .record import Record, append, empty_record
from .saving import Saved, any_lane, nothing_saved, save


class Outcome(eqx.Module):
    """What a solve gives, before it is dressed as a Solution. One of each in every lane."""

    t: Time
    y: State
    saved: Saved | None
    costs: dict[str, Any]
    result: RESULTS
    num_steps: Count
    num_accepted: Count


class Recording(eqx.Module):
    """What the reverse pass needs besides the operands and the outcome."""

    record: Record
    totals: dict[str, Any]


class _Loop(eqx.Module):
    lane: Lane
    saved: Saved | None
    record: Record | None
    number: Count
    go: Flag


def solve_forward(
    problem: Problem, lanes: Lanes, flat: list, recording: bool
) -> tuple[Outcome, Recording | None]:
    """Solve in all lanes at once; with `recording`, keep what the reverse pass needs."""
    on_operands = lambda fn: lanes.map(lambda flat, _: fn(problem, _join(problem, flat)))
    lane = on_operands(start)(flat, None)
    saved = on_operands(nothing_saved)(flat, None)
    record = None
    if recording:
        assert problem.max_steps is not None
        record = empty_record(lane.t, lane.y, problem.max_steps, problem.checkpoints)
    loop = _Loop(lane, saved, record, jnp.array(0), _anyone(problem, lanes, flat, lane))
    loop = lax.while_loop(
        lambda loop: loop.go, lambda loop: _turn(problem, lanes, flat, loop), loop
    )
    outcome = lanes.map(lambda flat, _, *rest: _finish(problem, _join(problem, flat), *rest))
    kept = None if loop.record is None else Recording(loop.record, loop.lane.totals)
    return outcome(flat, None, loop.lane, loop.saved), kept


def _turn(problem: Problem, lanes: Lanes, flat: list, loop: _Loop) -> _Loop:
    one_attempt = lambda flat, number, lane: attempt(problem, _join(problem, flat), number, lane)
    lane, proposal = lanes.map(one_attempt)(flat, loop.number, loop.lane)
    saved = loop.saved
    if saved is not None:
        saved = save(problem, lanes, flat, saved, proposal)
    record = loop.record
    if record is not None:
        accepted = any_lane(proposal.accepted)
        record = append(record, loop.lane.y, lane.t, accepted)
    number = loop.number + 1
    go = _anyone(problem, lanes, flat, lane)
    if problem.max_steps is not None:
        go = go & (number < problem.max_steps)
    return _Loop(lane, saved, record, number, go)


def _anyone(problem: Problem, lanes: Lanes, flat: list, lane: Lane) -> Flag:
    active = lanes.map(lambda flat, _, lane: is_active(lane, _join(problem, flat)))
    return any_lane(active(flat, None, lane))


def _finish(problem: Problem, operands: Operands, lane: Lane, saved: Saved | None) -> Outcome:
    unfinished = is_active(lane, operands)
    placements = problem.full_placements(operands)
    if saved is not None:
        saved = Saved(jax.tree.map(lambda ys: ys[: operands.ts.shape[0]], saved.ys), saved.count)
    return Outcome(
        t=lane.t,
        y=lane.y,
        saved=saved,
        costs=read_totals(placements, lane.totals, lane.num_accepted),
        result=RESULTS.where(unfinished, RESULTS.max_steps_reached, lane.result),
        num_steps=lane.num_steps,
        num_accepted=lane.num_accepted,
    )


def outcome_struct(problem: Problem, operands: Operands) -> Outcome:
    """Shapes and dtypes of the outcome of one lane."""

    def example() -> Outcome:
        zero, saved = jnp.array(0), None
        if operands.ts is not None:
            rows = operands.ts.shape
            row = lambda y: jnp.zeros((*rows, *y.shape), y.dtype)
            saved = Saved(jax.tree.map(row, operands.y0), zero)
        cost = jnp.zeros((), result_dtype(operands))
        return Outcome(
            t=jnp.zeros_like(operands.t0),
            y=tree.zeros_like(operands.y0),
            saved=saved,
            costs={name: cost for name in problem.placements},
            result=jax.tree.map(jnp.asarray, RESULTS.successful),
            num_steps=zero,
            num_accepted=zero,
        )

    return jax.eval_shape(example)


def _join(problem: Problem, flat: list) -> Operands:
    return jax.tree.unflatten(problem.treedef, flat)
