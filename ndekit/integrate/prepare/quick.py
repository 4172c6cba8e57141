"""The engine's way through a solve: prepare its operands, solve, final_state the outcome."""

from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from diffrax import RESULTS, is_successful
from jax import lax

from ... import tree
from ...shapes import Args, State, Time
from ..control.controllers import FIXED, frozen, is_diffrax_pid
from ..control.cut_short import CutShort, cuts
from ..control.in_units import InUnits
from ..control.known_length import num_turns_of
from ..costs.contracts import Placements, Surroundings
from ..forward.failures import thrown
from ..forward.outcome import Outcome
from ..forward.problem import Operands, Plan, Problem
from ..forward.stepping import convert_field
from ..programs.effects import check_effects
from ..replay.primitive import solve
from ..resets import Resets
from ..solution import Solution
from ..steppers.explicit import ExplicitRungeKutta, explicit_runge_kutta
from ..times import (
    CountedField,
    differ,
    direction_of,
    promote_state,
    promote_times,
    reflected,
    reflected_field,
    smallest_step_after,
    within,
)
from .assemble import Motion, Replaying, assemble
from .parts import Part, control_part, cost_part
from .resets_part import (
    at_start,
    growing,
    reset_states,
    resets_part,
    turns_with,
    with_stops,
)
from .saved_rows import SAVE_STATE, SavedRows

_CONTROLLERS = (diffrax.PIDController, InUnits, *FIXED)


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
    common one, whose program then holds none of diffrax's callbacks.
    """
    sub = saveat.subs
    return (
        type(terms) is diffrax.ODETerm
        and explicit_runge_kutta(solver) is not None
        and type(controller) in _CONTROLLERS
        and isinstance(sub, diffrax.SubSaveAt)
        and sub.steps == 0
        and sub.fn is SAVE_STATE
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
    how: Replaying,
    max_steps: int | None,
    throw: bool,
    placements: Placements,
    key: Any,
    resets: Resets | None = None,
) -> Solution:
    """Solve what `can_solve` says yes to."""
    sub: Any = saveat.subs
    # Known times stay known: the compiler then sees numbers, and one direction of time.
    with jax.ensure_compile_time_eval():
        t0, t1, dt0, ts = promote_times(t0, t1, dt0, sub.ts)
        direction = direction_of(t0, t1)
        times = _Times(*(reflected(t, direction) for t in (t0, t1, dt0, ts)))
    num_turns = turns_with(resets, num_turns_of(stepsize_controller, t0, t1, dt0))
    how = how._replace(num_turns=num_turns)
    y0 = promote_state(y0, t0)
    field = reflected_field(terms, args, direction)
    controller = stepsize_controller.wrap(direction)
    stepper, error_order = explicit_runge_kutta(solver), solver.error_order(terms)
    assert stepper is not None  # by `can_solve`
    around = Surroundings(times.t0, y0, key, max_steps, times.ts)
    parts, first = _with_resets(resets, controller, args, direction, times, y0)
    parts.append(cost_part(placements, around))
    steps_by = controller, CutShort if cuts(controller, resets) else None
    given = field, solver, stepper, times, (y0, first), steps_by, error_order, parts
    problem, operands, motion = _prepare(*given, max_steps, how)
    check_effects(problem.programs, how.can_leave)
    outcome = solve(problem, operands)
    saved_ts, ys = _saved(sub, times, y0, outcome, direction)
    sol = Solution(
        t0=t0,
        t1=t1,
        ts=reflected(saved_ts, direction),
        ys=ys,
        interpolation=None,
        stats=_stats(motion, outcome, max_steps),
        result=outcome.result,
        solver_state=None,
        controller_state=None,
        made_jump=None,
        event_mask=None,
        costs=outcome.costs,
        resets=reset_states(resets, outcome),
    )
    bad = ~is_successful(outcome.result)
    return thrown(sol, outcome.failure, y0, bad, max_steps) if throw else sol


def _with_resets(
    resets: Resets | None, controller: Any, args: Args, direction: Any, times: "_Times", y0: State
) -> tuple[list[Part], State]:
    """The parts of a problem that know of resets, and the state for which the first step is
    chosen.
    """
    ts = growing(resets, direction, times[:2])
    of_resets = resets_part(resets, ts, controller, args, direction, times.t0, y0)
    parts = [of_resets, Part({}, dict(stops=with_stops(None, ts)))]
    if times.dt0 is not None:
        return parts, y0
    return parts, at_start(resets, ts, args, direction, times.t0, y0)


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
    states: tuple[State, State],
    steps_by: tuple[Any, Any],
    error_order: Any,
    more: list[Part],
    max_steps: int | None,
    how: Replaying,
) -> tuple[Problem, Operands, Motion]:
    """`states`: `y0`, and that for which the first step is chosen. `steps_by`: the controller, and
    what is made of its rule.
    """
    (y0, first), (controller, cut) = states, steps_by
    dynamics, constants = convert_field(field, times.t0, y0)
    counted = CountedField(lambda t, y: dynamics(constants, t, y))
    carry0 = stepper.init(counted, times.t0, _seen_by_a_step(times, y0))
    t_next0, state0 = _first_step(controller, times, first, counted, error_order)
    like = None if stepper.b_error is None else y0
    sizes = how.step_sizes
    if cut is not None:
        state0 = (state0, t_next0)
    control = control_part(controller, None, times.t0, y0, like, error_order, state0, sizes, cut)
    at_ts = times.ts is not None and len(times.ts) > 0
    begin = dict(
        ts=[times.ts if at_ts else None],
        controller_state0=state0,
        result0=frozen(RESULTS.successful),
    )
    streams = Part(dict(plans=(Plan(None, at_ts, 0),)), begin)
    motion = Motion(stepper, dynamics, constants, carry0, first_evals=counted.calls)
    ends, parts = (times.t0, times.t1, t_next0), [control, streams, *more]
    return *assemble(solver, motion, how, max_steps, ends, y0, parts), motion


def _seen_by_a_step(times: _Times, y0: State) -> State:
    """`y0`, without a derivative for a solve over no time, which evaluates the field in vain."""
    t0, t1 = times.t0, times.t1
    return y0 if differ(t0, t1) else tree.where(t0 == t1, lax.stop_gradient(y0), y0)


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


def _stats(motion: Motion, outcome: Outcome, max_steps: int | None) -> dict[str, Any]:
    return {
        "num_steps": outcome.num_steps,
        "num_accepted_steps": outcome.num_accepted,
        "num_rejected_steps": outcome.num_steps - outcome.num_accepted,
        "max_steps": max_steps,
        **motion.num_evals(outcome),
    }


def _saved(
    sub: diffrax.SubSaveAt, times: _Times, y0: State, outcome: Outcome, direction: Any
) -> tuple[Any, State]:
    """`sol.ts` and `sol.ys`, in growing time."""
    of_ts = 0 if sub.ts is None else len(sub.ts)
    size, start = sub.t0 + of_ts + bool(sub.t1), (times.t0, y0)
    sub = diffrax.SubSaveAt(t0=sub.t0, t1=sub.t1, ts=times.ts, fn=sub.fn)
    end, missing = (outcome.t, outcome.y), jnp.inf * direction
    layout = SavedRows(sub, 0, None, start, times.t1, end, outcome, size, missing)
    ts, ys, _, _ = layout.rows()
    return ts, ys
