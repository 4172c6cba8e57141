"""One attempt at a step, for one lane: propose, judge, commit."""

import dataclasses
from typing import Any

import equinox as eqx
import equinox.internal as eqxi
import jax.numpy as jnp
from diffrax import RESULTS, is_successful

from ... import tree
from ...shapes import Count, Flag, State, Time
from ..control.norms import rms_norm
from ..control.scaled_error import scaled_error
from ..control.user_times import as_owned, is_clipped, next_ends
from ..costs.contracts import Place, add_readings, readings_of
from ..steppers.stepper import Trial
from ..times import smallest_step_after, within
from . import stepping
from .events import Watched, look
from .failures import unsound_leaves
from .grid import Grid, next_grid, with_derivative_of
from .planned import Planned
from .problem import Operands, Problem
from .record import Details
from .resets import Awaited, as_long_as_before, first_awaited

_NONFINITE: Any = RESULTS.nonfinite


class Lane(eqx.Module):
    """The state of one solve between two attempts."""

    t: Time
    t_next: Time  # along a walk: of the attempt that was
    y: State
    carry: Any
    controller_state: Any
    result: RESULTS
    num_steps: Count
    num_accepted: Count
    totals: dict[str, Any]
    made_jump: Any = None
    watched: Watched | None = None
    unsound: Any = None  # which leaves of the last attempt were not finite, of several
    clipped: Any = None  # whether the end of the next attempt follows from a time of the user
    awaited: Awaited | None = None  # the next reset


class Proposal(eqx.Module):
    """An attempted step from `t` to `t_end` and the verdict on it."""

    t: Time
    t_end: Time
    y: State
    trial: Trial
    accepted: Flag
    memo: Any  # what the record keeps besides the state
    made_jump: Any = None


def start(problem: Problem, operands: Operands) -> Lane:
    t_next = _first_end(problem, operands)
    return Lane(
        t=operands.t0,
        t_next=t_next,
        y=operands.y0,
        carry=operands.carry0,
        controller_state=operands.controller_state0,
        result=_first_result(operands),
        # Weakly typed, as diffrax's: they take part in arithmetic under strict promotion.
        num_steps=jnp.asarray(0),
        num_accepted=jnp.asarray(0),
        totals=operands.totals0,
        made_jump=operands.made_jump0,
        watched=operands.watched0,
        unsound=unsound_leaves(operands.y0, None),
        clipped=_clipped(problem, operands, operands.t_next0, jnp.array(False)),
        awaited=first_awaited(problem, operands, t_next),
    )


def _first_result(operands: Operands) -> RESULTS:
    """A solve from, to or towards no time at all has failed before it begins."""
    times = (operands.t0, operands.t1, operands.t_next0)
    nowhere = jnp.isnan(times[0]) | jnp.isnan(times[1]) | jnp.isnan(times[2])
    if operands.resets is not None:
        nowhere = nowhere | jnp.isnan(operands.resets.ts[0])
    return RESULTS.where(nowhere, _NONFINITE, operands.result0)


def _first_end(problem: Problem, operands: Operands) -> Time:
    if problem.own_grid or problem.grid == "pid" or problem.walk is not None:
        return operands.t_next0
    return as_owned(operands.t_next0, problem.owned_times(operands))


def _clipped(problem: Problem, operands: Operands, t_end: Time, follows: Flag) -> Any:
    """Whether an attempt's end is the user's or `follows` from one that is; `None` where nobody
    asks.
    """
    if problem.grid != "owned":
        return None
    return follows | is_clipped(t_end, problem.owned_times(operands))


def is_active(lane: Lane, operands: Operands) -> Flag:
    return (lane.t < operands.t1) & is_successful(lane.result)


def attempt(
    problem: Problem, operands: Operands, number: Count, lane: Lane, plan: Planned | None = None
) -> tuple[Lane, Proposal]:
    """Try one step; a lane that has finished or failed tries an empty one and stays as it is. What
    comes of a step that is planned is known.
    """
    drawn = None
    if problem.walk is not None and plan is None:
        lane, drawn = walked(problem, operands, lane)
    active = is_active(lane, operands) if plan is None else plan.t_end > plan.t
    # An empty step keeps a finished lane finite: it evaluates the field where the lane already was.
    t_end = jnp.where(active, lane.t_next, lane.t)
    ends, state = (lane.t, t_end), (lane.y, lane.carry)
    drawn = stepping.draw(problem, operands, ends, number) if drawn is None else drawn
    trial, left = stepping.step(problem, operands, number, ends, state, lane.made_jump, drawn)
    memo = (left, drawn)
    verdict = _verdict(problem, operands, lane, t_end, trial, plan)
    accepted = active & verdict.accepted
    proposal = Proposal(lane.t, t_end, lane.y, trial, accepted, memo, lane.made_jump)
    lane = commit(problem, operands, lane, proposal, verdict, active)
    if problem.watch is not None and lane.watched is not None:
        ends = (proposal.t, t_end)
        info = problem.stepper.interpolant(t_end - proposal.t, proposal.y, trial)
        watched, result = look(
            problem.watch, operands.watch, lane.watched, ends, lane, info, accepted
        )
        lane = eqx.tree_at(lambda s: (s.watched, s.result), lane, (watched, result))
    return lane, proposal


def walked(problem: Problem, operands: Operands, lane: Lane) -> tuple[Lane, tuple]:
    """The lane before its next attempt along noise, and what that draws."""
    state, walk = lane.controller_state
    assert problem.walk is not None  # or nobody would walk
    active = is_active(lane, operands)
    walk, t_next, drawn = problem.walk(operands.walk, lane.t, walk, active)
    stuck = active & (t_next <= lane.t)
    result = RESULTS.where(stuck, RESULTS.dt_min_reached, lane.result)
    lane = dataclasses.replace(lane, t_next=t_next, controller_state=(state, walk), result=result)
    return lane, (drawn,)


class Verdict(eqx.Module):
    """What the controller says of an attempt."""

    accepted: Flag
    t: Time
    t_next: Time
    made_jump: Any
    state: Any
    result: RESULTS
    unsound: Any


def _verdict(
    problem: Problem, operands: Operands, lane: Lane, t_end: Time, trial: Trial,
    plan: Planned | None,
) -> Verdict:  # fmt: skip
    if plan is None:
        return judge(problem, operands, lane, t_end, trial)
    if problem.moving:  # for the derivative of what follows
        verdict = judge(problem, operands, lane, t_end, trial)
        return dataclasses.replace(verdict, accepted=plan.accepted)
    same = (lane.made_jump, lane.controller_state, lane.result, lane.unsound)
    return Verdict(plan.accepted, plan.t_after, plan.t_after, *same)


def judge(problem: Problem, operands: Operands, lane: Lane, t_end: Time, trial: Trial) -> Verdict:
    accepted, t, t_next, made_jump, state, result = problem.controller(
        operands.controller, lane.t, t_end, lane.y, trial.y1, trial.error, lane.controller_state
    )
    t = jnp.minimum(t, operands.t1)
    t_next = as_long_as_before(problem, lane, t, t_next, t_end, accepted)
    if problem.walk is None:  # a walk finds the end of the next step itself
        t_next, stuck = keep_moving(operands, t, t_next, accepted, t_end)
        t, t_next, state = _grid(problem, operands, lane, t_end, trial, accepted, t, t_next, state)
        result = RESULTS.where(stuck & is_successful(result), RESULTS.dt_min_reached, result)
    if trial.result is not None:
        failed = accepted & ~is_successful(trial.result)
        result = RESULTS.where(failed, trial.result, result)
    sound = is_sound(problem, operands, lane.y, trial)
    lost = ~sound & (result == RESULTS.dt_min_reached)
    if problem.accepts_anything:
        lost = lost | (~sound & accepted & is_successful(result))
    result = RESULTS.where(lost, _NONFINITE, result)
    unsound = unsound_leaves(trial.y1, _estimate(problem, trial))
    return Verdict(accepted, t, t_next, made_jump, state, result, unsound)


def is_sound(problem: Problem, operands: Operands, y: State, trial: Trial) -> Flag:
    """Whether an attempt led somewhere: its end and its error estimate are finite."""
    rtol, atol = eqx.combine(operands.tolerances, problem.tolerances)
    if problem.norm is rms_norm and trial.error is not None:
        # The number that the controller looks at, which is computed once for both.
        return jnp.isfinite(scaled_error(problem.norm, trial.error, y, trial.y1, rtol, atol))
    return tree.all_finite((trial.y1, _estimate(problem, trial)))


def _estimate(problem: Problem, trial: Trial) -> State | None:
    """The error estimate, where somebody reads it: of fixed steps it is not computed."""
    return None if problem.own_grid else trial.error


def _grid(
    problem: Problem, operands: Operands, lane: Lane, t_end: Time, trial: Trial, accepted: Flag,
    t: Time, t_next: Time, state: Any,
) -> tuple[Time, Time, Any]:  # fmt: skip
    """The next attempt's ends and the controller's state, with the derivatives that the reverse
    pass gives them: forward mode over it runs through here.
    """
    if problem.own_grid:  # the controller's own program is differentiated
        return t, t_next, state
    owned = problem.owned_times(operands)
    if problem.grid != "pid":
        verdict = (accepted, jnp.array(False) if lane.clipped is None else lane.clipped)
        return *next_ends((t, t_next), (lane.t, t_end), verdict, owned), state

    def rule(ops: Operands, now: Grid, memory: Any, y: State, trial: Trial, kept: Flag) -> Any:
        finite = tree.all_finite((trial.y1, trial.error, trial.rates, trial.carry))
        details = Details(now.t_end, None, kept, finite, memory)
        after = next_grid(problem, ops, now, details, problem.owned_times(ops), y, trial)
        return after.t, after.t_end, after.memory

    memory = lane.controller_state
    now, value = Grid(lane.t, t_end, memory[:2]), (t, t_next, state[:2])
    given = (operands, now, memory, lane.y, trial, accepted)
    t, t_next, past = with_derivative_of(rule, value, *given)
    return t, t_next, (*past, *state[2:])


def keep_moving(
    operands: Operands, t: Time, t_next: Time, accepted: Flag, t_end: Time
) -> tuple[Time, Flag]:
    """Land on `t1` exactly, never step by less than one unit in the last place, and say when that
    was refused too.

    The first half is diffrax's rule (close to `t1`: to `t1` after an accepted step, half as far
    after a rejected one). Without the second half the middle can round to `t` itself, and a float32
    solve never ends.
    """
    t1 = operands.t1
    towards_end = jnp.where(accepted, t1, t + 0.5 * (t_end - t))
    t_next = jnp.where(t_next > operands.close_to_t1, towards_end, t_next)
    # Near a singularity 0.9 h can round back to h: the same step would be tried for ever.
    t_next = jnp.where(accepted, t_next, jnp.minimum(t_next, eqxi.prevbefore(t_end)))
    smallest = smallest_step_after(t)
    stuck = ~accepted & (t_end <= smallest)
    return within(t_next, smallest, t1), stuck


def commit(
    problem: Problem,
    operands: Operands,
    lane: Lane,
    proposal: Proposal,
    verdict: Verdict,
    active: Flag,
) -> Lane:
    accepted, trial = proposal.accepted, proposal.trial
    placements = problem.full_placements(operands)
    totals = lane.totals
    if placements:
        step = stepping.view(problem, operands, proposal.t, proposal.t_end, proposal.y, trial)
        readings = readings_of(placements, step)
        place = Place(lane.num_accepted, proposal.t, proposal.t_end, accepted)
        totals = add_readings(placements, totals, readings, place)
    made_jump = lane.made_jump
    if problem.jumps:
        jumped = verdict.made_jump
        if problem.leaps:
            jumped = jumped | (verdict.t != proposal.t_end)
        made_jump = jnp.where(accepted, jumped, made_jump)
    return Lane(
        t=jnp.where(active, verdict.t, lane.t),
        t_next=jnp.where(active, verdict.t_next, lane.t_next),
        y=tree.where(accepted, trial.y1, lane.y),
        carry=tree.where(accepted, trial.carry, lane.carry),
        controller_state=tree.where(active, verdict.state, lane.controller_state),
        result=RESULTS.where(active, verdict.result, lane.result),
        num_steps=lane.num_steps + jnp.where(active, 1, 0),
        num_accepted=lane.num_accepted + jnp.where(accepted, 1, 0),
        totals=totals,
        made_jump=made_jump,
        watched=lane.watched,
        unsound=None if lane.unsound is None else jnp.where(active, verdict.unsound, lane.unsound),
        clipped=None
        if lane.clipped is None
        else _clipped(problem, operands, verdict.t_next, lane.clipped & ~accepted),
        awaited=lane.awaited,
    )
