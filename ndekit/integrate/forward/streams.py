"""What a solve gives besides its end: values at `ts`, at steps, every step's interpolation."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ...shapes import Count, Flag, State, Time
from ..programs.lanes import Lanes
from . import stepping
from .attempt import Lane, Proposal
from .problem import Operands, Plan, Problem
from .saving import Saved, nothing_saved, save


class Kept(eqx.Module):
    """Rows written one by one, each with its time; infinity after `count` of them."""

    ts: Any
    rows: Any
    count: Count

    def push(self, t: Time, row: Any, wanted: Flag) -> "Kept":
        put = lambda buffer, new: _set_row(buffer, self.count, new, wanted)
        ts, rows = jax.tree.map(put, (self.ts, self.rows), (t, row))
        return Kept(ts, rows, self.count + jnp.where(wanted, 1, 0))


class Streams(eqx.Module):
    """One entry for each `SubSaveAt` in the two lists, `None` where it does not ask."""

    at_ts: list[Saved | None]
    at_steps: list[Kept | None]
    dense: Kept | None


def empty_streams(problem: Problem, operands: Operands) -> Streams:
    at_ts, at_steps, dense = [], [], None
    for i, plan in enumerate(problem.plans):
        at_ts.append(nothing_saved(problem, operands, i) if plan.at_ts else None)
        row = None if plan.every == 0 else _row_of(plan, operands)
        at_steps.append(None if row is None else _room_for(row, plan.room, operands.t0))
    if problem.dense:
        assert problem.max_steps is not None
        dense = _room_for(interpolant_struct(problem, operands), problem.max_steps, operands.t0)
    return Streams(at_ts, at_steps, dense)


def flow(
    problem: Problem, lanes: Lanes, flat: list, streams: Streams, lane: Lane, proposal: Proposal
) -> Streams:
    """The streams after one attempt that led to `lane`."""
    at_ts = [
        None if saved is None else save(problem, lanes, flat, saved, proposal, i)
        for i, saved in enumerate(streams.at_ts)
    ]

    def rows(flat: list, _: Any, at_steps: list, dense: Any, lane: Lane, p: Proposal) -> tuple:
        operands: Operands = jax.tree.unflatten(problem.treedef, flat)
        kept = [
            None if kept is None else _keep_step(plan, constants, kept, lane, p)
            for plan, constants, kept in zip(problem.plans, operands.fns, at_steps, strict=True)
        ]
        if dense is not None:
            info = problem.stepper.interpolant(p.t_end - p.t, p.y, p.trial)
            dense = dense.push(lane.t, info, p.accepted)
        return kept, dense

    at_steps, dense = streams.at_steps, streams.dense
    if dense is not None or any(kept is not None for kept in at_steps):
        at_steps, dense = lanes.map(rows)(flat, None, at_steps, dense, lane, proposal)
    return Streams(at_ts, at_steps, dense)


def value_of(plan: Plan, constants: list[Any], t: Time, y: State) -> Any:
    """What a `SubSaveAt` keeps of a state."""
    return y if plan.fn is None else plan.fn(constants, t, y)


def interpolant_struct(problem: Problem, operands: Operands) -> Any:
    """Shapes and dtypes of what the interpolation of one step takes."""

    def example() -> Any:
        trial, _ = stepping.no_step(problem, operands)
        return problem.stepper.interpolant(operands.t0 - operands.t0, operands.y0, trial)

    return jax.eval_shape(example)


def _keep_step(plan: Plan, constants: list, kept: Kept, lane: Lane, proposal: Proposal) -> Kept:
    wanted = proposal.accepted & (lane.num_accepted % plan.every == 0)
    return kept.push(lane.t, value_of(plan, constants, lane.t, lane.y), wanted)


def _row_of(plan: Plan, operands: Operands) -> Any:
    return operands.y0 if plan.fn is None else plan.fn.shapes


def _room_for(row: Any, room: int, t0: Time) -> Kept:
    fill = lambda x: jnp.full((room, *x.shape), jnp.inf, x.dtype)
    return Kept(fill(t0), jax.tree.map(fill, row), jnp.asarray(0))


def _set_row(buffer: Any, index: Count, new: Any, wanted: Flag) -> Any:
    if buffer.shape[0] == 0:
        return buffer
    old = lax.dynamic_index_in_dim(buffer, index, 0, keepdims=False)
    return lax.dynamic_update_index_in_dim(buffer, jnp.where(wanted, new, old), index, 0)
