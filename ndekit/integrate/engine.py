"""The engine's way through a solve: prepare its operands, solve, dress the outcome."""

from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from diffrax import RESULTS, is_successful
from jax import lax

from .. import tree
from ..shapes import Args, Count, State, Time
from .adjoint import ReplayAdjoint
from .controllers import frozen
from .costs import Placements, Surroundings
from .effects import check_effects
from .failures import thrown
from .forward import Outcome
from .moving import is_diffrax_pid
from .parts import Part, control_part, cost_part
from .primitive import solve
from .problem import Operands, Plan, Problem, convert_field, needs_fences
from .saving import Saved
from .setup import (
    CountedField,
    close_to,
    direction_of,
    is_concrete,
    promote_state,
    promote_times,
    reflected,
    reflected_field,
    smallest_step_after,
    within,
)
from .solution import Solution
from .stepper import ExplicitRungeKutta, explicit_runge_kutta

_CONTROLLERS = (diffrax.PIDController, diffrax.ConstantStepSize, diffrax.StepTo)
_SAVE_STATE = diffrax.SubSaveAt(t1=True).fn


def can_run(y0: Any, args: Any, terms: Any, meter: diffrax.AbstractProgressMeter) -> bool:
    """Whether the engine can take this solve at all; if not, diffrax's own loop does."""
    is_complex = lambda x: eqx.is_array_like(x) and jnp.iscomplexobj(x)
    no_meter = isinstance(meter, diffrax.NoProgressMeter)
    leaves = jax.tree.leaves(y0)
    return (
        no_meter
        and len(leaves) > 0
        and not any(map(is_complex, jax.tree.leaves((y0, args, terms))))
    )


def can_solve(terms: Any, solver: Any, y0: Any, saveat: diffrax.SaveAt, controller: Any) -> bool:
    """Whether this is a kind of solve that the engine prepares itself, without diffrax: the most
    common one, whose compilation is then quicker.
    """
    sub = saveat.subs
    return (
        type(terms) is diffrax.ODETerm
        and explicit_runge_kutta(solver) is not None
        and type(controller) in _CONTROLLERS
        and isinstance(sub, diffrax.SubSaveAt)
        and sub.steps == 0
        and sub.fn is _SAVE_STATE
        and not (saveat.dense or saveat.solver_state or saveat.controller_state or saveat.made_jump)
    )


@eqx.filter_jit
def solve_by_engine(
    terms: diffrax.ODETerm,
    solver: diffrax.AbstractSolver,
    t0: Time,
    t1: Time,
    dt0: Time | None,
    y0: State,
    args: Args,
    *,
    saveat: diffrax.SaveAt,
    stepsize_controller: Any,
    adjoint: ReplayAdjoint,
    max_steps: int | None,
    throw: bool,
    placements: Placements,
    key: Any,
) -> Solution:
    """Solve what `can_solve` says yes to."""
    sub: Any = saveat.subs
    # Known times stay known: the compiler then sees numbers, and one direction of time.
    with jax.ensure_compile_time_eval():
        t0, t1, dt0, ts = promote_times(t0, t1, dt0, sub.ts)
        direction = direction_of(t0, t1)
        times = _Times(*(reflected(t, direction) for t in (t0, t1, dt0, ts)))
    y0 = promote_state(y0, t0)
    field = reflected_field(terms, args, direction)
    controller = stepsize_controller.wrap(direction)
    stepper, error_order = explicit_runge_kutta(solver), solver.error_order(terms)
    assert stepper is not None  # by `can_solve`
    around = Surroundings(times.t0, y0, key, max_steps, times.ts)
    cost = cost_part(placements, around)
    problem, operands, first_evals = _prepare(
        field, solver, stepper, times, y0, controller, error_order, cost, max_steps, adjoint
    )
    check_effects(problem, can_leave=adjoint.step_sizes == "frozen")
    outcome = solve(problem, operands)
    saved_ts, ys = _saved(sub, operands, outcome)
    sol = Solution(
        t0=t0,
        t1=t1,
        ts=reflected(saved_ts, direction),
        ys=ys,
        interpolation=None,
        stats=_stats(problem.stepper, outcome, first_evals, max_steps),
        result=outcome.result,
        solver_state=None,
        controller_state=None,
        made_jump=None,
        event_mask=None,
        costs=outcome.costs,
    )
    bad = ~is_successful(outcome.result)
    return thrown(sol, outcome.failure, y0, bad, max_steps) if throw else sol


class _Times(NamedTuple):
    """The user's times, reflected so that they grow."""

    t0: Time
    t1: Time
    dt0: Time | None
    ts: Any


def _prepare(
    field: Any,
    solver: diffrax.AbstractSolver,
    stepper: ExplicitRungeKutta,
    times: _Times,
    y0: State,
    controller: Any,
    error_order: Any,
    cost: Part,
    max_steps: int | None,
    adjoint: ReplayAdjoint,
) -> tuple[Problem, Operands, int]:
    """The problem, its operands, and the number of evaluations that preparing them took."""
    dynamics, constants = convert_field(field, times.t0, y0)
    counted = CountedField(lambda t, y: dynamics(constants, t, y))
    carry0 = stepper.init(counted, times.t0, _seen_by_a_step(times, y0))
    t_next0, state0 = _first_step(controller, times, y0, counted, error_order)
    like = None if stepper.b_error is None else y0
    how = adjoint.step_sizes
    control = control_part(controller, None, times.t0, y0, like, error_order, state0, how)
    at_ts = times.ts is not None and len(times.ts) > 0
    problem = Problem(
        dynamics=dynamics,
        field=None,
        stepper=stepper,
        interpolation=solver.interpolation_cls,
        max_steps=max_steps,
        checkpoints=adjoint.checkpoints,
        keeps_stages=adjoint.how.keeps_stages,
        solver_name=type(solver).__name__,
        plans=(Plan(None, at_ts, 0),),
        fenced=needs_fences(stepper, dynamics),
        **control.fixed,
        **cost.fixed,
    )
    operands = Operands(
        constants=constants,
        y0=y0,
        carry0=carry0,
        t0=times.t0,
        t1=times.t1,
        ts=[times.ts if at_ts else None],
        t_next0=t_next0 if problem.moving or problem.own_grid else frozen(t_next0),
        close_to_t1=close_to(times.t1),
        controller_state0=state0,
        result0=frozen(RESULTS.successful),
        **control.arrays,
        **cost.arrays,
    )
    return problem, operands, counted.calls


def _seen_by_a_step(times: _Times, y0: State) -> State:
    """`y0`, without a derivative for a solve over no time, which evaluates the field in vain."""
    t0, t1 = times.t0, times.t1
    if is_concrete(t0) and is_concrete(t1) and np.asarray(t0) != np.asarray(t1):
        return y0
    return tree.where(jnp.asarray(t0 == t1), lax.stop_gradient(y0), y0)


def _first_step(
    controller: Any, times: _Times, y0: State, field: CountedField, error_order: Any
) -> tuple[Time, Any]:
    """The end of the first step, and the controller's first state."""
    t0, t1, dt0, _ = times
    # As in diffrax's own loop the controller does not learn that the term is an `ODETerm`.
    func = lambda terms, t, y, args: field(t, y)
    t_next0, state0 = controller.init(None, t0, t1, y0, dt0, None, func, error_order)
    state0 = frozen(state0) if is_diffrax_pid(controller) else jax.tree.map(jnp.asarray, state0)
    return within(t_next0, smallest_step_after(t0), t1), state0


def _stats(
    stepper: Any, outcome: Outcome, first_evals: int, max_steps: int | None
) -> dict[str, Any]:
    return {
        "num_steps": outcome.num_steps,
        "num_accepted_steps": outcome.num_accepted,
        "num_rejected_steps": outcome.num_steps - outcome.num_accepted,
        "num_evals": first_evals + stepper.evals_per_step * outcome.num_steps,
        "max_steps": max_steps,
    }


def _saved(sub: diffrax.SubSaveAt, operands: Operands, outcome: Outcome) -> tuple[Any, State]:
    """`sol.ts`, `sol.ys`; if the solve failed, its last state stands after the values reached."""
    before: list[Any] = [(operands.t0, operands.y0)] if sub.t0 else []
    rows = [jax.tree.map(lambda x: x[None], row) for row in before]
    reached: Count | int = len(before)
    saved = outcome.streams.at_ts[0]
    if saved is not None:
        wanted, saved = _without_time(operands, saved)
        known = jnp.arange(wanted.shape[0]) < saved.count
        rows.append((jnp.where(known, wanted, jnp.inf), saved.ys))
        reached = reached + saved.count
    if not sub.t1:
        return _concatenate(rows)
    last = (outcome.t, outcome.y)
    rows.append(jax.tree.map(lambda x: x[None], last))
    if saved is None:
        return _concatenate(rows)
    ts, ys = _concatenate(rows)
    index = jnp.arange(ts.shape[0])
    padded = tree.where(index <= reached, (ts, ys), jax.tree.map(_infinite, (ts, ys)))
    return tree.where(index == reached, jax.tree.map(lambda x: x[None], last), padded)


def _without_time(operands: Operands, saved: Saved) -> tuple[Any, Saved]:
    """The times and what is saved. A solve over no time at all has all its values already, and at
    its start, as in diffrax.
    """
    t0, t1, ts = operands.t0, operands.t1, operands.ts[0]
    if is_concrete(t0) and is_concrete(t1) and np.asarray(t0) != np.asarray(t1):
        return ts, saved
    fill = lambda y, ys: jnp.where(t0 == t1, y, ys)
    ys = jax.tree.map(fill, operands.y0, saved.ys)
    return fill(t0, ts), Saved(ys, jnp.where(t0 == t1, ts.shape[0], saved.count))


def _concatenate(rows: list[Any]) -> tuple[Any, State]:
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *rows)


def _infinite(x: Any) -> Any:
    return jnp.full_like(x, jnp.inf)
