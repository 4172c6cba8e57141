"""The engine as the loop of `diffrax.diffeqsolve`.

diffrax prepares a solve (checks, promotes, reflects time, makes the first states) and dresses what
comes out of its loop. Between the two it calls its adjoint's `loop`; here the engine stands in. So
whatever diffrax takes means what it means there, and says the same when it is wrong.
"""

import dataclasses
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jax import lax

from ... import tree
from ...shapes import State
from ..control.controllers import frozen, is_diffrax_pid
from ..control.cut_short import CutShort, cuts
from ..control.user_times import stops_of
from ..costs.contracts import Placements, Surroundings
from ..forward.events import Conditions, Watched, condition_values, directions_of
from ..forward.outcome import Outcome
from ..forward.problem import Operands, Plan, Problem
from ..forward.stepping import convert_field
from ..noise.adaptive import first_walk, walking, walks
from ..programs.closure_convert import convert
from ..programs.effects import calls_host, check_effects
from ..replay.primitive import solve
from ..resets import Resets
from ..solvers.inherited import written_together
from ..solvers.small_systems import by_inverses
from ..steppers.any_solver import OpaqueStepper, step_of
from ..steppers.diagonally_implicit import DiagonallyImplicit, is_diagonally_implicit
from ..steppers.drift import counted_drift, drift_evals, is_sde
from ..steppers.explicit import ExplicitRungeKutta, explicit_runge_kutta
from ..times import reflected_field, smallest_step_after, within
from .assemble import Motion, Replaying, assemble
from .loop_inputs import LoopInputs
from .loop_outputs import final_state
from .parts import Part, control_part, cost_part
from .resets_part import reset_states, resets_part, with_stops
from .saved_along_noise import saved_part
from .saved_rows import SAVE_STATE
from .step_noise import is_known, noise_of, noise_part, on_drawn, walk_part
from .undo import refuse_jumps, refuse_resets, undoing


def run_loop(
    how: Replaying, placements: Placements, key: Any, resets: Resets | None = None, **given: Any
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """diffrax's final state, statistics, and what the engine has besides (costs, and where a solve
    failed) of a solve that diffrax has prepared.
    """
    solve_of = LoopInputs(**given, resets=resets)
    motion = _motion(solve_of)
    problem, operands = _prepare(solve_of, motion, placements, key, how)
    check_effects(problem.programs, how.can_leave)
    outcome = solve(problem, operands)
    is_wrapped = problem.walk is not None or cuts(solve_of.stepsize_controller, resets)
    if is_wrapped and problem.returns_state:
        # The walk begins anew where a solve is continued, and so does a step.
        outcome = dataclasses.replace(outcome, controller_state=outcome.controller_state[0])
    last_state, stats = None, _evals(solve_of, motion, outcome)
    if problem.returns_state:
        last_state = motion.last_state(outcome)
    if has_statistics(solve_of.solver):
        solver: Any = solve_of.solver
        stats |= solver.statistics(last_state)
    made = reset_states(resets, outcome)
    besides = dict(costs=outcome.costs, failure=outcome.failure, resets=made)
    return final_state(solve_of, outcome, last_state), stats, besides


def has_statistics(solver: Any) -> bool:
    """Whether a solver counts something in its state, for `sol.stats`."""
    return hasattr(solver, "statistics")


def _motion(given: LoopInputs) -> Motion:
    stepper = explicit_runge_kutta(given.solver)
    is_ode = type(getattr(given.terms, "term", None)) is diffrax.ODETerm
    if stepper is not None and is_ode:
        return _by_stages(given, stepper)
    t, y, carry0 = given.t0, given.state0.y, given.state0.solver_state
    terms: Any = given.terms
    solver = by_inverses(given.solver, y)
    last_state, kind = lambda outcome: outcome.carry, OpaqueStepper
    field, of_field = convert_field(given.field, t, y) if is_ode else (None, [])
    # The stages of a replayed step are evaluated as one batch.
    if is_ode and is_diagonally_implicit(given.solver) and not calls_host(field):
        # On the reflected field, so that the stages are those of the field that is replayed.
        reflected, kind = given.field, DiagonallyImplicit
        terms = diffrax.ODETerm(lambda t, y, args: reflected(t, y))
        carry0, last_state = _turned(given, carry0), lambda outcome: _turned(given, outcome.carry)
    noisy, noise = is_sde(terms), noise_of(given)
    if noisy:
        terms, calls = counted_drift(terms)
    step_by = lambda terms: step_of(solver, terms, given.args, y, carry0, given.jumps, noisy)
    step, drawn = on_drawn(noise, terms, step_by, t)
    dynamics, constants = convert(step, t, t, y, carry0, jnp.array(False), *drawn)
    stepper, first_evals, first_steps = kind(getattr(given.solver, "tableau", None)), 0, 0
    if is_ode and written_together(given.solver, "init", "step", "evaluations"):
        own: Any = given.solver
        evals, first_evals, first_steps = own.evaluations
        stepper = OpaqueStepper(stepper.tableau, drift_evals=evals)
    if noisy:
        evals = drift_evals(given.solver, calls) if is_known(given.solver) else None
        stepper = OpaqueStepper(None, noisy, evals)
        drift = given.terms.terms[0]
        f = reflected_field(drift.term, given.args, drift.direction)
        field, of_field = convert_field(f, t, y)
    begin = _begin(given, solver, terms, carry0)
    return Motion(
        stepper, dynamics, constants, carry0, last_state, field, of_field,
        first_evals=first_evals, first_steps=first_steps, noise=noise, begin=begin,
    )  # fmt: skip


def _begin(given: LoopInputs, solver: Any, terms: Any, carry0: Any) -> Any:
    """The solver's state where it begins anew, at (t, y), after one that was before."""

    def begin(t: Any, y: State, before: Any) -> Any:
        new = solver.init(terms, t, given.t1, y, given.args)
        if hasattr(solver, "begun_again"):
            new = solver.begun_again(before, new)
        return jax.tree.map(lambda x, like: jnp.asarray(x).astype(like.dtype), new, carry0)

    return begin


def _turned(given: LoopInputs, solver_state: Any) -> Any:
    """A first-same-as-last state between diffrax's field and the one in growing time."""
    if solver_state is None:
        return None
    first_step, rate = solver_state
    direction = given.terms.direction
    return first_step, jax.tree.map(lambda x: x * direction.astype(x.dtype), rate)


def _by_stages(given: LoopInputs, stepper: ExplicitRungeKutta) -> Motion:
    """An explicit Runge-Kutta scheme on a vector field. diffrax keeps the last stage without the
    sign of time, and a flag that says whether there was one.
    """
    t, y, state0 = given.t0, given.state0.y, given.state0.solver_state
    dynamics, constants = convert_field(given.field, t, y)
    field = lambda t, y: dynamics(constants, t, y)
    if not stepper.first_same_as_last:
        return Motion(stepper, dynamics, constants, (), lambda outcome: state0)
    # A solve over no time evaluates the field in vain; its derivative is not wanted.
    y_seen = tree.where(given.t0 == given.t1, lax.stop_gradient(y), y)
    carry0 = stepper.init(field, t, y_seen)
    if given.passed_solver_state:
        anew, rate = state0[0] | given.state0.made_jump, _turned(given, state0)[1]
        carry0 = tree.where(anew, carry0, rate)

    def last_state(outcome: Outcome) -> Any:
        return _turned(given, (state0[0] & (outcome.num_accepted == 0), outcome.carry))

    return Motion(stepper, dynamics, constants, carry0, last_state, first_evals=1)


def _prepare(
    given: LoopInputs, motion: Motion, placements: Placements, key: Any, how: Replaying
) -> tuple[Problem, Operands]:
    y0 = given.state0.y
    memory = _first_memory(given, motion)
    controller, around = walking(motion.noise, given.stepsize_controller)
    if cuts(controller, given.resets):
        around = CutShort
    control = control_part(
        controller, given.args, given.t0, y0, _error_like(motion, y0),
        given.solver.error_order(given.terms), memory, how.step_sizes, around,
    )  # fmt: skip
    # `given.jumps` is what the type of the controller says, this is what it does.
    jumps = control.fixed["jumps"] or given.init_state.made_jump is not False
    # A step that begins elsewhere is replayed with its first stage there, so it has one there.
    anew = getattr(motion.stepper, "first_same_as_last", False) and not how.keeps_stages
    if not jumps and control.fixed["leaps"] and anew:
        jumps = True
    elif jumps:
        refuse_jumps(how.keeps_stages, how.reversible)
    streams = _streams(given)
    ts = [times for times in streams.arrays["ts"] if times is not None]
    along = ts[0] if len(ts) == 1 else None
    around = Surroundings(given.t0, y0, key, given.max_steps, along)
    parts = [control, cost_part(placements, around), streams, _conditions(given)]
    parts += [noise_part(motion.noise, given.t0), walk_part(motion.noise, given.t0, memory)]
    parts.append(saved_part(given, motion.noise))
    controller = given.stepsize_controller
    if walks(motion.noise) and given.resets is not None and given.resets.steps == "anew":
        raise ValueError(
            "`Resets(steps='anew')` has no say along `BrownianMotion`, whose adaptive steps are "
            "halves of halves. Use `steps='continue'`, or `diffrax.VirtualBrownianTree`."
        )
    known = given.resets, given.reset_ts, controller, given.args, given.direction, given.t0, y0
    parts.append(resets_part(*known, motion.begin, motion.carry0))
    if how.reversible:
        refuse_resets(given.resets)
        parts.append(undoing(given, motion.noise))
    parts.append(_state_part(given, memory, control, jumps))
    ends = given.t0, given.t1, _first_end(given)
    return assemble(given.solver, motion, how, given.max_steps, ends, y0, parts)


def _state_part(given: LoopInputs, memory: Any, control: Part, jumps: bool) -> Part:
    """What a solve of diffrax begins with, and what of its last state is asked for."""
    state0, saveat, controller = given.state0, given.saveat, given.stepsize_controller
    returns_state = saveat.solver_state or saveat.controller_state or has_statistics(given.solver)
    stops = None
    if not control.fixed["own_grid"]:
        stops = stops_of(controller, state0.controller_state)
    stops = with_stops(stops, given.reset_ts)
    arrays = dict(
        controller_state0=memory, stops=stops, made_jump0=state0.made_jump if jumps else None,
        result0=frozen(state0.result),
    )  # fmt: skip
    leaps = jumps or control.fixed["leaps"]
    fixed = dict(jumps=jumps, leaps=leaps, dense=saveat.dense, returns_state=returns_state)
    # A step that ends where a clipping controller says is not looked up side by side.
    return Part(fixed, arrays, stops is not None or saveat.dense or returns_state)


def _first_end(given: LoopInputs) -> Any:
    t_next = given.state0.tnext
    # A controller that jumps may begin with a step of no length.
    return t_next if given.jumps else within(t_next, smallest_step_after(given.t0), given.t1)


def _first_memory(given: LoopInputs, motion: Motion) -> Any:
    """The controller's first state. That of diffrax's rule is not differentiated."""
    state = given.state0.controller_state
    state = frozen(state) if is_diffrax_pid(given.stepsize_controller) else state
    if cuts(given.stepsize_controller, given.resets):
        return state, _first_end(given)
    if not walks(motion.noise):
        return state
    return state, frozen(first_walk(motion.noise, given.t0, given.state0.tnext))


def _error_like(motion: Motion, y0: State) -> Any:
    """The shape of the error estimate, `None` if there is none."""
    if isinstance(motion.stepper, ExplicitRungeKutta):
        return None if motion.stepper.b_error is None else y0
    return motion.dynamics.shapes[1]


def _streams(given: LoopInputs) -> Part:
    """What each `SubSaveAt` asks for."""
    plans, constants, ts = [], [], []
    for sub in given.subs:
        fn, of_fn = None, []
        if sub.fn is not SAVE_STATE:
            value = lambda t, y, sub=sub: jax.tree.map(jnp.asarray, sub.fn(t, y, given.args))
            fn, of_fn = convert(value, given.t0, given.state0.y)
        at_ts = sub.ts is not None and len(sub.ts) > 0
        room = given.max_steps // sub.steps if sub.steps and given.max_steps else 0
        plans.append(Plan(fn, at_ts, sub.steps, room))
        constants.append(of_fn)
        ts.append(sub.ts if at_ts else None)
    at_steps = any(plan.every for plan in plans)
    return Part(dict(plans=tuple(plans)), dict(fns=constants, ts=ts), at_steps)


def _conditions(given: LoopInputs) -> Part:
    """What an event watches."""
    event, state0 = given.event, given.state0
    if event is None:
        return Part({}, {})
    values = condition_values(event, given.args, given.around_events)
    converted, constants = convert(values, given.t0, state0.y)
    leaves = (jax.tree.leaves(state0.event_values), jax.tree.leaves(state0.event_mask))
    watched = Watched(*leaves, state0.tprev, state0.tprev, state0.event_dense_info)
    watch = Conditions(converted, directions_of(event))
    return Part(dict(watch=watch), dict(watch=constants, watched0=frozen(watched)), True)


def _evals(given: LoopInputs, motion: Motion, outcome: Outcome) -> dict[str, Any]:
    """A jump takes one evaluation more, and is not counted."""
    return {} if given.jumps and motion.first_evals else motion.num_evals(outcome)
