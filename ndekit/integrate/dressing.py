"""The outcome of a solve as diffrax's final state: saved values laid out, the event found."""

import dataclasses
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jax import lax

from .. import tree
from ..shapes import Count, State, Time
from .events import condition_values, settle
from .forward import Outcome
from .given import Given
from .moving import is_diffrax_pid

# What `SaveAt` saves unless told otherwise: the state.
save_state = diffrax.SubSaveAt(t1=True).fn


def dress(given: Given, outcome: Outcome, last_state: Any) -> Any:
    """diffrax's final state."""
    state0, event = given.state0, given.event
    t, y, result, mask = outcome.t, outcome.y, outcome.result, None
    if event is not None:
        assert outcome.watched is not None  # as there is an event
        conditions = condition_values(event, given.args, given.around_events)
        t, y, result = settle(event, conditions, given.solver.interpolation_cls, outcome)
        structure = jax.tree.structure(event.cond_fn, is_leaf=callable)
        mask = jax.tree.unflatten(structure, outcome.watched.mask)
    is_sub = lambda x: isinstance(x, diffrax.SubSaveAt)
    layouts = [_Layout(given, outcome, i, t, y).save_state() for i in range(len(given.subs))]
    subs = jax.tree.structure(given.saveat.subs, is_leaf=is_sub)
    dense = outcome.streams.dense
    return dataclasses.replace(
        state0,
        y=y,
        tprev=outcome.t,
        # Not as an array where it is known: diffrax gives Python's `False` under `jax.jit` too.
        made_jump=given.init_state.made_jump if outcome.made_jump is None else outcome.made_jump,
        solver_state=last_state,
        controller_state=_controller_state(given, outcome),
        result=result,
        num_steps=outcome.num_steps,
        num_accepted_steps=outcome.num_accepted,
        num_rejected_steps=outcome.num_steps - outcome.num_accepted,
        save_state=jax.tree.unflatten(subs, layouts),
        dense_ts=None
        if dense is None
        else state0.dense_ts.at[0].set(given.t0).at[1:].set(dense.ts),
        dense_infos=None if dense is None else dense.rows,
        dense_save_index=None if dense is None else dense.count,
        event_mask=mask,
    )


def _controller_state(given: Given, outcome: Outcome) -> Any:
    """That of diffrax's rule has no derivative, as its steps have none. Nor has any along noise,
    whose paths are not differentiable in time.
    """
    is_noise = lambda x: isinstance(x, diffrax.AbstractBrownianPath)
    noisy = any(map(is_noise, jax.tree.leaves(given.terms, is_leaf=is_noise)))
    state, frozen = outcome.controller_state, is_diffrax_pid(given.stepsize_controller)
    return lax.stop_gradient(state) if frozen or noisy else state


@dataclasses.dataclass(frozen=True, eq=False)
class _Layout:
    """The values of one `SubSaveAt` in the order of diffrax's buffers, infinity behind them."""

    given: Given
    outcome: Outcome
    index: int
    t: Time  # where the solve ends
    y: State

    @property
    def sub(self) -> diffrax.SubSaveAt:
        return self.given.subs[self.index]

    @property
    def finds_root(self) -> bool:
        return self.given.event is not None and self.given.event.root_finder is not None

    def value(self, t: Time, y: State) -> Any:
        return self.sub.fn(t, y, self.given.args)

    def save_state(self) -> Any:
        empty = self._empty()
        before, streams = [], [s for s in (self._at_ts(), self._at_steps()) if s is not None]
        if self.sub.t0:
            t0, y0 = self.given.t0, self.given.state0.y
            before = [_one_row((t0, self.value(t0, y0)))]
        rows = before + [rows for rows, _ in streams]
        reached = len(before) + sum([count for _, count in streams], jnp.array(0))
        buffers = (empty.ts, empty.ys)
        if rows:
            buffers = jax.tree.map(_fitted, _concatenated(rows), buffers)
        if len(streams) == 2:
            # Infinite times, of whatever sign, come last.
            order = jnp.argsort(
                jnp.where(jnp.isfinite(buffers[0]), buffers[0], jnp.inf), stable=True
            )
            buffers = jax.tree.map(lambda x: x[order], buffers)
        ts, ys, reached = self._with_end(buffers[0], buffers[1], reached)
        at_ts = jnp.array(0) if self._at_ts() is None else streams[0][1]
        return dataclasses.replace(empty, ts=ts, ys=ys, save_index=reached, saveat_ts_index=at_ts)

    def _at_ts(self) -> tuple[Any, Count] | None:
        saved = self.outcome.streams.at_ts[self.index]
        if saved is None:
            return None
        ts: Any = self.sub.ts
        t0, t1, ys, count = self.given.t0, self.given.t1, saved.ys, saved.count
        # A solve over no time at all has all its values already, and at its start, as in diffrax.
        no_time = t0 == t1
        ts = jnp.where(no_time, t0, ts)
        value = self.value(t0, self.y)
        ys = jax.tree.map(lambda row, rows: jnp.where(no_time, row, rows), value, ys)
        count = jnp.where(no_time, ts.shape[0], count)
        return self._until_end(ts, ys, count)

    def _at_steps(self) -> tuple[Any, Count] | None:
        kept = self.outcome.streams.at_steps[self.index]
        return None if kept is None else self._until_end(kept.ts, kept.rows, kept.count)

    def _until_end(self, ts: Any, rows: Any, count: Count) -> tuple[Any, Count]:
        """The values reached, without those behind an event that was found inside a step."""
        known = jnp.arange(ts.shape[0]) < count
        ts = jnp.where(known, ts, self._empty().ts[0])
        if self.finds_root:
            known = known & (ts <= self.t)
            ts = jnp.where((ts <= self.t) | ~jnp.isfinite(ts), ts, jnp.inf)
        return (ts, tree.where(known, rows, jax.tree.map(_infinite, rows))), jnp.sum(known)

    def _empty(self) -> Any:
        """diffrax's buffers, not yet written to."""
        is_state = lambda x: hasattr(x, "saveat_ts_index")
        return jax.tree.leaves(self.given.state0.save_state, is_leaf=is_state)[self.index]

    def _with_end(self, ts: Any, ys: Any, reached: Count) -> tuple[Any, Any, Count]:
        """With the value at the end of the solve, unless a step has saved it already."""
        every, wanted = self.sub.steps, jnp.array(bool(self.sub.t1))
        by_step = jnp.array(every == 1)
        if every > 1:
            by_step = self.outcome.num_accepted % every == 0
        wanted = (wanted | by_step) if self.finds_root else (wanted & ~by_step)
        if not self.sub.t1 and not (self.finds_root and every):
            return ts, ys, reached
        end = _one_row((self.t, self.value(self.t, self.y)))
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
