"""Resets on the way: lanes that stand at a reset are changed, and the next attempt ends no later
than the next one.
"""

import dataclasses
from typing import Any

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from diffrax import is_successful
from jax import lax

from ... import tree
from ...shapes import Count, Flag, State, Time
from ..control.cut_short import reaches
from ..control.user_times import as_owned
from ..programs.lanes import Lanes
from . import stepping
from .problem import Operands, Problem


class Awaited(eqx.Module):
    """A lane before its next reset."""

    number: Count  # of resets that were made, and the index of the next
    t: Time  # its time; infinite where there is none
    wanted: Time  # where the next attempt would end if the reset were not there


class ResetRows(eqx.Module):
    """The states before and after each reset, and one row more for lanes that make none."""

    before: State
    after: State


def first_awaited(problem: Problem, operands: Operands, t_next: Time) -> Awaited | None:
    if problem.resets is None:
        return None
    return Awaited(jnp.array(0), operands.resets.ts[0], t_next)


def empty_rows(problem: Problem, operands: Operands) -> ResetRows | None:
    if problem.resets is None:
        return None
    room = problem.resets.room + 1
    fill = lambda y: jnp.full((room, *y.shape), _missing(y), y.dtype)
    rows = jax.tree.map(fill, operands.y0)
    return ResetRows(rows, rows)


def arrive(
    problem: Problem, lanes: Lanes, flat: list, lane: Any, rows: ResetRows | None
) -> tuple[Any, ResetRows | None]:
    """The lanes before their next attempts: past the resets at which they stand."""
    if problem.resets is None:
        return lane, rows
    join = lambda flat: jax.tree.unflatten(problem.treedef, flat)
    stands = lanes.map(lambda flat, _, lane: _stands_at_reset(lane))
    change = lanes.map(lambda flat, _, *given: _changed(problem, join(flat), *given))

    def body(state: tuple) -> tuple:
        lane, rows, here = state
        lane, rows = change(flat, None, lane, rows, here)
        return lane, rows, stands(flat, None, lane)

    # A loop that runs once or not at all: a conditional would copy the rows.
    state = (lane, rows, stands(flat, None, lane))
    lane, rows, _ = lax.while_loop(lambda s: eqxi.unvmap_any(s[2]), body, state)
    cut = lanes.map(lambda flat, _, lane: _cut_short(problem, join(flat), lane))
    return cut(flat, None, lane), rows


def _stands_at_reset(lane: Any) -> Flag:
    return (lane.t >= lane.awaited.t) & is_successful(lane.result)


def _changed(
    problem: Problem, operands: Operands, lane: Any, rows: ResetRows, here: Flag
) -> tuple[Any, ResetRows]:
    """One lane past its reset, if it stands there."""
    now, ts = lane.awaited, operands.resets.ts
    own = (now.number, lane.t, lane.y)
    elsewhere = (jnp.zeros_like(now.number), operands.t0, operands.y0)
    index, t, y = tree.where(here, own, elsewhere)
    after, carry = reset(problem, operands, index, t, y, lane.carry)
    row = jnp.where(here, now.number, problem.resets.room)
    rows = ResetRows(tree.write(rows.before, lane.y, row), tree.write(rows.after, after, row))
    number = now.number + here.astype(now.number.dtype)
    awaited = Awaited(number, ts[number], now.wanted)
    watched = lane.watched
    if problem.watch is not None and watched is not None:
        # A condition does not change its sign by being reset.
        values = problem.watch.values(operands.watch, lane.t, after)
        watched = dataclasses.replace(watched, values=tree.where(here, values, watched.values))
    y, carry = tree.where(here, (after, carry), (lane.y, lane.carry))
    lane = dataclasses.replace(lane, y=y, carry=carry, awaited=awaited, watched=watched)
    return _with_steps_anew(problem, operands, lane, here), rows


def _with_steps_anew(problem: Problem, operands: Operands, lane: Any, here: Flag) -> Any:
    """The lane, its next attempt one at all that is left, if steps begin anew."""
    if not problem.resets.anew:
        return lane
    t_next = jnp.where(here, operands.t1, lane.t_next)
    state = tree.where(here, operands.controller_state0, lane.controller_state)
    clipped = None if lane.clipped is None else lane.clipped | here
    return dataclasses.replace(lane, t_next=t_next, controller_state=state, clipped=clipped)


def reset(
    problem: Problem, operands: Operands, index: Count, t: Time, y: State, carry: Any
) -> tuple[State, Any]:
    """The state after a reset, and the solver's state with which steps begin there."""
    after = problem.resets.update(operands.resets.update, index, t, y)
    return after, begin(problem, operands, t, after, carry)


def begin(problem: Problem, operands: Operands, t: Time, y: State, carry: Any) -> Any:
    """The solver's state at the start of a step that follows no other; `carry`: what it was."""
    if problem.resets.begin is not None:
        return problem.resets.begin(operands.resets.begin, t, y, carry)
    if problem.stepper.keeps_carry:  # and there is none
        return carry
    return problem.stepper.init(stepping.dynamics_of(problem, operands), t, y)


def _cut_short(problem: Problem, operands: Operands, lane: Any) -> Any:
    """The lane, its next attempt ending at its next reset at the latest."""
    now = lane.awaited
    is_cut = reaches(lane.t_next, now.t)
    # Where the derivative is that of the reset's time, `wanted` is a number that nobody follows.
    t_next = jnp.where(is_cut, own_time(problem, operands, now.t), lane.t_next)
    clipped = None if lane.clipped is None else lane.clipped | is_cut
    awaited = Awaited(now.number, now.t, lax.stop_gradient(lane.t_next))
    return dataclasses.replace(lane, t_next=t_next, clipped=clipped, awaited=awaited)


def own_time(problem: Problem, operands: Operands, t: Time) -> Time:
    """The time of a reset, with its derivative where there is one."""
    return as_owned(t, problem.owned_times(operands)) if problem.moving else t


def cut_at(t: Time, t_next: Time, stops: Any) -> Time:
    """`t_next`, or the first of `stops` behind `t` if that comes before: with its derivative."""
    if stops is None:
        return t_next
    last = stops.size - 1
    index = jnp.searchsorted(stops, lax.stop_gradient(t), side="right")
    stop = stops[jnp.minimum(index, last)]
    is_cut = (index <= last) & reaches(t_next, stop)
    return jnp.where(is_cut, stop, t_next)


def as_long_as_before(
    problem: Problem, lane: Any, t: Time, t_next: Time, t_end: Time, accepted: Flag
) -> Time:
    """The end of the next step after one that a reset cut short: that was no fault of the state's,
    so the next one is at least as long as this one was to be. Not where the controller's own rule
    is differentiated, nor of steps that were chosen before.
    """
    if problem.resets is None or not problem.resets.remembers or problem.grid == "pid":
        return t_next
    wanted = lane.awaited.wanted
    long = t + (wanted - lane.t)
    return jnp.where(accepted & (wanted > t_end) & (long > t_next), long, t_next)


def with_resets(
    problem: Problem, operands: Operands, made: tuple, ended: tuple, state: tuple
) -> tuple:
    """The (y, carry) with which steps go on behind one that `ended` (at t, accepted or not), from
    those at its end and the rows of the resets that were `made` (rows, how many).
    """
    (rows, count), (t, accepted), (y, carry) = made, ended, state
    ts = operands.resets.ts[:-1]
    index = jnp.minimum(jnp.sum(ts <= t), count) - 1
    row = jnp.maximum(index, 0)
    here = accepted & (index >= 0) & (ts[row] == t)
    y = tree.where(here, tree.read(rows, row), y)
    if problem.resets.begin is None:  # and the record keeps no state of the solver
        return y, carry
    anew = lambda: tree.where(here, begin(problem, operands, t, y, carry), carry)
    return y, lax.cond(eqxi.unvmap_any(here), anew, lambda: carry)


def _missing(y: Any) -> Any:
    return jnp.inf if jnp.issubdtype(y.dtype, jnp.inexact) else 0
