"""Parts of a problem and its operands that every way of preparing a solve has in common."""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx

from ...shapes import Args, State, Time
from ..control.controllers import (
    FIXED,
    clips_around,
    convert_controller,
    frozen,
    is_diffrax_pid,
    tolerances_of,
)
from ..costs.contracts import Placements, Surroundings, init_totals
from ..forward.grid import depends_on_state, moves


@dataclasses.dataclass(frozen=True)
class Part:
    """Fields of `Problem` and of `Operands`; and whether, for it, recorded steps must be replayed
    one by one.
    """

    fixed: dict[str, Any]
    arrays: dict[str, Any]
    one_by_one: bool = False


def control_part(
    controller: Any,
    args: Args,
    t0: Time,
    y0: State,
    error: State | None,
    error_order: Any,
    state0: Any,
    step_sizes: str,
    around: Callable | None = None,
) -> Part:
    """The step size controller, or what `around` makes of it. `error` has the shape of the error
    estimate.
    """
    example = (t0, t0, y0, y0, error, state0)
    adapt, constants, jumps = convert_controller(controller, args, error_order, example, around)
    tolerances, norm, order = tolerances_of(controller, error_order)
    own_grid = not is_diffrax_pid(controller)
    by_pid = moves(step_sizes, controller, around is not None)
    grid = "pid" if by_pid else "constant"
    if own_grid and depends_on_state(controller, adapt, example):
        grid = "program"
    tolerance_arrays, tolerance_rest = eqx.partition(tolerances, eqx.is_array)
    pid_arrays, pid_rest = eqx.partition(controller if by_pid else None, eqx.is_array)
    fixed = dict(
        controller=adapt, tolerances=tolerance_rest, norm=norm, error_order=order, grid=grid,
        pid=pid_rest, own_grid=own_grid, jumps=jumps,
        leaps=jumps or (own_grid and type(controller) not in FIXED),
        accepts_anything=_accepts_anything(controller),
    )  # fmt: skip
    return Part(
        fixed, dict(controller=constants, tolerances=tolerance_arrays, pid=frozen(pid_arrays))
    )


def _accepts_anything(controller: Any) -> bool:
    """Whether a controller may accept a step whatever it leads to: any but diffrax's; and that one,
    if it accepts steps of a least length.
    """
    pid = clips_around(controller)[1]
    return type(pid) is not diffrax.PIDController or pid.dtmin is not None


def cost_part(placements: Placements, surroundings: Surroundings) -> Part:
    """The costs."""
    arrays, rest = eqx.partition(placements, eqx.is_array)
    totals = frozen(init_totals(placements, surroundings))
    return Part(dict(placements=rest), dict(costs=arrays, totals0=totals, key=surroundings.key))
