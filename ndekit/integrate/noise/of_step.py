"""The noise of a solve: what each step draws of the Brownian motions in its terms."""

import dataclasses
from typing import Any, cast

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr

from ... import tree
from ...shapes import Count, Flag, Time
from .brownian import BrownianMotion
from .spans import Spans, cell_of

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
        spans: what steps over several cells draw, where there may be such steps.
    """

    motions: list[BrownianMotion]
    keys: list[Any]
    ends: Any
    direction: Any
    halved: bool
    jumps: tuple[Any, Any] | None = None
    spans: Spans | None = None

    def of_step(self, t0: Time, t1: Time, number: Count) -> Drawn:
        """What step `number` draws, whenever it is asked for."""
        keys, length, level, index = self.place(t0, t1, number)
        draw = lambda motion, key: motion.part(key, length, level, index)
        if self.ends is None:
            draw = lambda motion, key: motion.whole(key, length)
        x = list(map(draw, self.motions, keys))
        if self.spans is not None:
            return tree.where(*self.spans.between(t0, t1), x)
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


def motions_in(terms: Any) -> list[BrownianMotion]:
    """Those in terms, in the order of the tree."""
    return [x for x in jax.tree.leaves(terms, is_leaf=is_motion) if is_motion(x)]


def cell_after(ends: Any, t: Time) -> tuple[Time, Time]:
    """The cell that begins at `t` or holds it; of no length at the end of all."""
    cell = cell_of(ends, t)
    return ends[cell], ends[jnp.minimum(cell + 1, ends.shape[0] - 1)]


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
