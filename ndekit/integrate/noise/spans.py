"""Steps over several cells of adaptive noise: what they draw, and where the path is inside."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ... import tree
from ...shapes import Count, Flag, Time
from .bridge import from_moments, joined, to_moments

# So many are all looked at: a binary search is a loop.
_FEW_ENDS = 256
_DRAWN_TOGETHER = 32


class Spans(eqx.Module):
    """What the cells of a solve draw, and what runs of them do.

    A run has a power of two of cells and begins at a multiple of that, as the halves of halves of
    all; at the end of a solve it may be shorter. So where a run was tried and given up, a later
    step ends there.

    Attributes:
        ends: of the cells, increasing, the last one repeated.
        rows: of each motion and array what the runs draw: those of one cell, of two, of four.
        path: the motion at `ends`, since the first of them.
    """

    ends: Any
    rows: list[Any]
    path: list[Any]

    @property
    def num_cells(self) -> int:
        return self.ends.shape[0] - 1

    def widest(self, start: Time, longest: Time, alone: Flag) -> tuple[Time, list[Any]]:
        """The end of the widest run of cells from `start` that takes no `longest`, or of one cell,
        and what it draws. `alone`: one cell whatever it takes.
        """
        first = cell_of(self.ends, start)
        ends, widths = self._ends(first)
        fits = (first % (1 << widths) == 0) & (ends - start <= longest) & ~alone
        width = jnp.max(jnp.where(fits, widths, 0))
        return ends[width], self._drawn(first, width)

    def between(self, start: Time, end: Time) -> tuple[Flag, list[Any]]:
        """Whether a step is a run of several cells; if so, what it draws."""
        first = cell_of(self.ends, start)
        ends, widths = self._ends(first)
        width = jnp.minimum(jnp.sum(ends < end), widths[-1])
        return ends[0] < end, self._drawn(first, width)

    def off_the_line(self, start: Time, end: Time, t: Time) -> list[Any]:
        """How far the motion is at `t`, an end of a cell, from the straight line between the ends
        of a step.
        """
        first, last, here = (cell_of(self.ends, time) for time in (start, end, t))
        part = (t - start) / jnp.where(end > start, end - start, 1)

        def of_leaf(path: Any) -> Any:
            whole, so_far = path[last] - path[first], path[here] - path[first]
            return (so_far - part.astype(path.dtype) * whole)[None]

        return jax.tree.map(of_leaf, self.path)

    def _ends(self, first: Count) -> tuple[Any, Any]:
        """Of runs of one cell, two, four from the `first`; and which powers of two these are."""
        widths = jnp.arange(_num_widths(self.num_cells))
        return self.ends[jnp.minimum(first + (1 << widths), self.num_cells)], widths

    def _drawn(self, first: Count, width: Count) -> list[Any]:
        sizes = _sizes(self.num_cells)
        before = jnp.array([sum(sizes[:k]) for k in range(len(sizes))])
        # A solve that has ended is at the end of all cells.
        row = before[width] + jnp.minimum(first >> width, jnp.array(sizes)[width] - 1)
        return tree.read(self.rows, row)


def spans_of(motions: list[Any], ends: Any) -> Spans:
    """Of cells whose ends are sorted, and may be repeated."""
    # Where the first end is repeated, the others move up: runs begin with the solve.
    at = jnp.arange(ends.shape[0]) + jnp.sum(ends == ends[0]) - 1
    ends = ends[jnp.minimum(at, ends.shape[0] - 1)]
    starts, lengths = ends[:-1], ends[1:] - ends[:-1]
    rows, path = [], []
    for motion in motions:
        drawn = _drawn_in_cells(motion, starts, lengths)
        rows.append([_with_runs(x, lengths) for x in drawn])
        path.append([_summed(x[:, 0]) for x in drawn])
    return Spans(ends, rows, path)


def _drawn_in_cells(motion: Any, starts: Any, lengths: Any) -> list[Any]:
    """In a loop: else the compiler draws anew for everything that reads what was drawn, which took
    three times as long.
    """
    number = starts.shape[0]
    turns = -(-number // _DRAWN_TOGETHER)
    together = -(-number // turns)
    in_turns = lambda x: jnp.pad(x, (0, turns * together - number)).reshape(turns, together)
    of_cells = jax.vmap(lambda t, h: motion.whole(motion.cell_key(t), h))
    drawn = lax.map(lambda cells: of_cells(*cells), (in_turns(starts), in_turns(lengths)))
    return [x.reshape(turns * together, *x.shape[2:])[:number] for x in drawn]


def cell_of(ends: Any, t: Time) -> Count:
    """The number of the cell that begins at `t` or holds it, the last of several."""
    if ends.shape[0] <= _FEW_ENDS:
        return jnp.maximum(jnp.sum(ends <= t) - 1, 0)
    cell = jnp.searchsorted(ends, t, side="right").astype(int) - 1
    return jnp.maximum(cell, 0)


def _num_widths(number: int) -> int:
    return (number - 1).bit_length() + 1


def _sizes(number: int) -> list[int]:
    """How many runs there are of one cell, of two, of four."""
    return [-(-number // (1 << k)) for k in range(_num_widths(number))]


def _with_runs(x: Any, lengths: Any) -> Any:
    """What cells draw, as rows, and after them what runs do, of twice as many cells each time."""
    rows, h = [x], lengths.astype(x.dtype)
    while x.shape[0] > 1:
        if x.shape[0] % 2:
            x, h = (jnp.concatenate([a, jnp.zeros_like(a[:1])]) for a in (x, h))
        x, h = jax.vmap(_joined)(x[::2], h[::2], x[1::2], h[1::2]), h[::2] + h[1::2]
        rows.append(x)
    return jnp.concatenate(rows)


def _joined(first: Any, h1: Any, second: Any, h2: Any) -> Any:
    moments = joined(to_moments(first, h1), h1, to_moments(second, h2), h2)
    return from_moments(moments, h1 + h2)


def _summed(w: Any) -> Any:
    return jnp.concatenate([jnp.zeros_like(w[:1]), lax.cumsum(w)])
