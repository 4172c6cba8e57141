"""A problem and its operands, put together from their parts: of every way of preparing a solve."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from ...shapes import State, Time
from ..control.controllers import frozen
from ..forward.outcome import Outcome
from ..forward.problem import Operands, Problem
from ..forward.stepping import needs_fences
from ..noise.of_step import Noise
from ..programs.closure_convert import Converted
from ..times import close_to
from .parts import Part


class Replaying(NamedTuple):
    """How the reverse pass goes: what `ReplayAdjoint` was told."""

    checkpoints: int | None
    step_sizes: str
    reversible: bool = False
    keeps_stages: bool = False
    num_turns: int | None = None

    @property
    def one_by_one(self) -> bool:
        """Whether a record is wanted that steps side by side do not make, or none at all."""
        return self.checkpoints is not None or self.reversible or self.keeps_stages

    @property
    def can_leave(self) -> bool:
        """Whether diffrax's own loop would give the same derivative."""
        return self.step_sizes == "frozen" and not self.reversible


@dataclasses.dataclass(frozen=True, eq=False)
class Motion:
    """How a solve steps: the stepper, its dynamics as a program, its first carry."""

    stepper: Any
    dynamics: Converted
    constants: list[Any]
    carry0: Any
    last_state: Callable[[Outcome], Any] = lambda outcome: None
    field: Converted | None = None
    of_field: list[Any] = dataclasses.field(default_factory=list)
    first_evals: int = 0
    first_steps: int = 0  # over which these are spread; before the first step if 0
    noise: Noise | None = None
    begin: Callable | None = None  # the solver's state where it begins anew

    def num_evals(self, outcome: Outcome) -> dict[str, Any]:
        """True evaluations of the field, for `sol.stats`, where the scheme is known."""
        per_step = self.stepper.evals_per_step
        begins_anew = outcome.resets is not None and self.begin is not None
        if per_step is None or (begins_anew and self.first_evals):
            return {}
        first = self.first_evals
        if self.first_steps:
            made = jnp.minimum(outcome.num_steps, self.first_steps)
            first = first // self.first_steps * made
        number = first + per_step * outcome.num_steps
        if outcome.resets is not None and getattr(self.stepper, "first_same_as_last", False):
            number = number + outcome.resets.count
        return {"num_evals": number}


def assemble(
    solver: Any,
    motion: Motion,
    how: Replaying,
    max_steps: int | None,
    ends: tuple[Time, Time, Time],
    y0: State,
    parts: list[Part],
) -> tuple[Problem, Operands]:
    """The problem of a solve by `solver`. `ends`: t0, t1 and the end of the first step."""
    t0, t1, t_next0 = ends
    fixed = {name: value for part in parts for name, value in part.fixed.items()}
    arrays = {name: value for part in parts for name, value in part.arrays.items()}
    fenced = needs_fences(motion.stepper, motion.dynamics)
    problem = Problem(
        dynamics=motion.dynamics,
        field=motion.field,
        stepper=motion.stepper,
        interpolation=solver.interpolation_cls,
        max_steps=max_steps,
        checkpoints=how.checkpoints,
        keeps_stages=how.keeps_stages,
        num_turns=how.num_turns,
        solver_name=type(solver).__name__,
        fenced=fenced,
        one_by_one=how.one_by_one or fenced or any(part.one_by_one for part in parts),
        **fixed,
    )
    if problem.resets is not None and problem.resets.anew and problem.grid == "pid":
        raise ValueError(
            "`ReplayAdjoint(step_sizes='differentiable')` differentiates the rule by which one "
            "step follows from another, which `Resets(steps='anew')` interrupts. Use "
            "`steps='continue'`."
        )
    operands = Operands(
        constants=motion.constants,
        of_field=motion.of_field,
        y0=y0,
        carry0=motion.carry0,
        t0=t0,
        t1=t1,
        t_next0=t_next0 if problem.moving or problem.own_grid else frozen(t_next0),
        close_to_t1=close_to(t1),
        **arrays,
    )
    return problem, operands
