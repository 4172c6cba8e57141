"""Controllers whose steps were chosen before the solve, told of none that something cut short."""

from typing import Any

import diffrax
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jax import lax

from ...shapes import Flag, Time
from .controllers import FIXED


class CutShort:
    """The rule of a controller that takes steps of its own choice, whatever it is told: they end
    where they would end anyway. Its state: that of the controller, and where it ends this step.
    """

    def __init__(self, rule: diffrax.AbstractStepSizeController):
        self.rule = rule

    def adapt_step_size(
        self, t0: Time, t1: Time, y0: Any, y1: Any, args: Any, error: Any, order: Any, state: Any
    ) -> tuple:
        inner, end = state
        accepted, t, t_next, jump, new, result = self.rule.adapt_step_size(
            t0, t1, y0, y1, args, error, order, inner
        )
        is_there = reaches(t1, end)
        t_next = jnp.where(is_there, t_next, end)
        new = jax.tree.map(lambda a, b: jnp.where(is_there, a, b), new, inner)
        return accepted, t, t_next, jump, (new, t_next), result


def cuts(controller: Any, resets: Any) -> bool:
    """Whether steps of this controller may be cut short without its being told."""
    return resets is not None and type(controller) in FIXED


def reaches(t: Time, end: Time) -> Flag:
    """Whether a step to `t` is one to `end`: what would be left is a few rounding errors."""
    t, end = lax.stop_gradient((t, end))
    near = end - 100 * (end - eqxi.prevbefore(end))
    return jnp.isfinite(end) & (t > near)
