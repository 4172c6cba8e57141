"""The noise of a solve: what each step draws of the Brownian motions in its terms."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import diffrax
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import lax

from ..shapes import Count, Flag, Time
from .brownian import BrownianMotion
from .controllers import clips_around, frozen
from .converted import convert
from .given import Given
from .moving import FIXED
from .parts import Part

# So many are all looked at: a binary search is a loop.
_FEW_ENDS = 64
_FIRST = jax.ShapeDtypeStruct((), jnp.int32)  # the number of a step, for example
# For each motion what an interval draws; where steps are halved, the same of its halves as well.
Drawn = list[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Noise:
    """Where the noise of a step comes from.

    Attributes:
        motions: those in the terms, in the order of the tree.
        keys: of the motions, for a solve that begins where this one does.
        ends: of the cells, in growing time; `None` where each step is one.
        direction: -1 where the solve runs backwards in the user's time.
        halved: whether a step asks for its halves.
        jumps: the times just before and just behind each jump of the field: there steps end and
            begin, and what would happen between is left out. `None` if there are none.
    """

    motions: list[BrownianMotion]
    keys: list[Any]
    ends: Any
    direction: Any
    halved: bool
    jumps: tuple[Any, Any] | None = None

    def of_step(self, t0: Time, t1: Time, number: Count) -> Drawn:
        """What step `number` draws, whenever it is asked for."""
        keys, length, level, index = self.place(t0, t1, number)
        draw = lambda motion, key: motion.part(key, length, level, index)
        if self.ends is None:
            draw = lambda motion, key: motion.whole(key, length)
        x = list(map(draw, self.motions, keys))
        return self.with_halves(keys, length, level, index, x)

    def with_halves(self, keys: list[Any], length: Time, level: Any, index: Any, x: Drawn) -> Drawn:
        """What part `index`, of 2^`level`, of a cell draws, with its halves if they are wanted."""
        if not self.halved:
            return x
        node, h = (jnp.uint32(1) << level) | index, part_length(length, level)
        return [
            (leaf, *motion.halves(key, node, leaf, h))
            for motion, key, leaf in zip(self.motions, keys, x, strict=True)
        ]

    def place(self, t0: Time, t1: Time, number: Count) -> tuple[list[Any], Time, Any, Any]:
        """The cell of a step: its keys, its length; and which of its 2^level parts the step is."""
        if self.ends is None:
            # By its number: times that are sums of steps are rounded by each program as it likes.
            keys = [jr.fold_in(key, number) for key in self.keys]
            return keys, t1 - t0, jnp.uint32(0), jnp.uint32(0)
        start, end = cell_after(self.ends, t0)
        # A lane that has finished makes steps of no length, in no cell.
        inside = (t1 > t0) & (end > start)
        length, h = jnp.where(inside, end - start, 1), jnp.where(inside, t1 - t0, 1)
        level = jnp.round(jnp.log2(length / h)).astype(jnp.uint32)
        # By the length that the part should have: that of the step has been rounded.
        index = jnp.where(inside, jnp.round((t0 - start) / part_length(length, level)), 0)
        keys = [motion.cell_key(start) for motion in self.motions]
        return keys, end - start, level, index.astype(jnp.uint32)

    def behind_jump(self, t: Time) -> tuple[Time, Flag | None]:
        """Where the step begins that follows one to `t`, and whether the field jumps there; `None`
        if it never does.
        """
        if self.jumps is None:
            return t, None
        before, behind = self.jumps
        is_before = t == before
        start = jnp.max(jnp.where(is_before, behind, t))
        return start, jnp.any(is_before | (t == behind))

    def on_paths(self, terms: Any, t0: Time, t1: Time, drawn: Drawn) -> Any:
        """The terms, their motions replaced by what this step has drawn."""
        of_motions, known = iter(drawn), cast(Any, _Drawn)
        ends = (t0 * self.direction.astype(t0.dtype), t1 * self.direction.astype(t1.dtype))
        place = lambda x: known(x, ends, next(of_motions)) if is_motion(x) else x
        return jax.tree.map(place, terms, is_leaf=is_motion)


def is_motion(x: Any) -> bool:
    return isinstance(x, BrownianMotion)


def noise_of(given: Given) -> Noise | None:
    """The noise of a solve whose steps draw it themselves; `None` if paths are to be evaluated.

    That is so without a `BrownianMotion` or with one whose cells the user gave, for solvers that
    may look at parts of a step, and for a user's own controllers.
    """
    motions = [x for x in jax.tree.leaves(given.terms, is_leaf=is_motion) if is_motion(x)]
    if not motions or any(motion.ts is not None for motion in motions):
        return None
    if not _draws_whole_steps(given.solver):
        return None
    directions = [
        term.direction
        for term in jax.tree.leaves(given.terms, is_leaf=lambda x: hasattr(x, "direction"))
        if hasattr(term, "direction")
    ]
    halved = isinstance(given.solver, diffrax.HalfSolver)
    keys = [motion.cell_key(lax.stop_gradient(given.t0)) for motion in motions]
    ends, jumps = None, None
    clips, controller = clips_around(given.stepsize_controller)
    if type(controller) is diffrax.PIDController and all(map(_clips_alone, clips)):
        ends, jumps = _cells(given, clips)
    elif type(controller) not in FIXED:
        return None
    return Noise(motions, keys, ends, jnp.asarray(directions[0]), halved, jumps)


def _clips_alone(clip: Any) -> bool:
    """Whether a clipping controller is diffrax's, and nobody listens to it."""
    return type(clip) is diffrax.ClipStepSizeController and clip.callback_on_reject is None


def _cells(given: Given, clips: list[Any]) -> tuple[Any, Any]:
    """The ends of the cells of an adaptive solve, and where its field jumps."""
    t0, t1 = given.t0, given.t1
    as_times = lambda ts: lax.stop_gradient(jnp.ravel(ts).astype(t0.dtype))
    stops = [t0, t1, *(sub.ts for sub in given.subs), *(clip.step_ts for clip in clips)]
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


def cell_after(ends: Any, t: Time) -> tuple[Time, Time]:
    """The cell that begins at `t` or holds it; of no length at the end of all."""
    if ends.shape[0] <= _FEW_ENDS:
        index = jnp.sum(ends <= t)
    else:
        index = jnp.searchsorted(ends, t, side="right")
    last = ends.shape[0] - 1
    return ends[jnp.maximum(index - 1, 0)], ends[jnp.minimum(index, last)]


def part_length(length: Time, level: Any) -> Time:
    """Of the 2^`level` parts of a cell. The power as a whole number: XLA's `exp2` is off by a bit
    now and then.
    """
    return length / (jnp.uint32(1) << level).astype(length.dtype)


class _Drawn(diffrax.AbstractBrownianPath):
    """A motion during one step, of which the increments are known."""

    motion: BrownianMotion
    ends: tuple[Time, Time]  # in the user's time
    drawn: Any

    @property
    def levy_area(self) -> Any:  # pyright: ignore
        return self.motion.levy_area

    @property
    def t0(self) -> Any:
        return self.ends[0]

    @property
    def t1(self) -> Any:
        return self.ends[1]

    def evaluate(
        self, t0: Time, t1: Time | None = None, left: bool = True, use_levy: bool = False
    ) -> Any:
        assert t1 is not None  # solvers ask for increments
        if isinstance(self.drawn, tuple):
            whole, first, second = self.drawn
            start, end = self.ends
            # The first half in the solve's time, whichever way that runs.
            in_first = jnp.abs(t0 + t1 - 2 * start) < jnp.abs(t0 + t1 - 2 * end)
            is_whole = jnp.abs(t1 - t0) > 0.75 * jnp.abs(end - start)
            choose = lambda w, a, b: jnp.where(is_whole, w, jnp.where(in_first, a, b))
            x = list(map(choose, whole, first, second))
        else:
            x = self.drawn
        sign = jnp.where(t1 < t0, -1, 1)
        x = [sign.astype(leaf.dtype) * leaf for leaf in x]
        return self.motion.dressed(x, t1 - t0, use_levy)
