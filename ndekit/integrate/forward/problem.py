"""A solve as data: the arrays it depends on, and what is fixed at compile time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import diffrax
import equinox as eqx

from ...shapes import State
from ..control.user_times import OwnedTimes
from ..costs.contracts import Placements
from ..programs.closure_convert import Converted
from ..programs.fences import Fence, fence_at, no_fence
from ..programs.linearized import Linearized
from ..programs.time_only import TimeOnly, time_only_part
from ..steppers.explicit import ExplicitRungeKutta
from ..steppers.stepper import AbstractStepper


class ResetOperands(eqx.Module):
    """The arrays of resets."""

    update: list[Any]  # what `update` closes over
    begin: list[Any]  # what beginning anew closes over
    ts: Any  # with infinity behind; without a derivative, which is that of the owned times


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
    # Differentiable: what values between the ends of a step close over.
    between: list[Any] = eqx.field(default_factory=list)
    # Differentiable, but for times, which are among `stops`.
    resets: Any = None  # `ResetOperands`, where there are resets


@dataclass(frozen=True)
class Plan:
    """What one `SubSaveAt` wants of the steps between t0 and t1."""

    fn: Converted | None  # `None`: the state itself
    at_ts: bool
    every: int  # save after every so many accepted steps; 0 for never
    room: int = 0  # values that `every` can give


@dataclass(frozen=True, eq=False)
class Between:
    """Values at `ts` that are not the solver's own interpolation of a step.

    Attributes:
        program: from the ends of a step, what is known of its inside (where it began, as `t0` and
            `y0`, and its end `y1`) and a time, to the state at that time.
        block: of so many times together.
        sure_steps: so many are taken at least.
    """

    program: Converted
    block: int
    sure_steps: int = 0


@dataclass(frozen=True, eq=False)
class Resetting:
    """What is known of resets at compile time.

    Attributes:
        update: (index, t, y) -> y.
        begin: (t, y, the solver's state before) -> its state there, of steppers that cannot make
            theirs from the field.
        room: how many times there are.
        anew: whether an adaptive controller begins anew, with an attempt at the whole way.
        remembers: whether it is diffrax's rule that goes on with a step as long as one that was cut
            short; not where another controller around it has a say in where steps end.
    """

    update: Converted
    begin: Converted | None
    room: int
    anew: bool = False
    remembers: bool = False


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
    # How many attempts a solve makes, where that is known before it runs. Then its loops count, and
    # nobody asks whether they go on; what is behind its end does nothing.
    num_turns: int | None = None
    one_by_one: bool = False  # whether something asks that steps be replayed one by one
    jumps: bool = False  # whether the controller may make jumps
    # Whether a step may begin elsewhere than where the one before it ended: after a jump, or by a
    # controller of the user's, which need not speak of one.
    leaps: bool = False
    dense: bool = False
    watch: Any = None  # event conditions: `events.Conditions`
    grid: str = "constant"  # how the grid of steps is differentiated: see `grid.RULES`
    pid: Any = None  # diffrax's controller without its arrays, where its rule is differentiated
    accepts_anything: bool = False  # whether the controller may accept what is not finite
    own_grid: bool = False  # whether step sizes are the user's: by any controller but diffrax's
    undo: Converted | None = None  # a step backwards, where the reverse pass keeps no states
    noise: Converted | None = None  # what a step draws, by its ends, if it draws itself
    walk: Converted | None = None  # to the next step of adaptive noise, by where it begins
    between: Between | None = None  # values at `ts`, where the solver's interpolation has no say
    resets: Any = None  # changes of the state at known times: `Resetting`
    returns_state: bool = False  # whether the solver's last state is asked for
    keeps_stages: bool = False
    steps_at_once: bool = False  # whether one lane alone is replayed many steps at once
    # Whether the carry of a replayed step is an input of its own, whose cotangent goes to the step
    # before, where it was an output. If not, a step is replayed as a function of its state alone,
    # and the first stage is part of it.
    chained: bool = True
    kept: Linearized | None = None  # the dynamics and what their derivative reads, if recorded
    treedef: Any = None  # of the operands
    outcome: Any = None  # shapes and dtypes of what one lane gives

    @property
    def most_turns(self) -> int | None:
        """How many attempts there can be."""
        known = [n for n in (self.num_turns, self.max_steps) if n is not None]
        return min(known, default=None)

    @property
    def interpolates(self) -> bool:
        """Whether anything asks for the inside of a step."""
        return self.dense or self.watch is not None or any(plan.at_ts for plan in self.plans)

    def fence(self, attempt: Any) -> Fence:
        return no_fence if attempt is None or not self.fenced else fence_at(attempt)

    @cached_property
    def ahead(self) -> TimeOnly | None:
        """The field in two programs, where stages gain by it."""
        is_field = isinstance(self.stepper, ExplicitRungeKutta)
        return time_only_part(self.dynamics) if is_field else None

    @property
    def num_stages(self) -> int:
        """How many stages of an explicit scheme anybody reads."""
        scheme: Any = self.stepper
        looked_at = self.interpolates or bool(self.placements)
        return len(scheme.c) if looked_at else scheme.evals_per_step

    @property
    def programs(self) -> list[Converted]:
        """All that is run of the user's."""
        watch = None if self.watch is None else self.watch.values
        fns = [plan.fn for plan in self.plans]
        between = None if self.between is None else self.between.program
        resets = [None] if self.resets is None else [self.resets.update, self.resets.begin]
        all_ = (self.dynamics, self.field, self.controller, self.undo, self.noise, watch, between)
        return [program for program in (*all_, *fns, *resets) if program is not None]

    @property
    def moving(self) -> bool:
        """Whether attempts are replayed as a chain, each handing the next one its ends."""
        return self.grid != "constant"

    def owned_times(self, operands: Operands) -> OwnedTimes:
        return OwnedTimes(operands.t0, operands.t1, operands.stops)

    def made_jump(self, flag: Any) -> Any:
        return flag if self.jumps else None

    def full_placements(self, operands: Operands) -> Placements:
        return eqx.combine(operands.costs, self.placements)
