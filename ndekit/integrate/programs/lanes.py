"""Lanes: the batch axes of a solve, written out so that shared arrays stay shared.

Under `jax.vmap` the engine does not let JAX batch its loops. It runs one loop for all lanes and
maps only the work of one attempt. Then (i) the attempt counter is one plain scalar, so that records
are slices and not scatters; (ii) the reverse step of all lanes is one vjp, so that the cotangent of
parameters that all lanes share is contracted over lanes inside a matrix product instead of being
kept once a lane; (iii) the engine chooses where the lane axis stands.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ... import tree
from .counted_loops import is_on_host


@dataclass(frozen=True)
class Lanes:
    """The lane axes of a solve.

    `levels` has one entry for each axis, outermost first: which of the flat operands have it.
    With `last` the lane axes stand behind those of the state, else before. Behind, a field made of
    scalar arithmetic on the components of the state becomes vector arithmetic over lanes; before,
    a product with a matrix finds its rows where it wants them.
    """

    levels: tuple[tuple[bool, ...], ...]
    last: bool

    @property
    def axis(self) -> int:
        return -1 if self.last else 0

    def map(self, fn: Callable) -> Callable:
        """Map `fn(operands, shared, *each)` over all lanes.

        `operands` is the flat list whose entries have a lane axis or not; `shared` has none; every
        array in `each`, and in what comes back, has all of them.
        """
        for flags in reversed(self.levels):
            fn = self._map_once(fn, [self.axis if flag else None for flag in flags])
        return fn

    def _map_once(self, fn: Callable, axes: list[Any]) -> Callable:
        def mapped(operands: list[Any], shared: Any, *each: Any) -> Any:
            in_axes = (axes, None, *[self.axis] * len(each))
            return jax.vmap(fn, in_axes, out_axes=self.axis)(operands, shared, *each)

        return mapped

    def at_own_rows(self, look: Callable, index: Any) -> Any:
        """`look(read, i)` in all lanes (not `last`) at once, each with its own `i` of `index`:
        `read(x, i)` is the lane's part of row `i`, of arrays with one row for each step in front of
        the lanes.
        """
        shape = jnp.shape(index)
        number = math.prod(shape)
        lane = jnp.arange(number, dtype=index.dtype)

        def read(x: Any, i: Any) -> Any:
            flat = lambda x: x.reshape(-1, *x.shape[1 + len(shape) :])
            return jax.tree.map(lambda x: _rows(flat(x), i * number + lane), x)

        found = look(read, index.reshape(-1))
        return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), found)

    @property
    def axis_of_rows(self) -> int:
        """Where the lanes of an array stand that has one row for each step in front."""
        return self.axis if self.last else self.axis + 1

    def where(self, flags: Sequence[bool]) -> list[int | None]:
        """The axis of the lanes for each array that has them."""
        return [self.axis if has_lane else None for has_lane in flags]

    def axes_of(self, arrays: Sequence[Any]) -> list[int]:
        """The axis of the outermost lanes, which all of these have, counted from the front."""
        return [x.ndim - 1 if self.last else 0 for x in arrays]

    def within(self, flags: tuple[bool, ...]) -> "Lanes":
        """These lanes inside one more axis."""
        return Lanes((flags, *self.levels), self.last)

    def sum_missing(self, x: Any, position: int) -> Any:
        """Sum an array with all lane axes over those that operand `position` does not have."""
        missing = [level for level, flags in enumerate(self.levels) if not flags[position]]
        return jnp.sum(x, axis=tuple(x.ndim - 1 - i if self.last else i for i in missing))

    def shape_with(self, shape: tuple[int, ...], operands: list[Any]) -> tuple[int, ...]:
        """The shape in all lanes of an array that has `shape` in one."""
        sizes, seen = [], [0] * len(operands)
        for flags in self.levels:
            position = flags.index(True)
            of_operand = operands[position].shape
            sizes.append(
                of_operand[-1 - seen[position]] if self.last else of_operand[seen[position]]
            )
            seen = [n + flag for n, flag in zip(seen, flags, strict=True)]
        return (*shape, *reversed(sizes)) if self.last else (*sizes, *shape)


def _rows(x: Any, places: Any) -> Any:
    if x.ndim == 1 or not is_on_host():
        return x.at[places].get(mode="promise_in_bounds")
    # By the size of what a gather reads from, XLA's CPU compiler divides it among threads, which
    # takes ten times as long as the rows one by one.
    return jax.lax.map(lambda i: tree.read(x, i), places)
