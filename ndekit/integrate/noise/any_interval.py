"""Brownian motion over any interval, inside a cell or across many: a path that is evaluated."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...shapes import Time
from .bridge import from_moments, joined, to_moments, without_first

# Halvings of an interval before a time is taken for the nearest end.
DEPTH = 30
_ONE = np.uint32(1)


def between(motion: Any, first: Time, last: Time) -> list[Any]:
    """What the interval between two times draws, be they in one cell or in many."""
    start, end = _cell_of(motion, first), _cell_of(motion, last)
    before, rest = _head(motion, *start, first), _head(motion, *end, last)

    def over(loop: tuple) -> tuple:
        total, (a, b) = loop
        cell = [_scaled(to_moments, x, b - a) for x in motion.whole(motion.cell_key(a), b - a)]
        return _each(joined, total, a - start[0], cell, b - a), _cell_of(motion, b)

    loop = ([jnp.zeros_like(x) for x in rest], start)
    total, (a, _) = lax.while_loop(lambda loop: loop[1][0] < end[0], over, loop)
    total = _each(joined, total, a - start[0], rest, last - a)
    h0, h = first - start[0], last - first
    parts = [
        without_first(m, m0, h0.astype(m.dtype), h.astype(m.dtype))
        for m, m0 in zip(total, before, strict=True)
    ]
    return [_scaled(from_moments, m, h) for m in parts]


def _cell_of(motion: Any, t: Time) -> tuple[Time, Time]:
    """The ends of the cell that holds `t`."""
    if motion.ts is None:
        return jnp.floor(t), jnp.floor(t) + 1
    ts = eqx.error_if(
        motion.ts.astype(t.dtype), (t < motion.ts[0]) | (t > motion.ts[-1]),
        "`BrownianMotion` was asked for a time outside its `ts`.",
    )  # fmt: skip
    index = jnp.searchsorted(ts, t, side="right") - 1
    return ts[index], ts[jnp.minimum(index + 1, ts.size - 1)]


def _head(motion: Any, start: Time, end: Time, t: Time) -> list[Any]:
    """The moments from the start of a cell to a time in it."""
    key, length = motion.cell_key(start), end - start
    x = motion.whole(key, length)

    def down(loop: tuple) -> tuple:
        node, part, h, x, done, total = loop
        left, right = motion.halves(key, node, x, h)
        goes_right = part >= 0.5
        moments = [_scaled(to_moments, leaf, h / 2) for leaf in left]
        further = _each(joined, total, done, moments, h / 2)
        choose = lambda a, b: [jnp.where(goes_right, y, x) for x, y in zip(a, b, strict=True)]
        node = 2 * node + goes_right.astype(node.dtype)
        done = jnp.where(goes_right, done + h / 2, done)
        # Exact, as the time left is told in halves of the cell.
        part = jnp.where(goes_right, 2 * part - 1, 2 * part)
        return node, part, h / 2, choose(left, right), done, choose(total, further)

    goes_on = lambda loop: (loop[1] > 0) & (loop[0] < 2**DEPTH)
    part = jnp.where(length > 0, (t - start) / jnp.where(length > 0, length, 1), 0)
    zero = [jnp.zeros_like(leaf) for leaf in x]
    first = (_ONE, part, length, x, jnp.zeros_like(length), zero)
    return lax.while_loop(goes_on, down, first)[-1]


def _scaled(fn: Any, x: Any, h: Time) -> Any:
    return fn(x, h.astype(x.dtype))


def _each(fn: Any, first: list[Any], h1: Time, second: list[Any], h2: Time) -> list[Any]:
    run = lambda x, y: fn(x, h1.astype(x.dtype), y, h2.astype(x.dtype))
    return list(map(run, first, second))
