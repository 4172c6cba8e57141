"""What the controller says of an attempt: whether it is accepted, and how the next one goes."""

from typing import Any

import equinox as eqx
import equinox.internal as eqxi
import jax.numpy as jnp
from diffrax import RESULTS, is_successful

from ... import tree
from ...shapes import Flag, State, Time
from ..control.norms import rms_norm
from ..control.scaled_error import scaled_error
from ..control.user_times import next_ends
from ..steppers.stepper import Trial
from ..times import smallest_step_after, within
from .failures import unsound_leaves
from .grid import Grid, next_grid, with_derivative_of
from .problem import Operands, Problem
from .record import Details
from .resets import as_long_as_before

NONFINITE: Any = RESULTS.nonfinite


class Verdict(eqx.Module):
    """What the controller says of an attempt."""

    accepted: Flag
    t: Time
    t_next: Time
    made_jump: Any
    state: Any
    result: RESULTS
    unsound: Any


def judge(problem: Problem, operands: Operands, lane: Any, t_end: Time, trial: Trial) -> Verdict:
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
    result = RESULTS.where(lost, NONFINITE, result)
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
    problem: Problem, operands: Operands, lane: Any, t_end: Time, trial: Trial, accepted: Flag,
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
