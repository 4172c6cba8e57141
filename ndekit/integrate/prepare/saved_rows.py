"""The values of one `SubSaveAt`, laid out as diffrax does."""

import dataclasses
from typing import Any

import diffrax
import jax
import jax.numpy as jnp

from ... import tree
from ...shapes import Args, Count, State, Time
from ..forward.outcome import Outcome
from ..times import differ

# What `SaveAt` saves unless told otherwise: the state.
SAVE_STATE = diffrax.SubSaveAt(t1=True).fn


@dataclasses.dataclass(frozen=True, eq=False)
class SavedRows:
    """`size` rows in the order of diffrax's buffers, infinity behind what was reached.

    `start` and `end` are times and states; `missing` is the time of a row that was not reached.
    """

    sub: diffrax.SubSaveAt
    index: int
    args: Args
    start: tuple[Time, State]
    t1: Time
    end: tuple[Time, State]
    outcome: Outcome
    size: int
    missing: Any
    finds_root: bool = False

    def value(self, t: Time, y: State) -> Any:
        fn: Any = self.sub.fn
        return fn(t, y, self.args)

    def rows(self) -> tuple[Any, Any, Count, Count]:
        """Times, values, how many of them there are, and how many of these are at `ts`."""
        at_ts, at_steps = self._at_ts(), self._at_steps()
        streams = [stream for stream in (at_ts, at_steps) if stream is not None]
        before = []
        if self.sub.t0:
            before = [_one_row((self.start[0], self.value(*self.start)))]
        found = before + [rows for rows, _ in streams]
        reached = len(before) + sum([count for _, count in streams], jnp.array(0))
        buffers = self._empty()
        if found:
            buffers = jax.tree.map(_fitted, _concatenated(found), buffers)
        if len(streams) == 2:
            # Infinite times, of whatever sign, come last.
            finite = jnp.where(jnp.isfinite(buffers[0]), buffers[0], jnp.inf)
            order = jnp.argsort(finite, stable=True)
            buffers = jax.tree.map(lambda x: x[order], buffers)
        ts, ys, reached = self._with_end(buffers[0], buffers[1], reached)
        return ts, ys, reached, jnp.array(0) if at_ts is None else at_ts[1]

    def _empty(self) -> tuple[Any, Any]:
        like = jax.eval_shape(self.value, *self.start)
        ts = jnp.full(self.size, self.missing, self.start[0].dtype)
        return ts, jax.tree.map(lambda x: jnp.full((self.size, *x.shape), jnp.inf, x.dtype), like)

    def _at_ts(self) -> tuple[Any, Count] | None:
        saved = self.outcome.streams.at_ts[self.index]
        if saved is None:
            return None
        ts: Any = self.sub.ts
        ys, count, t0 = saved.ys, saved.count, self.start[0]
        if not differ(t0, self.t1):
            # A solve over no time has all its values already, and at its start, as in diffrax.
            no_time, value = t0 == self.t1, self.value(t0, self.end[1])
            ts = jnp.where(no_time, t0, ts)
            ys = jax.tree.map(lambda row, rows: jnp.where(no_time, row, rows), value, ys)
            count = jnp.where(no_time, ts.shape[0], count)
        return self._until_end(ts, ys, count)

    def _at_steps(self) -> tuple[Any, Count] | None:
        kept = self.outcome.streams.at_steps[self.index]
        return None if kept is None else self._until_end(kept.ts, kept.rows, kept.count)

    def _until_end(self, ts: Any, rows: Any, count: Count) -> tuple[Any, Count]:
        """The values reached, without those behind an event that was found inside a step."""
        known = jnp.arange(ts.shape[0]) < count
        ts = jnp.where(known, ts, self.missing)
        if self.finds_root:
            known = known & (ts <= self.end[0])
            ts = jnp.where((ts <= self.end[0]) | ~jnp.isfinite(ts), ts, jnp.inf)
        return (ts, tree.where(known, rows, jax.tree.map(_infinite, rows))), jnp.sum(known)

    def _with_end(self, ts: Any, ys: Any, reached: Count) -> tuple[Any, Any, Count]:
        """With the value at the end of the solve, unless a step has saved it already."""
        every, wanted = self.sub.steps, jnp.array(bool(self.sub.t1))
        by_step = jnp.array(every == 1)
        if every > 1:
            by_step = self.outcome.num_accepted % every == 0
        wanted = (wanted | by_step) if self.finds_root else (wanted & ~by_step)
        if not self.sub.t1 and not (self.finds_root and every):
            return ts, ys, reached
        end = _one_row((self.end[0], self.value(*self.end)))
        here = wanted & (jnp.arange(ts.shape[0]) == reached)
        ts, ys = tree.where(here, end, (ts, ys))
        return ts, ys, reached + wanted.astype(reached.dtype)


def _one_row(row: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x)[None], row)


def _concatenated(rows: list[Any]) -> Any:
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *rows)


def _fitted(rows: Any, buffer: Any) -> Any:
    """As many rows as diffrax's buffer has."""
    missing = buffer.shape[0] - rows.shape[0]
    return rows[: buffer.shape[0]] if missing <= 0 else jnp.concatenate([rows, buffer[:missing]])


def _infinite(x: Any) -> Any:
    return jnp.full_like(x, jnp.inf)
