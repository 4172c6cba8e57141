"""Parts of a problem and its operands that every way of preparing a solve has in common."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx

from ..shapes import Args, State, Time
from .controllers import convert_controller, frozen, tolerances_of
from .costs import Placements, Surroundings, init_totals
from .moving import moves


@dataclasses.dataclass(frozen=True)
class Part:
    """Fields of `Problem` and of `Operands`."""

    fixed: dict[str, Any]
    arrays: dict[str, Any]


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
    adapt, constants = convert_controller(controller, args, error_order, example, around)
    tolerances, norm, order = tolerances_of(controller, error_order)
    moving = moves(step_sizes, controller, around is not None)
    tolerance_arrays, tolerance_rest = eqx.partition(tolerances, eqx.is_array)
    pid_arrays, pid_rest = eqx.partition(controller if moving else None, eqx.is_array)
    fixed = dict(
        controller=adapt, tolerances=tolerance_rest, norm=norm, error_order=order, moving=moving,
        pid=pid_rest,
    )  # fmt: skip
    return Part(
        fixed, dict(controller=constants, tolerances=tolerance_arrays, pid=frozen(pid_arrays))
    )


def cost_part(placements: Placements, surroundings: Surroundings) -> Part:
    """The costs."""
    arrays, rest = eqx.partition(placements, eqx.is_array)
    totals = frozen(init_totals(placements, surroundings))
    return Part(dict(placements=rest), dict(costs=arrays, totals0=totals, key=surroundings.key))
