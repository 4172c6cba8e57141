"""Steps backwards as a program, and the solves whose steps cannot be replayed in that way."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..control.controllers import frozen
from ..noise.of_step import Noise
from ..programs.closure_convert import convert
from ..solvers.reversible import undo_of
from .loop_inputs import LoopInputs
from .parts import Part
from .step_noise import on_drawn


def undoing(given: LoopInputs, noise: Noise | None) -> Part:
    """What a problem has to know to undo its steps."""
    t, y, carry = given.t0, given.state0.y, given.state0.solver_state
    keep = lambda new, old: jnp.asarray(new).astype(old.dtype)

    def undo_by(terms: Any) -> Callable:
        undo = undo_of(given.solver, terms, given.args)
        return lambda *step: jax.tree.map(keep, undo(*step), (y, carry))

    back, drawn = on_drawn(noise, given.terms, undo_by, t)
    program, constants = convert(back, t, t, y, carry, *drawn)
    return Part(dict(undo=program), dict(undo=frozen(constants)))


def refuse_resets(resets: Any) -> None:
    """For steps that are undone, which knows no other state than that after a step."""
    if resets is not None:
        raise ValueError(
            "`ReversibleAdjoint` cannot undo a reset of the state. Use `ReplayAdjoint()`, with any "
            "solver."
        )


def refuse_jumps(keeps_stages: bool, reversible: bool) -> None:
    """For a controller that makes the field jump."""
    if keeps_stages:
        raise ValueError(
            "`ReplayAdjoint(keep='stages')` does not know steps that begin after a jump. Leave "
            "`jump_ts` out, or keep states."
        )
    if reversible:
        raise ValueError(
            "`ReversibleAdjoint` cannot undo a jump of the vector field. Leave `jump_ts` out, or "
            "use `ReplayAdjoint()`."
        )
