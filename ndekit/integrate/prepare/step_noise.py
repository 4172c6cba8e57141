"""What a solve asks of the Brownian motions in its terms, and how a problem draws it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import diffrax
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jax import lax

from ...shapes import Time
from ..control.controllers import FIXED, clips_around, frozen
from ..noise.adaptive import onward, walks
from ..noise.of_step import Noise, motions_in
from ..noise.spans import spans_of
from ..programs.closure_convert import convert
from .loop_inputs import LoopInputs, subs_of
from .parts import Part

_FIRST = jax.ShapeDtypeStruct((), jnp.int32)  # the number of a step, for example


def noise_of(given: LoopInputs) -> Noise | None:
    """The noise of a solve whose steps draw it themselves; `None` if paths are to be evaluated.

    That is so without a `BrownianMotion` or with one whose cells the user gave, for solvers that
    may look at parts of a step, and for a user's own controllers.
    """
    motions = motions_in(given.terms)
    if not motions or any(motion.ts is not None for motion in motions):
        return None
    if not _draws_whole_steps(given.solver):
        return None
    halved = isinstance(given.solver, diffrax.HalfSolver)
    keys = [motion.cell_key(lax.stop_gradient(given.t0)) for motion in motions]
    ends, jumps, spans = None, None, None
    clips, controller = clips_around(given.stepsize_controller)
    if type(controller) is diffrax.PIDController and all(map(_clips_alone, clips)):
        ends, jumps = _cells(given, clips)
        if saves_on_bridge(given.terms, given.saveat) and not clips and given.resets is None:
            spans = spans_of(motions, ends)
    elif type(controller) not in FIXED:
        return None
    return Noise(motions, keys, ends, given.direction, halved, jumps, spans)


def saves_on_bridge(terms: Any, saveat: diffrax.SaveAt) -> bool:
    """Whether there are saved times that need not be ends of steps."""
    at_ts = any(len(sub.ts) > 0 for sub in subs_of(saveat) if sub.ts is not None)
    return at_ts and any(motion.saved == "bridge" for motion in motions_in(terms))


def _clips_alone(clip: Any) -> bool:
    """Whether a clipping controller is diffrax's, and nobody listens to it."""
    return type(clip) is diffrax.ClipStepSizeController and clip.callback_on_reject is None


def _cells(given: LoopInputs, clips: list[Any]) -> tuple[Any, Any]:
    """The ends of the cells of an adaptive solve, and where its field jumps."""
    t0, t1 = given.t0, given.t1
    as_times = lambda ts: lax.stop_gradient(jnp.ravel(ts).astype(t0.dtype))
    stops = [t0, t1, *(sub.ts for sub in given.subs), *(clip.step_ts for clip in clips)]
    stops.append(given.reset_ts)
    times = [as_times(ts) for ts in stops if ts is not None]
    given_jumps = [as_times(clip.jump_ts) for clip in clips if clip.jump_ts is not None]
    jumps = None
    if sum(ts.size for ts in given_jumps):
        jump_ts = jnp.concatenate(given_jumps)
        jumps = (eqxi.prevbefore(jump_ts), eqxi.nextafter(jump_ts))
        # At `t0` a field has jumped already; to `t1` steps go whatever is there, as in diffrax.
        inside = (jump_ts > t0) & (jump_ts < t1)
        times += [jnp.where(inside, ts, t0) for ts in jumps]
    return jnp.sort(jnp.clip(jnp.concatenate(times), *map(lax.stop_gradient, (t0, t1)))), jumps


def on_drawn(noise: Noise | None, terms: Any, step_by: Callable, t: Time) -> tuple[Callable, tuple]:
    """`step_by(terms)`, a function of a step's ends and more, as one that takes what the step draws
    as its last argument; and an example of that.
    """
    if noise is None:
        return step_by(terms), ()

    def step(t0: Time, t1: Time, *rest: Any) -> Any:
        *given, drawn = rest
        return step_by(noise.on_paths(terms, t0, t1, drawn))(t0, t1, *given)

    return step, (jax.eval_shape(noise.of_step, t, t, _FIRST),)


def noise_part(noise: Noise | None, t: Time) -> Part:
    """What a problem has to know of its noise."""
    if noise is None:
        return Part({}, {})
    program, constants = convert(noise.of_step, t, t, _FIRST)
    return Part(dict(noise=program), dict(noise=frozen(constants)))


def walk_part(noise: Noise | None, t: Time, memory: Any) -> Part:
    """How a problem walks; `memory` is what its controller remembers."""
    if not walks(noise):
        return Part({}, {})
    program, constants = convert(partial(onward, noise), t, memory[1], jnp.array(True))
    return Part(dict(walk=program), dict(walk=frozen(constants)))


def _draws_whole_steps(solver: Any) -> bool:
    """Whether a solver asks a path for its whole step, and for the halves if it is a `HalfSolver`.

    A user's own may ask for anything; it is given the path itself.
    """
    if isinstance(solver, diffrax.LeapfrogMidpoint):
        return False
    inner = getattr(solver, "solver", None)
    return is_known(solver) and (inner is None or _draws_whole_steps(inner))


def is_known(solver: Any) -> bool:
    """Whether a solver is diffrax's or ours."""
    return type(solver).__module__.split(".")[0] in ("diffrax", "ndekit")
