"""What diffrax hands to its adjoint's loop, and what the engine asks of it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp

from ...shapes import Args
from ..control.controllers import FIXED, clips_around
from ..resets import Resets
from ..times import reflected_field
from .resets_part import growing

_NEVER_JUMPS = (diffrax.PIDController, *FIXED)


@dataclasses.dataclass(frozen=True, eq=False)
class LoopInputs:
    """What diffrax hands to its adjoint's loop."""

    args: Args
    terms: Any
    solver: diffrax.AbstractSolver
    stepsize_controller: Any
    event: diffrax.Event | None
    saveat: diffrax.SaveAt
    t0: Any
    t1: Any
    dt0: Any
    max_steps: int | None
    init_state: Any
    throw: bool
    passed_solver_state: bool
    passed_controller_state: bool
    progress_meter: diffrax.AbstractProgressMeter
    resets: Resets | None = None

    @functools.cached_property
    def direction(self) -> Any:
        """1 if the user's time grows, else -1."""
        has_one = lambda x: hasattr(x, "direction")
        of_terms = jax.tree.leaves(self.terms, is_leaf=has_one)
        return jnp.asarray(next(x.direction for x in of_terms if has_one(x)))

    @functools.cached_property
    def reset_ts(self) -> Any:
        return growing(self.resets, self.direction, (self.t0, self.t1))

    @property
    def jumps(self) -> bool:
        """Whether the field may be said to have jumped."""
        return may_jump(self.stepsize_controller) or self.init_state.made_jump is not False

    @functools.cached_property
    def state0(self) -> Any:
        return jax.tree.map(jnp.asarray, self.init_state)

    @property
    def field(self) -> Callable:
        """The vector field in growing time, of a term that is an `ODETerm`."""
        return reflected_field(self.terms.term, self.args, self.terms.direction)

    @property
    def around_events(self) -> dict[str, Any]:
        """What diffrax passes by name to an event's conditions."""
        names = ("terms", "solver", "t0", "t1", "dt0", "saveat", "stepsize_controller", "max_steps")
        return {name: getattr(self, name) for name in names}

    @property
    def subs(self) -> list[diffrax.SubSaveAt]:
        return subs_of(self.saveat)


def subs_of(saveat: diffrax.SaveAt) -> list[diffrax.SubSaveAt]:
    return jax.tree.leaves(saveat.subs, is_leaf=lambda x: isinstance(x, diffrax.SubSaveAt))


def may_jump(controller: Any) -> bool:
    clips, controller = clips_around(controller)
    never = lambda c: type(c) is diffrax.ClipStepSizeController and c.jump_ts is None
    return not all(map(never, clips)) or type(controller) not in _NEVER_JUMPS
