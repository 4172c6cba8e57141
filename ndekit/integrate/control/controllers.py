"""Step size controllers as programs, and what costs want to know of them."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ...shapes import Args, State, Time
from ..programs.closure_convert import Converted, convert
from .in_units import InUnits
from .norms import preferred, rms_norm
from .scaled_error import scaled_error, without_nans
from .steps_per_gap import StepsPerGap

# Controllers that take the steps that they were told, whatever the error.
FIXED = (diffrax.ConstantStepSize, diffrax.StepTo, StepsPerGap)


def convert_controller(
    controller: Any, args: Args, error_order: Any, example: tuple, around: Callable | None = None
) -> tuple[Converted, list[Any], bool]:
    """The controller's rule (t0, t1, y0, y1, error, state) -> (accepted, t0, t1, made_jump, state,
    result) as a program, traced with an example of what it takes. `around` makes another of it.
    Last, whether it may say that the field has jumped: not if it always says Python's `False`.
    """
    judge, jumps = _as_it_is, []
    clips, pid = clips_around(controller)
    if isinstance(pid, diffrax.PIDController):
        # As in diffrax, tolerances and coefficients have no derivative.
        pid = _without_derivative(pid)
        pid = eqx.tree_at(lambda c: c.norm, pid, preferred(pid.norm))
        controller = _clipped_by(clips, pid)
        if all(map(_is_diffrax_own, [*clips, pid])) and pid.norm is rms_norm:
            judge = _by_one_number

    elif isinstance(pid, InUnits):
        controller = _clipped_by(clips, _without_derivative(pid))

    def adapt(t0: Time, t1: Time, y: State, y1: State, error: Any, state: Any) -> tuple:
        rule, y, y1, error = judge(controller, y, y1, error)
        rule = rule if around is None else around(rule)
        decided = rule.adapt_step_size(t0, t1, y, y1, args, error, error_order, state)
        jumps.append(decided[3] is not False)
        return jax.tree.map(jnp.asarray, decided)

    program, constants = convert(adapt, *example)
    return program, constants, jumps[-1]


def _as_it_is(controller: Any, y: State, y1: State, error: Any) -> tuple:
    return controller, y, *without_nans(y, y1, error)


def _by_one_number(controller: Any, y: State, y1: State, error: Any) -> tuple:
    """The rule for a state of one number, whose error is the scaled error.

    The root mean square hides nothing that is not finite, so states and errors need not be looked
    through, nor replaced: of a large state that is a seventh of all that a step reads and writes.
    """
    if error is None:
        return controller, y, y1, error
    clips, pid = clips_around(controller)
    scaled = scaled_error(pid.norm, error, y, y1, pid.rtol, pid.atol)
    parts = lambda c: (c.rtol, c.atol, c.norm)
    rule = _clipped_by(clips, eqx.tree_at(parts, pid, (0.0, 1.0, lambda x: x)))
    return rule, jnp.zeros_like(scaled), jnp.zeros_like(scaled), scaled


def clips_around(controller: Any) -> tuple[list[Any], Any]:
    """The clipping controllers, from the outermost, and the one whose steps they clip."""
    clips = []
    while isinstance(controller, diffrax.ClipStepSizeController):
        clips.append(controller)
        controller = controller.controller
    return clips, controller


def _clipped_by(clips: list[Any], controller: Any) -> Any:
    """The inverse of `clips_around`."""
    for clip in reversed(clips):
        controller = eqx.tree_at(lambda c: c.controller, clip, controller)
    return controller


def _is_diffrax_own(controller: Any) -> bool:
    """Whether a controller is of a class whose rule we know to the letter."""
    return type(controller) in (diffrax.PIDController, diffrax.ClipStepSizeController)


def is_diffrax_pid(controller: Any) -> bool:
    """Whether steps are chosen by diffrax's rule, whoever clips them."""
    return isinstance(clips_around(controller)[1], diffrax.PIDController | InUnits)


def tolerances_of(controller: Any, error_order: Any) -> tuple[Any, Any, Any]:
    """The (rtol, atol) of an adaptive controller, its norm, and the order that it takes errors to
    have.
    """
    _, controller = clips_around(controller)
    if not isinstance(controller, diffrax.AbstractAdaptiveStepSizeController):
        return (None, None), None, error_order
    own_order = getattr(controller, "error_order", None)
    tolerances = _without_derivative((controller.rtol, controller.atol))
    return tolerances, preferred(controller.norm), error_order if own_order is None else own_order


def frozen(x: Any) -> Any:
    """Arrays of which nothing is differentiated."""
    return lax.stop_gradient(jax.tree.map(jnp.asarray, x))


def _without_derivative(x: Any) -> Any:
    # Python numbers stay as they are: as arrays they would promote float32 to float64.
    arrays, rest = eqx.partition(x, eqx.is_array)
    return eqx.combine(lax.stop_gradient(arrays), rest)
