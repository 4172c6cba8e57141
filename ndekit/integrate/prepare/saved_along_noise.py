"""Values at saved times along noise: at the ends of steps, or on the bridge between them."""

import functools
from collections.abc import Callable
from typing import Any

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
from ..noise.of_step import Noise, is_motion
from ..programs.closure_convert import convert
from .loop_inputs import LoopInputs
from .parts import Part
from .step_noise import saves_on_bridge

_DIFFUSIONS = (diffrax.ControlTerm, diffrax.UnderdampedLangevinDiffusionTerm)


def saved_part(given: LoopInputs, noise: Noise | None) -> Part:
    """How values at `ts` come from the steps of adaptive noise."""
    numbers = [len(sub.ts) for sub in given.subs if sub.ts is not None]
    if saves_on_bridge(given):
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
    r"""The line between the ends of a step, and off it what the noise does,
    $G(w_s) - \theta G(w_h)$.

    $G(w) = \tfrac12 (g(y_0) + g(y_0 + g(y_0) w)) w$ is what the diffusion makes of a motion by $w$
    up to $h^{3/2}$, but for what follows from an area between two motions. What else there is up
    to $h$, the drift and Ito's correction, grows with time as the line does.
    """

    def value(t0: Time, t1: Time, inside: dict[str, Any], t: Time) -> State:
        t0, t1, begin, t = map(lax.stop_gradient, (t0, t1, inside["t0"], t))
        y0, y1 = inside["y0"], inside["y1"]

        def by_noise(end: Time) -> State:
            w = noise.spans.moved(t0, end)
            terms = _diffusions(noise.on_paths(given.terms, t0, t1, w), given.terms)
            of = lambda term, y: term.vf_prod(begin, y, given.args, term.contr(t0, t1))
            moves = lambda y: functools.reduce(tree.add, [of(term, y) for term in terms])
            first = moves(y0)
            return tree.multiply(0.5, tree.add(first, moves(tree.add(y0, first))))

        part = (t - t0) / jnp.where(t1 > t0, t1 - t0, 1)
        along = lambda a, b, c, d: (a + part.astype(a.dtype) * (b - a - d) + c).astype(a.dtype)
        y = jax.tree.map(along, y0, y1, by_noise(t), by_noise(t1))
        return tree.where(t >= t1, y1, tree.where(t <= t0, y0, y))

    return value


def _diffusions(terms: Any, like: Any) -> list[Any]:
    """Those of `terms` in which `like` has a motion."""
    parts = lambda terms: terms.terms if isinstance(terms, diffrax.MultiTerm) else (terms,)
    has_motion = lambda term: any(map(is_motion, jax.tree.leaves(term, is_leaf=is_motion)))
    return [a for a, b in zip(parts(terms), parts(like), strict=True) if has_motion(b)]


def _refuse_without_bridge(given: LoopInputs, noise: Noise | None) -> None:
    motions = [m for m in jax.tree.leaves(given.terms, is_leaf=is_motion) if is_motion(m)]
    inner = lambda term: getattr(term, "term", term)
    kinds = {type(inner(term)) for term in _diffusions(given.terms, given.terms)}
    reasons = {
        "adaptive steps of `diffrax.PIDController`": not walks(noise)
        and (noise is not None or all(motion.ts is None for motion in motions)),
        "a motion without `ts`": noise is None,
        "a controller that no `ClipStepSizeController` is around": bool(
            clips_around(given.stepsize_controller)[0]
        ),
        "a solver other than `HalfSolver`": noise is not None and noise.halved,
        "a solve without an event": given.event is not None,
        "`SaveAt` without `dense=True`": given.saveat.dense,
        "`saved='bridge'` for every motion of a solve": any(m.saved != "bridge" for m in motions),
        "noise in a `ControlTerm` of its own": not kinds <= set(_DIFFUSIONS),
    }
    refuse_bridge([reason for reason, missing in reasons.items() if missing])


def refuse_bridge(missing: list[str]) -> None:
    """`missing`: what a solve does not have."""
    if missing:
        raise ValueError(
            f"`BrownianMotion(saved='bridge')` needs {missing[0]}. Use `saved='ends'`, or leave out "
            "what it cannot be combined with."
        )
