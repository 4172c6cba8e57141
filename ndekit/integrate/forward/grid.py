r"""The controller's rule as a differentiable function: for step sizes that are not constants.

A PID controller makes the next step $s e_n^{-\beta_1} e_{n-1}^{-\beta_2} e_{n-2}^{-\beta_3}$ times
as long, with $e_n$ the scaled error, clipped. diffrax stops every derivative of this; the reverse
pass of `ReplayAdjoint(step_sizes="differentiable")` carries them, two times and two errors from
attempt to attempt, rejected attempts included.

Every other controller is differentiated as it is written: constant steps are fractions of
`t1 - t0`, `StepTo` goes to the user's times, and a controller of one's own may do anything.
"""

from functools import partial
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

from ... import tree
from ...shapes import Flag, State, Time
from ..control.controllers import FIXED, is_diffrax_pid
from ..control.scaled_error import scale_of, without_nans
from ..control.user_times import OwnedTimes, next_ends
from ..programs.closure_convert import Converted
from ..programs.equations import needed_for, variables
from ..steppers.stepper import Trial
from ..times import smallest_step_after, within
from .problem import Operands, Problem
from .record import Details
from .resets import cut_at


class Grid(eqx.Module):
    """What an attempt hands to the next: where that starts and ends, and what the controller
    remembers: inverse scaled errors of the last two accepted steps, or what its own state holds.
    """

    t: Time
    t_end: Time
    memory: Any


def moves(step_sizes: str, controller: Any, walks: bool) -> bool:
    """Whether the step sizes of diffrax's rule are to be differentiated."""
    if step_sizes == "frozen" or not is_diffrax_pid(controller):
        return False
    if walks:
        raise ValueError(
            "`ReplayAdjoint(step_sizes='differentiable')` has nothing to differentiate along "
            "`BrownianMotion`: its adaptive steps are halves of halves. Use `step_sizes='frozen'`."
        )
    if type(controller) is not diffrax.PIDController:
        raise ValueError(
            "`ReplayAdjoint(step_sizes='differentiable')` knows the rule of "
            f"`diffrax.PIDController` alone, but got `{type(controller).__name__}`. Use that, or "
            "`step_sizes='frozen'`."
        )
    return True


def depends_on_state(controller: Any, rule: Converted, example: tuple) -> bool:
    """Whether the times of a controller, its `rule` as a program, have a derivative by the states
    and errors that it sees. `example`: what the program takes.
    """
    if type(controller) in FIXED:
        return False
    struct = lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))
    t0, t1, *seen, memory = jax.tree.map(struct, example)
    constants = [struct(rule.jaxpr.jaxpr.constvars[i].aval) for i in rule.hoisted]

    def tangents(known: tuple, seen: list, d_seen: list) -> Any:
        constants, t0, t1, memory = known

        def times(seen: list) -> Any:
            _, t, t_next, _, state, _ = rule(constants, t0, t1, *seen, memory)
            return eqx.filter((t, t_next, state), eqx.is_inexact_array)

        return jax.jvp(times, (seen,), (d_seen,))[1]

    program = jax.make_jaxpr(tangents)((constants, t0, t1, memory), seen, seen).jaxpr
    directions = set(program.invars[len(program.invars) - len(jax.tree.leaves(seen)) :])
    needed = needed_for(program.outvars, program.eqns)
    read = {*variables(program.outvars), *variables(v for eqn in needed for v in eqn.invars)}
    return not read.isdisjoint(directions)


def remembered(problem: Problem, memory: Any) -> Any:
    """What of a controller's state has a derivative."""
    if problem.grid == "owned":
        return ()
    return memory[:2] if problem.grid == "pid" else eqx.filter(memory, eqx.is_inexact_array)


def next_grid(
    problem: Problem, operands: Operands, now: Grid, details: Details, owned: OwnedTimes, y: State,
    trial: Trial,
) -> Grid:  # fmt: skip
    """The next attempt's ends, as `verdict.judge` has them. `details`: what is noted of this
    attempt; `owned`: the user's times.
    """
    return RULES[problem.grid](problem, operands, now, details, owned, y, trial)


def _by_owned_times(
    problem: Problem, operands: Operands, now: Grid, details: Details, owned: OwnedTimes, y: State,
    trial: Trial,
) -> Grid:  # fmt: skip
    verdict = (details.accepted, details.clipped)
    ends = next_ends(details.next_ends, (now.t, now.t_end), verdict, owned)
    return Grid(*ends, ())


def _by_program(
    problem: Problem, operands: Operands, now: Grid, details: Details, owned: OwnedTimes, y: State,
    trial: Trial,
) -> Grid:  # fmt: skip
    fixed = eqx.filter(details.memory, eqx.is_inexact_array, inverse=True)
    state = eqx.combine(now.memory, fixed)
    _, t, t_next, _, state, _ = problem.controller(
        operands.controller, now.t, now.t_end, y, trial.y1, trial.error, state
    )
    ends = _within_solve(problem, operands, now, t, t_next, owned, details.accepted)
    return Grid(*ends, eqx.filter(state, eqx.is_inexact_array))


def _by_pid(
    problem: Problem, operands: Operands, now: Grid, details: Details, owned: OwnedTimes, y: State,
    trial: Trial,
) -> Grid:  # fmt: skip
    accepted, pid = details.accepted, eqx.combine(operands.pid, problem.pid)
    inverse, usable = _inverse_error(pid, y, trial, details.finite)
    factor = _factor(pid, problem.error_order, inverse, now.memory, usable, accepted)
    h = (now.t_end - now.t) * factor.astype(now.t.dtype)
    if pid.dtmax is not None:
        h = jnp.where(h > pid.dtmax, pid.dtmax, h)
    if pid.dtmin is not None:
        at_dtmin = details.memory[2]
        h = jnp.where((at_dtmin & (factor == 1)) | (h < pid.dtmin), pid.dtmin, h)
    t = jnp.where(accepted, now.t_end, now.t)
    ends = _within_solve(problem, operands, now, t, t + h, owned, accepted)
    past = (jnp.where(usable, inverse, 1), now.memory[0])
    return Grid(*ends, tree.where(accepted, past, now.memory))


# How the grid of steps is differentiated. "constant": not at all, which is diffrax's rule with
# times that nobody differentiates by. "owned": constant but for the user's times. "pid": diffrax's
# rule itself. "program": a controller's own code.
RULES = {"owned": _by_owned_times, "pid": _by_pid, "program": _by_program}


def _within_solve(
    problem: Problem, operands: Operands, now: Grid, t: Time, t_next: Time, owned: OwnedTimes,
    accepted: Flag,
) -> tuple[Time, Time]:  # fmt: skip
    # Not `minimum`: at a tie, which is where every solve ends, it halves the derivative.
    t = jnp.where(t > owned.t1, owned.t1, t)
    t_next = _end_of_next(operands, now, t, t_next, owned.t1, accepted)
    return t, t_next if problem.resets is None else cut_at(t, t_next, owned.stops)


def _end_of_next(
    operands: Operands, now: Grid, t: Time, t_next: Time, t1: Time, accepted: Flag
) -> Time:
    """As `verdict.keep_moving` has it."""
    towards_end = jnp.where(accepted, t1, t + 0.5 * (now.t_end - t))
    t_next = jnp.where(t_next > operands.close_to_t1, towards_end, t_next)
    return within(t_next, smallest_step_after(t), t1)


def _inverse_error(pid: Any, y: State, trial: Trial, finite: Flag) -> tuple[Any, Flag]:
    """1 / scaled error, and whether that is a number that can be differentiated."""
    y1, error = without_nans(y, trial.y1, trial.error)

    with jax.numpy_dtype_promotion("standard"):
        scale = scale_of(y, y1, pid.rtol, pid.atol)
        ratios = jax.tree.map(lambda e, s: (e / s).astype(e.dtype), error, scale)
    usable = finite & jnp.any(jnp.array([jnp.any(r != 0) for r in jax.tree.leaves(ratios)]))
    safe = jax.tree.map(lambda r: jnp.where(usable, r, 1), ratios)
    return 1 / jnp.asarray(pid.norm(safe)), usable


def _factor(pid: Any, order: Any, inverse: Any, errors: Any, usable: Flag, accepted: Flag) -> Any:
    """By what the step size changes."""
    coefficients = (
        (pid.icoeff + pid.pcoeff + pid.dcoeff) / order,
        -(pid.pcoeff + 2 * pid.dcoeff) / order,
        pid.dcoeff / order,
    )
    factor = pid.safety
    for error, coefficient in zip((inverse, *errors), coefficients, strict=True):
        if not (isinstance(coefficient, (int, float)) and coefficient == 0):
            factor = factor * error**coefficient
    # No error at all: as large as may be; an overflow: as small.
    factor = jnp.where(usable, factor, jnp.where(accepted, jnp.inf, 0))
    smallest = jnp.where(accepted, 1, pid.factormin)
    largest = jnp.where(accepted, pid.factormax, pid.safety)
    factor = jnp.where(factor < smallest, smallest, factor)
    return jnp.where(factor > largest, largest, factor).astype(inverse.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def with_derivative_of(rule: Any, value: Any, *args: Any) -> Any:
    """`value`, with the derivative of `rule(*args)`, which is the same number. `rule` closes over
    no arrays; it is evaluated where somebody differentiates, and nowhere else.
    """
    return value


@with_derivative_of.defjvp
def _(rule: Any, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    value, *args = primals
    return value, jax.jvp(rule, tuple(args), tuple(tangents[1:]))[1]
