"""Values at saved times along noise: at the ends of steps, or on the bridge between them."""

from collections.abc import Callable
from typing import Any, NoReturn

import diffrax
import jax
import jax.numpy as jnp
from jax import lax

from ... import tree
from ...shapes import State, Time
from ..control.controllers import clips_around
from ..forward.problem import Between
from ..forward.saving import BLOCK
from ..noise.adaptive import walks
from ..noise.of_step import Noise, motions_in
from ..programs.closure_convert import convert
from .loop_inputs import LoopInputs
from .parts import Part
from .step_noise import saves_on_bridge

_DIFFUSIONS = (diffrax.ControlTerm, diffrax.UnderdampedLangevinDiffusionTerm)


def saved_part(given: LoopInputs, noise: Noise | None) -> Part:
    """How values at `ts` come from the steps of adaptive noise."""
    numbers = [len(sub.ts) for sub in given.subs if sub.ts is not None]
    if saves_on_bridge(given.terms, given.saveat):
        _refuse_without_bridge(given, noise)
        # Steps may be longer than the times are apart: several are in one.
        return _between(given, _on_bridge(given, noise), BLOCK, 0)
    if not walks(noise) or not sum(numbers) or given.saveat.dense or given.event is not None:
        return Part({}, {})
    return _between(given, _at_ends, 1, max(numbers))


def _between(given: LoopInputs, value: Callable, block: int, sure_steps: int) -> Part:
    t, y = given.t0, given.state0.y
    program, constants = convert(value, t, t, {"t0": t, "y0": y, "y1": y}, t)
    return Part(dict(between=Between(program, block, sure_steps)), dict(between=constants))


def _at_ends(t0: Time, t1: Time, inside: dict[str, Any], t: Time) -> State:
    """Not interpolated: a cell ends at `t`. Only `t0` of a solve, and times at which the field
    jumps, lie before the step.
    """
    return tree.where(t > t0, inside["y1"], inside["y0"])


def _on_bridge(given: LoopInputs, noise: Any) -> Callable:
    """The line between the ends of a step, and as far off it as the diffusion at its start takes
    the motion that is off its own line.
    """

    def value(t0: Time, t1: Time, inside: dict[str, Any], t: Time) -> State:
        t0, t1, begin, t = map(lax.stop_gradient, (t0, t1, inside["t0"], t))
        y0, y1 = inside["y0"], inside["y1"]
        off = noise.spans.off_the_line(t0, t1, t)
        part = (t - t0) / jnp.where(t1 > t0, t1 - t0, 1)
        y = jax.tree.map(lambda a, b: a + part.astype(a.dtype) * (b - a), y0, y1)
        for term in _diffusions(noise.on_paths(given.terms, t0, t1, off), given.terms):
            moved = term.vf_prod(begin, y0, given.args, term.contr(t0, t1))
            y = jax.tree.map(lambda a, b: a + b.astype(a.dtype), y, moved)
        return tree.where(t >= t1, y1, tree.where(t <= t0, y0, y))

    return value


def _diffusions(terms: Any, like: Any) -> list[Any]:
    """Those of `terms` in which `like` has a motion."""
    parts = lambda terms: terms.terms if isinstance(terms, diffrax.MultiTerm) else (terms,)
    return [a for a, b in zip(parts(terms), parts(like), strict=True) if motions_in(b)]


def _refuse_without_bridge(given: LoopInputs, noise: Noise | None) -> None:
    """Say what a solve lacks whose values cannot lie on the bridge."""
    motions = motions_in(given.terms)
    if any(motion.saved != "bridge" for motion in motions):
        refuse_bridge("it for every motion of a solve")
    if any(motion.ts is not None for motion in motions):
        refuse_bridge("a motion without `ts`")
    if clips_around(given.stepsize_controller)[0]:
        refuse_bridge("a controller without `ClipStepSizeController` around it")
    if given.resets is not None:
        refuse_bridge("a solve without `resets`")
    if not walks(noise):
        refuse_bridge("adaptive steps, by `PIDController` and a solver of diffrax or ndekit")
    if noise is not None and noise.halved:
        refuse_bridge("a solver other than `HalfSolver`")
    if given.event is not None or given.saveat.dense:
        refuse_bridge("a solve without an event and without `SaveAt(dense=True)`")
    kinds = {type(getattr(term, "term", term)) for term in _diffusions(given.terms, given.terms)}
    if not kinds <= set(_DIFFUSIONS):
        refuse_bridge("its motion in a `ControlTerm`")


def refuse_bridge(wanted: str) -> NoReturn:
    raise ValueError(f'`BrownianMotion(saved="bridge")` needs {wanted}. Or use `saved="ends"`.')
