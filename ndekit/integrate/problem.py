"""A solve as data: the arrays it depends on, and what is fixed at compile time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

from .. import tree
from ..shapes import Count, State, Time
from .ahead import Ahead, ahead_of
from .at_stages import step_at_stages
from .converted import Converted, convert
from .costs import Placements
from .fences import Fence, fence_at, is_duplicated, no_fence
from .linearized import Linearized
from .owned import OwnedTimes
from .step import Step
from .stepper import AbstractStepper, ExplicitRungeKutta, Trial


class Operands(eqx.Module):
    """Every array that a solve depends on, with time reflected so that it grows."""

    # Differentiable.
    constants: list[Any]  # what the dynamics close over: parameters, args
    costs: Any  # arrays inside the costs
    y0: State
    carry0: Any
    t0: Any
    t1: Any
    ts: list[Any]  # of each `SubSaveAt`
    # Differentiable where the grid is the user's or is differentiated, else frozen.
    t_next0: Any
    controller: list[Any]  # what the controller closes over: tolerances, times
    controller_state0: Any
    # Frozen: on the recorded grid nothing depends on these.
    close_to_t1: Any
    totals0: Any
    tolerances: Any
    result0: Any
    key: Any = None  # for costs that draw
    pid: Any = None  # arrays of a controller whose rule is differentiated
    # Differentiable again, where there are any.
    of_field: list[Any] = eqx.field(default_factory=list)  # what the field closes over, where it
    # is not the dynamics itself
    fns: list[list[Any]] = eqx.field(default_factory=lambda: [[]])  # of each `SaveAt(fn=...)`
    stops: Any = None  # the times of clipping controllers, on which steps end and begin
    # Frozen.
    undo: list[Any] = eqx.field(default_factory=list)  # what undoing a step closes over
    made_jump0: Any = None
    watch: list[Any] = eqx.field(default_factory=list)  # what event conditions close over
    watched0: Any = None  # their values at t0
    noise: list[Any] = eqx.field(default_factory=list)  # what drawing noise closes over
    walk: list[Any] = eqx.field(default_factory=list)  # what going to the next step closes over


@dataclass(frozen=True)
class Plan:
    """What one `SubSaveAt` wants of the steps between t0 and t1."""

    fn: Converted | None  # `None`: the state itself
    at_ts: bool
    every: int  # save after every so many accepted steps; 0 for never
    room: int = 0  # values that `every` can give


@dataclass(frozen=True, eq=False)
class Problem:
    """What a compiled solve is specialised to."""

    dynamics: Converted  # the vector field, or the whole step: as the stepper wants it
    field: Converted | None  # the vector field, for costs, where it is not the dynamics itself
    stepper: AbstractStepper
    interpolation: Callable[..., diffrax.AbstractLocalInterpolation]
    controller: Converted  # its `adapt_step_size`
    placements: Any  # without their arrays
    tolerances: Any  # (rtol, atol), without their arrays
    norm: Any
    error_order: Any
    max_steps: int | None
    checkpoints: int | None
    solver_name: str
    plans: tuple[Plan, ...]
    fenced: bool = False
    jumps: bool = False  # whether the controller may make jumps
    dense: bool = False
    watch: Any = None  # event conditions: `events.Conditions`
    grid: str = "constant"  # how the grid of steps is differentiated: see `moving.RULES`
    pid: Any = None  # diffrax's controller without its arrays, where its rule is differentiated
    accepts_anything: bool = False  # whether the controller may accept what is not finite
    own_grid: bool = False  # whether step sizes are the user's: by any controller but diffrax's
    undo: Converted | None = None  # a step backwards, where the reverse pass keeps no states
    noise: Converted | None = None  # what a step draws, by its ends, if it draws itself
    walk: Converted | None = None  # to the next step of adaptive noise, by where it begins
    returns_state: bool = False  # whether the solver's last state is asked for
    keeps_stages: bool = False
    in_stretches: bool = False  # whether one lane alone is replayed many steps at once
    kept: Linearized | None = None  # the dynamics and what their derivative reads, if recorded
    treedef: Any = None  # of the operands
    outcome: Any = None  # shapes and dtypes of what one lane gives

    @property
    def interpolates(self) -> bool:
        """Whether anything asks for the inside of a step."""
        return self.dense or self.watch is not None or any(plan.at_ts for plan in self.plans)

    def fence(self, attempt: Any) -> Fence:
        return no_fence if attempt is None or not self.fenced else fence_at(attempt)

    def dynamics_of(self, operands: Operands, attempt: Any = None, drawn: tuple = ()) -> Callable:
        """What the stepper steps with; inside a loop, with the loop's counter, fenced if wanted."""
        run = lambda *args: self.dynamics(operands.constants, *args, *drawn)
        fence = self.fence(attempt)
        whole = run if fence is no_fence else lambda t, y: fence(run(t, fence(y)))
        ahead = self.ahead
        return whole if ahead is None else ahead.timed(operands.constants, whole, fence)

    @cached_property
    def ahead(self) -> Ahead | None:
        """The field in two programs, where stages gain by it."""
        is_field = isinstance(self.stepper, ExplicitRungeKutta)
        return ahead_of(self.dynamics) if is_field else None

    def step(
        self, operands: Operands, attempt: Any, ends: tuple[Time, Time], state: tuple[State, Any],
        jumped: Any, drawn: tuple,
    ) -> tuple[Trial, Any]:  # fmt: skip
        """One attempt, and what of it the record keeps besides the state and what it has drawn."""
        jumped = self.made_jump(jumped)
        if self.kept is None:
            dynamics = self.dynamics_of(operands, attempt, drawn)
            trial = self.stepper.step(dynamics, *ends, *state, jumped)
            return trial, self.stepper.memo(trial)
        kept, fence, notes = self.kept, self.fence(attempt), []

        def noting(*args: Any) -> Any:
            out, noted = kept.run(operands.constants, *fence(args), *drawn)
            notes.append(noted)
            return fence(out)

        trial = self.stepper.step(noting, *ends, *state, jumped)
        return trial, (() if self.stepper.keeps_carry else state[1], notes)

    def advance(
        self, operands: Operands, number: Count, ends: tuple[Time, Time],
        state: tuple[State, Any], jumped: Any, drawn: tuple,
    ) -> tuple[Trial, Any]:  # fmt: skip
        """A recorded step run again, with what it has drawn: its end, and its memo."""
        if self.kept is None:
            dynamics = self.dynamics_of(operands, None, drawn)
            trial = self.stepper.advance(dynamics, *ends, *state, jumped)
            return trial, self.stepper.memo(trial)
        if not self.stepper.keeps_carry:
            state = (state[0], self.stepper.init(self.dynamics_of(operands), ends[0], state[0]))
        return self.step(operands, number, ends, state, jumped, drawn)

    def again(
        self, operands: Operands, attempt: Any, ends: tuple[Time, Time], state: tuple[State, Any],
        memo: tuple[Any, tuple], jumped: Any,
    ) -> Trial:  # fmt: skip
        """A recorded step, to be differentiated; `memo` is what it left and what it has drawn."""
        inner, drawn = memo
        if self.kept is None:
            dynamics, field = self.dynamics_of(operands, attempt, drawn), self.field_of(operands)
            return self.stepper.again(dynamics, field, *ends, *state, inner, jumped)
        (_, notes), kept, fence = inner, self.kept, self.fence(attempt)
        rest = iter(notes)
        noted = lambda *args: fence(
            kept.again(operands.constants, next(rest), *fence(args), *drawn)
        )
        return self.stepper.step(noted, *ends, *state, None)

    def at_stages(
        self, operands: Operands, attempt: Any, ends: tuple[Time, Time], y0: State, stages: Any
    ) -> Trial:
        """A recorded step, to be differentiated once, its stages all at once."""
        scheme: Any = self.stepper
        return step_at_stages(scheme, self.dynamics_of(operands, attempt), *ends, y0, stages)

    @property
    def num_stages(self) -> int:
        """How many stages of an explicit scheme anybody reads."""
        scheme: Any = self.stepper
        looked_at = self.interpolates or bool(self.placements)
        return len(scheme.c) if looked_at else scheme.evals_per_step

    def draw(self, operands: Operands, ends: tuple[Time, Time], number: Count) -> tuple:
        """What the dynamics take as the noise of step `number`, if they take any."""
        if self.noise is None:
            return ()
        return (self.noise(operands.noise, *ends, jnp.asarray(number, jnp.int32)),)

    def no_step(self, operands: Operands) -> tuple[Trial, Any]:
        """A step of no length from `y0`: its end, and what the record would keep of it besides the
        state.
        """
        ends, state, number = (operands.t0,) * 2, (operands.y0, operands.carry0), jnp.array(0)
        drawn = self.draw(operands, ends, number)
        trial, left = self.step(operands, number, ends, state, operands.made_jump0, drawn)
        return trial, (left, drawn)

    def memo_like(self, operands: Operands) -> Any:
        """Arrays of the shapes and dtypes of a memo."""
        return tree.zeros_like(jax.eval_shape(self.no_step, operands)[1])

    @property
    def programs(self) -> list[Converted]:
        """All that is run of the user's."""
        watch = None if self.watch is None else self.watch.values
        fns = [plan.fn for plan in self.plans]
        all_ = (self.dynamics, self.field, self.controller, self.undo, self.noise, watch, *fns)
        return [program for program in all_ if program is not None]

    @property
    def moving(self) -> bool:
        """Whether attempts are replayed as a chain, each handing the next one its ends."""
        return self.grid != "constant"

    @property
    def clipped(self) -> bool:
        """Whether a clipping controller ends and begins steps at times of the user."""
        lane = jax.tree.unflatten(self.treedef, range(self.treedef.num_leaves))
        return lane.stops is not None

    def owned_times(self, operands: Operands) -> OwnedTimes:
        return OwnedTimes(operands.t0, operands.t1, operands.stops)

    def made_jump(self, flag: Any) -> Any:
        return flag if self.jumps else None

    def full_placements(self, operands: Operands) -> Placements:
        return eqx.combine(operands.costs, self.placements)

    def view(self, operands: Operands, t0: Time, t1: Time, y0: State, trial: Trial) -> Step:
        """The step as its costs see it."""
        rtol, atol = eqx.combine(operands.tolerances, self.tolerances)
        field = self.field_of(operands)
        seen = self.stepper.seen(field, t0, t1, y0, trial)
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
            error_order=self.error_order,
            rtol=rtol,
            atol=atol,
            norm=self.norm,
            field=field,
            solver_name=self.solver_name,
            key=operands.key,
            error_parts=seen.error_parts,
        )

    def field_of(self, operands: Operands) -> Callable[[Time, State], State]:
        """The vector field, as costs and a replayed step may call it."""
        if isinstance(self.stepper, ExplicitRungeKutta):
            return self.dynamics_of(operands)
        field = self.field
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
