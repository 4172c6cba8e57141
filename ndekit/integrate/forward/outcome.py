"""What a solve gives, and what its reverse pass needs besides."""

from typing import Any

import equinox as eqx
import jax
from diffrax import RESULTS

from ...shapes import Count, State, Time
from ..costs.contracts import read_totals
from .attempt import Lane, is_active, start
from .events import Watched
from .failures import Failure
from .problem import Operands, Problem
from .record import Record
from .resets import ResetRows, empty_rows
from .streams import Streams, empty_streams


class ResetsMade(eqx.Module):
    """The states before and after each reset, and how many were made."""

    rows: ResetRows
    count: Count


class Outcome(eqx.Module):
    """What a solve gives, before it is dressed as a Solution. One of each in every lane."""

    t: Time
    y: State
    streams: Streams
    costs: dict[str, Any]
    result: RESULTS
    num_steps: Count
    num_accepted: Count
    carry: Any  # the solver's last state, if asked for
    controller_state: Any
    made_jump: Any
    watched: Watched | None
    failure: Failure
    resets: ResetsMade | None = None


class Recording(eqx.Module):
    """What the reverse pass needs besides the operands and the outcome."""

    record: Record
    totals: dict[str, Any]
    end: Any  # the last state, where steps are undone from it
    # The memo of a step of no length, where stages are kept. It stands for that of an attempt that
    # was given up beside lanes that took a step, be they those of a `jax.vmap` around the gradient.
    still: Any = None


class Solved(eqx.Module):
    """A solve that has been made, for the reverse pass."""

    flat: list[Any]  # the operands
    outcome: Outcome
    recording: Recording


def finish(
    problem: Problem, operands: Operands, lane: Lane, streams: Streams, rows: ResetRows | None
) -> Outcome:
    unfinished = is_active(lane, operands)
    cut = lambda saved, ts: eqx.tree_at(
        lambda s: s.ys, saved, jax.tree.map(lambda y: y[: ts.shape[0]], saved.ys)
    )
    at_ts = [
        None if saved is None else cut(saved, ts)
        for saved, ts in zip(streams.at_ts, operands.ts, strict=True)
    ]
    return Outcome(
        t=lane.t,
        y=lane.y,
        streams=Streams(at_ts, streams.at_steps, streams.dense),
        costs=read_totals(problem.full_placements(operands), lane.totals, lane.num_accepted),
        result=RESULTS.where(unfinished, RESULTS.max_steps_reached, lane.result),
        num_steps=lane.num_steps,
        num_accepted=lane.num_accepted,
        carry=lane.carry if problem.returns_state else None,
        controller_state=lane.controller_state if problem.returns_state else None,
        made_jump=lane.made_jump,
        watched=lane.watched,
        failure=Failure(lane.t, lane.t_next - lane.t, lane.unsound),
        resets=_resets_made(lane, rows),
    )


def _resets_made(lane: Lane, rows: ResetRows | None) -> ResetsMade | None:
    if rows is None or lane.awaited is None:
        return None
    return ResetsMade(jax.tree.map(lambda x: x[:-1], rows), lane.awaited.number)


def outcome_struct(problem: Problem, operands: Operands) -> Outcome:
    """Shapes and dtypes of the outcome of one lane."""

    def example(operands: Operands) -> Outcome:
        lane, streams = start(problem, operands), empty_streams(problem, operands)
        return finish(problem, operands, lane, streams, empty_rows(problem, operands))

    return jax.eval_shape(example, operands)
