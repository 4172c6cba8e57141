"""The contract of a stepper: how the engine takes a step, and takes it again."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx

from ...shapes import State, Time

Field = Callable[[Time, State], State]


class Trial(eqx.Module):
    """The outcome of one attempted step, before anybody judged it."""

    y1: State
    error: State | None
    carry: Any
    rates: list[State] | None = None
    stages: list[State] | None = None
    info: Any = None  # what interpolation wants, where the step itself gives it
    result: Any = None  # a result code, where a step can fail


class AbstractStepper(eqx.Module):
    """How to attempt one step.

    `dynamics` is the vector field, or whatever else `Problem.dynamics` gives this stepper.

    Attributes:
        evals_per_step: evaluations of the vector field in one attempt; `None` if unknown.
        keeps_carry: whether the record must hold the carry at checkpoints, since it cannot be had
            from the state alone.
        num_times: how many of the first arguments of `dynamics` are times.
        steps_at_once: whether recorded steps can be taken side by side, from their stages alone.
    """

    keeps_carry: ClassVar[bool] = True
    num_times: ClassVar[int] = 2
    steps_at_once: ClassVar[bool] = False

    @property
    def evals_per_step(self) -> int | None:
        return None

    def init(self, dynamics: Any, t0: Time, y0: State) -> Any:
        """The carry from the state alone, where the record does not keep it."""
        return ()

    @abc.abstractmethod
    def step(
        self, dynamics: Any, t0: Time, t1: Time, y0: State, carry: Any, made_jump: Any
    ) -> Trial:
        """One attempt from `t0` to `t1`."""

    def memo(self, trial: Trial) -> Any:
        """What of a step the record keeps besides the state, to make its replay cheaper."""
        return ()

    def again(
        self, dynamics: Any, field: Any, t0: Time, t1: Time, y0: State, carry: Any, memo: Any,
        made_jump: Any,
    ) -> Trial:  # fmt: skip
        """A recorded step, to be differentiated. `carry`: as recorded, or what `stand_in` gives."""
        return self.step(dynamics, t0, t1, y0, carry, made_jump)

    def stand_in(self, y0: State) -> Any:
        """A carry of zeros, where the record keeps none, for its derivative."""
        return ()

    @abc.abstractmethod
    def advance(
        self, dynamics: Any, t0: Time, t1: Time, y0: State, carry: Any, made_jump: Any
    ) -> Trial:
        """To run a recorded step again: `y1`, the carry, and what `memo` wants."""

    @abc.abstractmethod
    def interpolant(self, h: Time, y0: State, trial: Trial) -> Any:
        """What the solver's interpolation class takes besides the times."""

    @abc.abstractmethod
    def seen(self, field: Field, t0: Time, t1: Time, y0: State, trial: Trial) -> "StagesSeen":
        """The stages of a step, for costs."""


class StagesSeen(eqx.Module):
    """The stages of one step: rates f(t_i, g_i), arguments g_i, nodes c_i, weights b_i."""

    rates: list[State] | None = None
    stages: list[State] | None = None
    nodes: tuple[float, ...] = eqx.field(static=True, default=())
    weights: tuple[float, ...] = eqx.field(static=True, default=())
    error_parts: tuple[State, State] | None = None  # the estimate's, by drift and by noise
