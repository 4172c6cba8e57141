"""What is done with a problem's dynamics: a step attempted, run again, made for its derivative."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ... import tree
from ...shapes import Count, State, Time
from ..costs.step import Step
from ..programs.closure_convert import Converted, convert
from ..programs.fences import is_duplicated, no_fence
from ..steppers.explicit import ExplicitRungeKutta
from ..steppers.stages_at_once import step_at_stages
from ..steppers.stepper import AbstractStepper, Trial
from .problem import Operands, Problem


def dynamics_of(
    problem: Problem, operands: Operands, attempt: Any = None, drawn: tuple = ()
) -> Callable:
    """What the stepper steps with; inside a loop, with the loop's counter, fenced if wanted."""
    run = lambda *args: problem.dynamics(operands.constants, *args, *drawn)
    fence = problem.fence(attempt)
    whole = run if fence is no_fence else lambda t, y: fence(run(t, fence(y)))
    ahead = problem.ahead
    return whole if ahead is None else ahead.timed(operands.constants, whole, fence)


def step(
    problem: Problem, operands: Operands, attempt: Any, ends: tuple[Time, Time],
    state: tuple[State, Any], jumped: Any, drawn: tuple,
) -> tuple[Trial, Any]:  # fmt: skip
    """One attempt, and what of it the record keeps besides the state and what it has drawn."""
    jumped = problem.made_jump(jumped)
    if problem.kept is None:
        dynamics = dynamics_of(problem, operands, attempt, drawn)
        trial = problem.stepper.step(dynamics, *ends, *state, jumped)
        return trial, problem.stepper.memo(trial)
    kept, fence, notes = problem.kept, problem.fence(attempt), []

    def noting(*args: Any) -> Any:
        out, noted = kept.run(operands.constants, *fence(args), *drawn)
        notes.append(noted)
        return fence(out)

    trial = problem.stepper.step(noting, *ends, *state, jumped)
    return trial, (() if problem.stepper.keeps_carry else state[1], notes)


def advance(
    problem: Problem, operands: Operands, number: Count, ends: tuple[Time, Time],
    state: tuple[State, Any], jumped: Any, drawn: tuple,
) -> tuple[Trial, Any]:  # fmt: skip
    """A recorded step run again, with what it has drawn: its end, and its memo."""
    if problem.kept is None:
        dynamics = dynamics_of(problem, operands, None, drawn)
        trial = problem.stepper.advance(dynamics, *ends, *state, jumped)
        return trial, problem.stepper.memo(trial)
    if not problem.stepper.keeps_carry:
        state = (state[0], problem.stepper.init(dynamics_of(problem, operands), ends[0], state[0]))
    return step(problem, operands, number, ends, state, jumped, drawn)


def again(
    problem: Problem, operands: Operands, attempt: Any, ends: tuple[Time, Time],
    state: tuple[State, Any], memo: tuple[Any, tuple], jumped: Any,
) -> Trial:  # fmt: skip
    """A recorded step, to be differentiated; `memo` is what it left and what it has drawn."""
    inner, drawn = memo
    if problem.kept is None:
        dynamics, field = (
            dynamics_of(problem, operands, attempt, drawn),
            field_of(problem, operands),
        )
        return problem.stepper.again(dynamics, field, *ends, *state, inner, jumped)
    (_, notes), kept, fence = inner, problem.kept, problem.fence(attempt)
    rest = iter(notes)
    noted = lambda *args: fence(kept.again(operands.constants, next(rest), *fence(args), *drawn))
    return problem.stepper.step(noted, *ends, *state, None)


def at_stages(
    problem: Problem,
    operands: Operands,
    attempt: Any,
    ends: tuple[Time, Time],
    y0: State,
    stages: Any,
) -> Trial:
    """A recorded step, to be differentiated once, its stages all at once."""
    scheme: Any = problem.stepper
    return step_at_stages(scheme, dynamics_of(problem, operands, attempt), *ends, y0, stages)


def draw(problem: Problem, operands: Operands, ends: tuple[Time, Time], number: Count) -> tuple:
    """What the dynamics take as the noise of step `number`, if they take any."""
    if problem.noise is None:
        return ()
    return (problem.noise(operands.noise, *ends, jnp.asarray(number, jnp.int32)),)


def no_step(problem: Problem, operands: Operands) -> tuple[Trial, Any]:
    """A step of no length from `y0`: its end, and what the record would keep of it besides the
    state.
    """
    ends, state, number = (operands.t0,) * 2, (operands.y0, operands.carry0), jnp.array(0)
    drawn = draw(problem, operands, ends, number)
    trial, left = step(problem, operands, number, ends, state, operands.made_jump0, drawn)
    return trial, (left, drawn)


def memo_like(problem: Problem, operands: Operands) -> Any:
    """Arrays of the shapes and dtypes of a memo."""
    return tree.zeros_like(jax.eval_shape(partial(no_step, problem), operands)[1])


def view(problem: Problem, operands: Operands, t0: Time, t1: Time, y0: State, trial: Trial) -> Step:
    """The step as its costs see it."""
    rtol, atol = eqx.combine(operands.tolerances, problem.tolerances)
    field = field_of(problem, operands)
    seen = problem.stepper.seen(field, t0, t1, y0, trial)
    return Step(
        t0=t0,
        t1=t1,
        y0=y0,
        y1=trial.y1,
        error=trial.error,
        rates=seen.rates,
        stages=seen.stages,
        nodes=seen.nodes,
        weights=seen.weights,
        error_order=problem.error_order,
        rtol=rtol,
        atol=atol,
        norm=problem.norm,
        field=field,
        solver_name=problem.solver_name,
        key=operands.key,
        error_parts=seen.error_parts,
    )


def field_of(problem: Problem, operands: Operands) -> Callable[[Time, State], State]:
    """The vector field, as costs and a replayed step may call it."""
    if isinstance(problem.stepper, ExplicitRungeKutta):
        return dynamics_of(problem, operands)
    field = problem.field
    return _no_field if field is None else lambda t, y: field(operands.of_field, t, y)


def _no_field(t: Time, y: State) -> State:
    raise ValueError(
        "This cost evaluates the vector field, which only an `ODETerm` has. Use another cost, or "
        "write the term as one, for example `ControlTerm(...).to_ode()`."
    )


def convert_field(
    field: Callable[[Time, State], State], t: Time, y: State
) -> tuple[Converted, list[Any]]:
    """The field as a program, checked to give what it takes."""
    converted, constants = convert(field, t, y)
    got, wanted = jax.tree.leaves(converted.shapes), jax.tree.leaves(y)
    for out, leaf in zip(got, wanted, strict=True):
        if (out.shape, out.dtype) != (leaf.shape, leaf.dtype):
            raise ValueError(
                f"The vector field must return the shape and dtype of `y0`, {leaf.dtype}"
                f"{list(leaf.shape)}, but returned {out.dtype}{list(out.shape)}."
            )
    return converted, constants


def needs_fences(stepper: AbstractStepper, dynamics: Converted) -> bool:
    return isinstance(stepper, ExplicitRungeKutta) and is_duplicated(dynamics.jaxpr.jaxpr)
