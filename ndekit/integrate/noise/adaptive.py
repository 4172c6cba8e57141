"""Adaptive steps along Brownian motion: a walk over halves of halves of a cell."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeGuard

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from diffrax import RESULTS
from jax import lax
from jaxtyping import Array, UInt32

from ... import tree
from ...shapes import Args, Flag, State, Time
from ..control.controllers import clips_around
from ..times import smallest_step_after, within
from .any_interval import DEPTH
from .of_step import Drawn, Noise, cell_after, part_length

Nodes = UInt32[Array, "..."]

# Parts that wait, at most. A solve that goes up again past as many levels draws its way anew.
ROOM = 8


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
    """The part that was tried last, what became of it, and the parts that were drawn on the way
    there and come later.
    """

    part: Part
    waiting: Waiting
    accepted: Flag
    longest: Time  # the next step: no longer than that


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
        """As of a diffrax controller, but for the end of the next step, which `onward` finds."""
        state, walk = controller_state
        part = walk.part
        keep, begin, end, jumped, own, result = self.controller.adapt_step_size(
            t0, t1, y0, y1, args, y_error, error_order, self.own_state(state)
        )
        state = eqx.tree_at(self.own_state, state, own)
        longest = jnp.where(keep, end - begin, jnp.minimum(end - begin, 0.75 * part.h))
        walk = Walk(part, walk.waiting, jnp.asarray(keep), longest)
        too_deep = ~keep & (part.level >= DEPTH)
        result = RESULTS.where(too_deep, RESULTS.dt_min_reached, result)
        t_after, jumps = self.noise.behind_jump(t1)
        t = jnp.where(keep, t_after, t0)
        jumped = jumped if jumps is None else jumped | (keep & jumps)
        return keep, t, t, jumped, (state, walk), result

    def own_state(self, state: Any) -> Any:
        """The state of `controller` in that of the clipping ones."""
        for _ in range(self.num_clips):
            state = state.inner_state
        return state


def walks(noise: Noise | None) -> TypeGuard[Noise]:
    """Whether steps are adaptive, and draw their noise themselves."""
    return noise is not None and noise.ends is not None


def walking(noise: Noise | None, controller: Any) -> tuple[Any, Callable | None]:
    """The controller that judges the steps, and what the noise makes of it; `None` if it leaves
    the steps to it.
    """
    if not walks(noise):
        return controller, None
    clips, inner = clips_around(controller)
    return inner, lambda controller: Walking(controller, noise, len(clips))


def first_walk(noise: Noise, t0: Time, t_next: Time) -> Walk:
    """A solve that would make its first step to `t_next`, as if a cell had just ended at `t0`."""
    t_next = within(t_next, smallest_step_after(t0), noise.ends[-1])
    top = jnp.uint32(0)
    nothing = lambda motion, key: tree.zeros_like(jax.eval_shape(motion.whole, key, t0))
    drawn = list(map(nothing, noise.motions, noise.keys))
    room = jax.tree.map(lambda x: jnp.zeros((ROOM, *x.shape), x.dtype), drawn)
    waiting = Waiting(jnp.zeros(ROOM, jnp.uint32), room)
    part = Part(t0, t0, noise.keys, top, top, drawn)
    return Walk(part, waiting, jnp.array(True), t_next - t0)


def onward(noise: Noise, t: Time, walk: Walk, goes_on: Flag) -> tuple[Walk, Time, Drawn]:
    """To the part that begins at `t`, the end of that step, and what it draws.

    After an accepted part it is the next one, as large as may be and no longer than asked for; else
    the left half, or a half of it. A lane that does not go on stays, and draws nothing.
    """
    part, accepted = walk.part, walk.accepted & goes_on
    # A part whose number ends in so many ones is the last of so many larger ones.
    ones = lax.population_count(part.index ^ (part.index + 1)) - 1
    leaves = accepted & (ones >= part.level)
    level = jnp.where(leaves, 0, part.level - ones)
    index = jnp.where(leaves, 0, (part.index >> ones) + 1)
    drawn, is_there = walk.waiting.of_level(level)
    start = jnp.where(leaves, t, part.start)
    after = Part(start, part.end, part.keys, level, index, drawn)
    near = tree.where(accepted, after, part)
    is_lost = accepted & ~is_there & ~leaves
    is_new = leaves | is_lost
    longest = jnp.where(goes_on, walk.longest, jnp.inf)
    if noise.spans is not None:
        # A run of cells that was given up is one of fewer cells, or the first of them.
        is_run = near.end > cell_after(noise.ends, near.start)[1]
        is_new = is_new | (goes_on & ~walk.accepted & is_run)

    def enter() -> tuple:
        start, end = cell_after(noise.ends, near.start)
        keys = [motion.cell_key(start) for motion in noise.motions]
        if noise.spans is None:
            return tree.where(is_new, (start, end, keys, near.drawn), stay())
        end, drawn = noise.spans.widest(start, longest, is_lost)
        return tree.where(is_new, (start, end, keys, drawn), stay())

    # The keys of a cell are computed where some lane enters one.
    stay = lambda: (near.start, near.end, near.keys, near.drawn)
    start, end, keys, drawn = lax.cond(eqxi.unvmap_any(is_new), enter, stay)
    at = Part(start, end, keys, jnp.where(is_new, 0, near.level), near.index, drawn)
    goal = jnp.maximum(near.level, _level_for(at, longest))
    to_draw = is_new if noise.spans is None else jnp.zeros_like(is_new)
    part, waiting = _down(noise, at, walk.waiting, to_draw, goal, near.index << (goal - near.level))
    length = part.end - part.start
    drawn = noise.with_halves(part.keys, length, part.level, part.index, part.drawn)
    drawn = tree.masked(goes_on, drawn)
    return Walk(part, waiting, walk.accepted, walk.longest), part.t_end, drawn


def _level_for(part: Part, longest: Time) -> Nodes:
    """The first level of a cell whose parts are no longer than that, or the last level."""
    halvings = jnp.asarray(0.5 ** np.arange(DEPTH), part.start.dtype)
    return jnp.sum((part.end - part.start) * halvings > longest, dtype=jnp.uint32)


def _down(
    noise: Noise, part: Part, waiting: Waiting, is_new: Flag, level: Nodes, index: Nodes
) -> tuple[Part, Waiting]:
    """From a part to part `index` of a deeper `level` within it; a new cell is drawn first."""
    goes_on = lambda loop: loop[2] | (loop[0].level < level)

    def turn(loop: tuple[Part, Waiting, Flag]) -> tuple[Part, Waiting, Flag]:
        part, waiting, is_new = loop
        below = jnp.where(is_new, 0, part.level + 1)
        above_goal = jnp.where(goes_on(loop), level - below, 0)
        at = index >> above_goal
        node = jnp.where(is_new, 0, (jnp.uint32(1) << part.level) | (at >> 1))
        steps = [
            motion.drawn_below(key, node, x, part.h)
            for motion, key, x in zip(noise.motions, part.keys, part.drawn, strict=True)
        ]
        cell, left, right = [list(each) for each in zip(*steps, strict=True)]
        is_right = (at & 1) == 1
        drawn = tree.where(is_new, cell, tree.where(is_right, right, left))
        inside = dataclasses.replace(part, level=below, index=at, drawn=drawn)
        waits = goes_on(loop) & ~is_new & ~is_right
        part = tree.where(goes_on(loop), inside, part)
        return part, waiting.with_part(below, right, waits), jnp.zeros_like(is_new)

    part, waiting, _ = lax.while_loop(goes_on, turn, (part, waiting, is_new))
    return part, waiting
