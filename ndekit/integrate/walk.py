"""Adaptive steps along Brownian motion: a walk over halves of halves of a cell."""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from diffrax import RESULTS
from jax import lax
from jaxtyping import Array, UInt32

from .. import tree
from ..shapes import Args, Flag, State, Time
from .brownian import DEPTH
from .noise import Drawn, Noise, cell_after

Nodes = UInt32[Array, "..."]


class Walk(eqx.Module):
    """Where the walk is: at part `index` of the 2^`level` parts of the cell from `start` to `end`.

    The parts to the right of it, those that are not halves of one another, wait in `waiting`, one
    at most of each level.
    """

    start: Time
    end: Time
    level: Nodes
    index: Nodes
    drawn: Drawn
    waiting: Drawn
    halves: Drawn | None = None  # of what is drawn, where a step wants them

    @property
    def for_step(self) -> Drawn:
        """What the dynamics take."""
        if self.halves is None:
            return self.drawn
        return [(x, *halves) for x, halves in zip(self.drawn, self.halves, strict=True)]

    @property
    def h(self) -> Time:
        return (self.end - self.start) * jnp.exp2(-self.level.astype(self.start.dtype))

    @property
    def t(self) -> Time:
        return self.start + self.h * self.index.astype(self.start.dtype)

    @property
    def t_end(self) -> Time:
        last = self.index + 1 == (1 << self.level)
        inside = self.start + self.h * (self.index + 1).astype(self.start.dtype)
        return jnp.where(last, self.end, inside)


@dataclasses.dataclass(frozen=True, eq=False)
class Walking:
    """A controller whose steps are the parts that the walk comes to: it says which are too long.

    A rejected part is halved; so is one longer than the step that the controller would take. After
    an accepted one comes the largest that begins there, so steps grow again by themselves.
    """

    controller: diffrax.PIDController
    noise: Noise

    def adapt_step_size(
        self, t0: Time, t1: Time, y0: State, y1: State, args: Args, y_error: Any,
        error_order: Any, controller_state: Any,
    ) -> tuple:  # fmt: skip
        state, walk = controller_state
        walk = dataclasses.replace(walk, halves=None)
        keep, start, end, jump, state, result = self.controller.adapt_step_size(
            t0, t1, y0, y1, args, y_error, error_order, state
        )
        after = _onward(self.noise, walk, jnp.asarray(keep))
        limit = jnp.where(keep, end - start, jnp.minimum(end - start, 0.75 * walk.h))
        after = _shortened(self.noise, after, limit)
        too_deep = ~keep & (walk.level >= DEPTH)
        result = RESULTS.where(too_deep, RESULTS.dt_min_reached, result)
        t = jnp.where(keep, t1, t0)
        return keep, t, after.t_end, jump, (state, _dressed(self.noise, after)), result


def walking(noise: Noise | None) -> Callable | None:
    """What the noise makes of a controller; `None` if it leaves the steps to it."""
    if noise is None or noise.ends is None:
        return None
    return lambda controller: Walking(controller, noise)


def first_walk(noise: Noise, t0: Time, t_next: Time) -> Walk:
    """Where the walk begins, in a solve that would make its first step to `t_next`."""
    walk = _shortened(noise, _enter(noise, t0, None), t_next - t0)
    return _dressed(noise, walk)


def _dressed(noise: Noise, walk: Walk) -> Walk:
    if not noise.halved:
        return walk
    with_halves = noise.with_halves(walk.t, walk.t_end, walk.level, walk.drawn)
    return dataclasses.replace(walk, halves=[tuple(both) for _, *both in with_halves])


def _enter(noise: Noise, t: Time, waiting: Drawn | None) -> Walk:
    """The whole of the cell that begins at `t`."""
    start, end = cell_after(noise.ends, t)
    drawn = [motion.whole(motion.cell_key(start), end - start) for motion in noise.motions]
    room = waiting
    if room is None:
        room = jax.tree.map(lambda x: jnp.zeros((DEPTH + 1, *x.shape), x.dtype), drawn)
    return Walk(start, end, jnp.uint32(0), jnp.uint32(0), drawn, room)


def _onward(noise: Noise, walk: Walk, accepted: Flag) -> Walk:
    """The largest part after this one if it was accepted, or the next cell."""
    # A part whose number ends in so many ones is the last of so many larger ones.
    ones = lax.population_count(walk.index ^ (walk.index + 1)) - 1
    leaves = ones >= walk.level
    level = jnp.where(leaves, 0, walk.level - ones)
    index = (walk.index >> ones) + 1
    drawn = jax.tree.map(lambda x: x[level], walk.waiting)
    inside = Walk(walk.start, walk.end, level, index, drawn, walk.waiting)
    inside, leaves = tree.where(accepted, inside, walk), accepted & leaves
    enter = lambda: tree.where(leaves, _enter(noise, walk.end, walk.waiting), inside)
    # A cell is drawn where some lane comes to its end.
    return lax.cond(eqxi.unvmap_any(leaves), enter, lambda: inside)


def _shortened(noise: Noise, walk: Walk, longest: Time) -> Walk:
    """Halved, and its left half, until it is no longer than that."""
    keys = [motion.cell_key(walk.start) for motion in noise.motions]

    def halve(walk: Walk) -> Walk:
        node = (jnp.uint32(1) << walk.level) | walk.index
        pairs = [
            motion.halves(key, node, x, walk.h)
            for motion, key, x in zip(noise.motions, keys, walk.drawn, strict=True)
        ]
        level = walk.level + 1
        put = lambda room, x: room.at[level].set(x)
        waiting = jax.tree.map(put, walk.waiting, [right for _, right in pairs])
        left = [left for left, _ in pairs]
        return Walk(walk.start, walk.end, level, 2 * walk.index, left, waiting)

    too_long = lambda walk: (walk.h > longest) & (walk.level < DEPTH)
    return lax.while_loop(too_long, halve, walk)
