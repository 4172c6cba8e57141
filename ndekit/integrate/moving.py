r"""The controller's rule as a differentiable function: for step sizes that are not constants.

A PID controller makes the next step $s e_n^{-\beta_1} e_{n-1}^{-\beta_2} e_{n-2}^{-\beta_3}$ times
as long, with $e_n$ the scaled error, clipped. diffrax stops every derivative of this; the reverse
pass of `ReplayAdjoint(step_sizes="differentiable")` carries them, two times and two errors from
attempt to attempt, rejected attempts included.
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

from .. import tree
from ..shapes import Flag, State, Time
from .attempt import smallest_step_after, within
from .problem import Operands, Problem
from .scaled import scale_of, without_nans
from .stepper import Trial

# Controllers that take the steps that they were told, whatever the error.
FIXED = (diffrax.ConstantStepSize, diffrax.StepTo)


class Grid(eqx.Module):
    """What an attempt hands to the next: where that starts and ends, and two past errors."""

    t: Time
    t_end: Time
    errors: Any  # inverse scaled errors of the last two accepted steps


def moves(step_sizes: str, controller: Any, walks: bool) -> bool:
    """Whether a solve's step sizes are to be differentiated: if asked for, and if the controller
    chooses them at all.
    """
    if step_sizes == "frozen" or type(controller) in FIXED:
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


def next_grid(
    problem: Problem,
    operands: Operands,
    now: Grid,
    at_dtmin: Flag,
    t1: Time,
    y: State,
    trial: Trial,
    accepted: Flag,
    finite: Flag,
) -> Grid:
    """The next attempt's ends, as `attempt.judge` has them; `t1` is where the solve ends."""
    pid = eqx.combine(operands.pid, problem.pid)
    inverse, usable = _inverse_error(pid, y, trial, finite)
    factor = _factor(pid, problem.error_order, inverse, now.errors, usable, accepted)
    h = (now.t_end - now.t) * factor.astype(now.t.dtype)
    if pid.dtmax is not None:
        h = jnp.where(h > pid.dtmax, pid.dtmax, h)
    if pid.dtmin is not None:
        h = jnp.where((at_dtmin & (factor == 1)) | (h < pid.dtmin), pid.dtmin, h)
    t = jnp.where(accepted, now.t_end, now.t)
    # Not `minimum`: at a tie, which is where every solve ends, it halves the derivative.
    t = jnp.where(t > t1, t1, t)
    past = (jnp.where(usable, inverse, 1), now.errors[0])
    errors = tree.where(accepted, past, now.errors)
    return Grid(t, _end_of_next(operands, now, t, t + h, t1, accepted), errors)


def _end_of_next(
    operands: Operands, now: Grid, t: Time, t_next: Time, t1: Time, accepted: Flag
) -> Time:
    """As `attempt.keep_moving` has it."""
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
