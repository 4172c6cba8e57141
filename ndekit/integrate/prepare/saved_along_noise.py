"""Values at saved times along noise: at the ends of steps."""

from typing import Any

from ... import tree
from ...shapes import State, Time
from ..forward.problem import Between
from ..noise.adaptive import walks
from ..noise.of_step import Noise
from ..programs.closure_convert import convert
from .loop_inputs import LoopInputs
from .parts import Part


def saved_part(given: LoopInputs, noise: Noise | None) -> Part:
    """How values at `ts` come from the steps of adaptive noise."""
    numbers = [sub.ts.shape[0] for sub in given.subs if sub.ts is not None]
    if not walks(noise) or not sum(numbers) or given.saveat.dense or given.event is not None:
        return Part({}, {})
    t, y = given.t0, given.state0.y
    program, constants = convert(_at_ends, t, t, y, y, t)
    # One by one: where each saved time ends a step there is one in a step.
    return Part(dict(between=Between(program, 1, max(numbers))), dict(between=constants))


def _at_ends(t0: Time, t1: Time, y0: State, y1: State, t: Time) -> Any:
    """Not interpolated: a cell ends at `t`. Only `t0` of a solve, and times at which the field
    jumps, lie before the step.
    """
    return tree.where(t > t0, y1, y0)
