"""Adaptive steps along Brownian motion: a walk over halves of halves of a cell."""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from diffrax import RESULTS
from jax import lax
from jaxtyping import Array, UInt32

from .. import tree
from ..shapes import Args, Flag, State, Time
from .attempt import smallest_step_after, within
from .brownian import DEPTH
from .controllers import clips_around
from .noise import Drawn, Noise, cell_after, part_length

Nodes = UInt32[Array, "..."]

# Parts that wait, at most. A solve that goes up again past as many levels draws its way anew.
ROOM = 8
# Halvings that are drawn at once where a solve begins, on the way from its cell to its first step.
AT_ONCE = 4


class Part(eqx.Module):
    """Part `index` of the 2^`level` parts of the cell from `start` to `end`.

    `keys` are the cell's, of each motion; `drawn` is what the part draws.
    """

    start: Time
    end: Time
    keys: list[Any]
    level: Nodes
    index: Nodes
    drawn: Drawn

    @property
    def h(self) -> Time:
        return part_length(self.end - self.start, self.level)

    @property
    def t_end(self) -> Time:
        last = self.index + 1 == (1 << self.level)
        inside = self.start + self.h * (self.index + 1).astype(self.start.dtype)
        return jnp.where(last, self.end, inside)


class Waiting(eqx.Module):
    """What parts to the right draw, those that are not halves of one another.

    A part of level l is in row l modulo `ROOM`, with its level, until another one needs the row.
    """

    levels: UInt32[Array, " ROOM"]
    drawn: Drawn

    def of_level(self, level: Nodes) -> tuple[Drawn, Flag]:
        row = level % ROOM
        return jax.tree.map(lambda x: x[row], self.drawn), self.levels[row] == level

    def with_part(self, level: Nodes, drawn: Drawn, if_so: Flag) -> "Waiting":
        here = (jnp.arange(ROOM, dtype=jnp.uint32) == level % ROOM) & if_so
        put = lambda room, x: tree.where(here, x[None], room)
        return Waiting(jnp.where(here, level, self.levels), jax.tree.map(put, self.drawn, drawn))


class Walk(eqx.Module):
    """Where the walk is, and the parts that it has drawn on its way and comes to later."""

    part: Part
    waiting: Waiting
    for_step: Drawn  # what the dynamics take of the part


@dataclasses.dataclass(frozen=True, eq=False)
class Walking:
    """A controller whose steps are the parts that the walk comes to: it says which are too long.

    A rejected part is halved; so is one longer than the step that the controller would take. After
    an accepted one comes the largest that begins there, so steps grow again by themselves.
    """

    controller: diffrax.PIDController
    noise: Noise
    num_clips: int = 0  # clipping controllers around it: they have nothing to clip here

    def adapt_step_size(
        self, t0: Time, t1: Time, y0: State, y1: State, args: Args, y_error: Any,
        error_order: Any, controller_state: Any,
    ) -> tuple:  # fmt: skip
        state, walk = controller_state
        part = walk.part
        keep, begin, end, jumped, own, result = self.controller.adapt_step_size(
            t0, t1, y0, y1, args, y_error, error_order, self.own_state(state)
        )
        state = eqx.tree_at(self.own_state, state, own)
        longest = jnp.where(keep, end - begin, jnp.minimum(end - begin, 0.75 * part.h))
        # A lane that has finished or failed makes steps of no length, and stays where it is.
        tried = t1 > t0
        longest = jnp.where(tried, longest, jnp.inf)
        t_after, jumps = self.noise.behind_jump(t1)
        after = _onward(self.noise, walk, keep & tried, t_after, longest)
        too_deep = ~keep & tried & (part.level >= DEPTH)
        result = RESULTS.where(too_deep, RESULTS.dt_min_reached, result)
        t, jumped = jnp.where(keep, t_after, t0), jumped | (keep & jumps)
        return keep, t, after.part.t_end, jumped, (state, after), result

    def own_state(self, state: Any) -> Any:
        """The state of `controller` in that of the clipping ones."""
        for _ in range(self.num_clips):
            state = state.inner_state
        return state


def walking(noise: Noise | None, controller: Any) -> tuple[Any, Callable | None]:
    """The controller that judges the steps, and what the noise makes of it; `None` if it leaves
    the steps to it.
    """
    if noise is None or noise.ends is None:
        return controller, None
    clips, inner = clips_around(controller)
    return inner, lambda controller: Walking(controller, noise, len(clips))


def first_walk(noise: Noise, t0: Time, t_next: Time) -> Walk:
    """Where the walk begins, in a solve that would make its first step to `t_next`."""
    t_next = within(t_next, smallest_step_after(t0), noise.ends[-1])
    start, end = cell_after(noise.ends, t0)
    part = _whole(noise, start, end, [motion.cell_key(start) for motion in noise.motions])
    room = jax.tree.map(lambda x: jnp.zeros((ROOM, *x.shape), x.dtype), part.drawn)
    waiting = Waiting(jnp.zeros(ROOM, jnp.uint32), room)
    return _down(noise, part, waiting, _level_for(part, t_next - t0), jnp.uint32(0), AT_ONCE)


def _onward(noise: Noise, walk: Walk, accepted: Flag, t_after: Time, longest: Time) -> Walk:
    """To the part after this one, at `t_after`, if it was accepted, as large as may be, and no
    longer than `longest`; else to the left half, or a half of it.
    """
    part = walk.part
    # A part whose number ends in so many ones is the last of so many larger ones.
    ones = lax.population_count(part.index ^ (part.index + 1)) - 1
    leaves = accepted & (ones >= part.level)
    level = jnp.where(leaves, 0, part.level - ones)
    index = jnp.where(leaves, 0, (part.index >> ones) + 1)
    drawn, is_there = walk.waiting.of_level(level)
    # At the end of all there is a cell of no length, in which nothing happens.
    start = jnp.where(leaves, t_after, part.start)
    drawn = tree.where(leaves, tree.zeros_like(drawn), drawn)
    after = Part(start, part.end, part.keys, level, index, drawn)
    from_above = jnp.where(leaves, part.end < noise.ends[-1], accepted & ~is_there)

    def enter() -> Part:
        start, end = cell_after(noise.ends, after.start)
        keys = [motion.cell_key(start) for motion in noise.motions]
        return tree.where(from_above, _whole(noise, start, end, keys), near)

    near = tree.where(accepted, after, part)
    # A cell is drawn where some lane enters one.
    at = lax.cond(eqxi.unvmap_any(from_above), enter, lambda: near)
    goal = jnp.maximum(near.level, _level_for(at, longest))
    return _down(noise, at, walk.waiting, goal, near.index << (goal - near.level), 1)


def _whole(noise: Noise, start: Time, end: Time, keys: list[Any]) -> Part:
    drawn = [
        motion.whole(key, end - start) for motion, key in zip(noise.motions, keys, strict=True)
    ]
    return Part(start, end, keys, jnp.uint32(0), jnp.uint32(0), drawn)


def _level_for(part: Part, longest: Time) -> Nodes:
    """The first level of a cell whose parts are no longer than that, or the last level."""
    halvings = jnp.asarray(0.5 ** np.arange(DEPTH), part.start.dtype)
    return jnp.sum((part.end - part.start) * halvings > longest, dtype=jnp.uint32)


def _down(
    noise: Noise, part: Part, waiting: Waiting, level: Nodes, index: Nodes, at_once: int
) -> Walk:
    """From a part to part `index` of a deeper `level` within it, `at_once` halvings a turn."""

    def halve(part: Part, waiting: Waiting, normals: list[Any]) -> tuple[Part, Waiting]:
        goes_on = part.level < level
        pairs = [
            motion.split(normal, x, part.h)
            for motion, normal, x in zip(noise.motions, normals, part.drawn, strict=True)
        ]
        left, right = [list(half) for half in zip(*pairs, strict=True)]
        below = part.level + 1
        at = index >> jnp.where(goes_on, level - below, 0)
        is_right = (at & 1) == 1
        drawn = tree.where(is_right, right, left)
        inside = dataclasses.replace(part, level=below, index=at, drawn=drawn)
        waiting = waiting.with_part(below, right, goes_on & ~is_right)
        return tree.where(goes_on, inside, part), waiting

    def turn(loop: tuple[Part, Waiting]) -> tuple[Part, Waiting]:
        part, waiting = loop
        levels = part.level + jnp.arange(at_once, dtype=jnp.uint32)
        nodes = (jnp.uint32(1) << levels) | (index >> jnp.where(levels < level, level - levels, 0))
        normals = [
            motion.normals_of(key, nodes)
            for motion, key in zip(noise.motions, part.keys, strict=True)
        ]
        for i in range(at_once):
            part, waiting = halve(part, waiting, jax.tree.map(lambda x, i=i: x[i], normals))
        return part, waiting

    goes_on = lambda loop: loop[0].level < level
    part, waiting = lax.while_loop(goes_on, turn, (part, waiting))
    length = part.end - part.start
    drawn = noise.with_halves(part.keys, length, part.level, part.index, part.drawn)
    return Walk(part, waiting, drawn)
