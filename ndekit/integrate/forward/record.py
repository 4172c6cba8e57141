"""The record of a solve: the times of every step, and the states at checkpoints."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ... import tree
from ...shapes import Count, Flag, State, Time
from ..programs.counted_loops import is_on_host
from ..programs.uninitialized import uninitialized
from .checkpoints import Rows, empty_rows

_PAGE_BYTES, _LONGEST_PAGE, _SHORTEST_PAGE = 384, 16, 4


class Details(eqx.Module):
    """What some solves must know of each attempt besides its times."""

    t_end: Time  # the next attempt may start elsewhere
    made_jump: Any = None  # whether the field had just jumped before it
    accepted: Any = None  # where rejected attempts are recorded too:
    finite: Any = None  # whether nothing overflowed in it
    memory: Any = None  # what the controller remembered
    next_ends: Any = None  # where the next attempt starts, and where it ends
    clipped: Any = None  # whether its end follows from a time of the user


class RecordedStep(eqx.Module):
    """One recorded step, in all lanes."""

    t0: Time
    t1: Time
    y: State
    carry: Any  # `()` if it is not recorded
    memo: Any
    accepted: Flag
    details: Details | None

    def only_if(self, here: Flag) -> "RecordedStep":
        """The step, or where it is not `here` one of no length that nobody accepted."""
        details, t1 = self.details, jnp.where(here, self.t1, self.t0)
        if details is not None and details.accepted is not None:
            flags = details.accepted & here, details.finite & here
            details = dataclasses.replace(details, accepted=flags[0], finite=flags[1])
        accepted = self.accepted & here
        return dataclasses.replace(self, t1=t1, accepted=accepted, details=details)


class AllRows(eqx.Module):
    """The state before every step."""

    states: State

    def put(self, state: State, step: Count, wanted: Flag) -> "AllRows":
        """With the state before `step`; if it is not `wanted`, the next one takes its place."""
        return AllRows(tree.write(self.states, state, step))


class Record(eqx.Module):
    """What the forward loop keeps for the reverse pass.

    `times[n]` is the start of step n and, without details, `times[n + 1]` its end; equal where a
    lane did not accept.
    """

    times: Any
    details: Details | None
    rows: Rows | AllRows | None  # none where steps are undone
    stages: Any  # the arguments of the stages of every step, where they are noted
    num_steps: Count
    max_steps: int = eqx.field(static=True)
    # Steps that the loops write to a record of their own before it is copied here; 0 for none.
    page: int = eqx.field(static=True, default=0)
    counts: bool = eqx.field(static=True, default=False)  # whether all rows are written
    # `latest[n]` is the last step before row n that the lane accepted, or -1, where each lane is
    # replayed by its own steps.
    latest: Any = None

    def step(
        self, number: Count, state: tuple[State, Any, Any], read: Callable = tree.read
    ) -> RecordedStep:
        """A step, from the state before it; `read(x, i)` is row `i` of an array."""
        t0, t1, details = read(self.times, number), read(self.times, number + 1), None
        accepted = t1 > t0
        if self.details is not None:
            details = read(self.details, number)
            t1 = details.t_end
            accepted = t1 > t0 if details.accepted is None else details.accepted
        return RecordedStep(t0, t1, *state, accepted, details)

    def steps(self, first: Count, number: int) -> RecordedStep:
        """Steps one after the other, as rows, where their stages were noted: the first stage of
        each is its state.
        """
        cut = lambda x: lax.dynamic_slice_in_dim(x, first, number)
        times = lax.dynamic_slice_in_dim(self.times, first, number + 1)
        t0, t1, details = times[:-1], times[1:], jax.tree.map(cut, self.details)
        if details is not None:
            t1 = details.t_end
        stages = jax.tree.map(cut, self.stages)
        y = jax.tree.map(lambda rows: rows[:, 0], stages)
        return RecordedStep(t0, t1, y, (), stages, t1 > t0, details)

    def append(
        self,
        state: State | None,
        stages: Any,
        t_next: Time,
        details: Details | None,
        accepted: Flag,
        wanted: Flag,
    ) -> "Record":
        """With a step from `state`, or with its `stages`, the next one starting at `t_next`; that
        one takes its place unless this one is wanted.
        """
        step, rows, latest = self.num_steps, self.rows, self.latest
        if latest is not None:
            now = jnp.where(accepted, step.astype(latest.dtype), latest[step])
            latest = tree.write(latest, now, step + 1)
        if rows is not None and state is not None:
            rows = rows.put(state, step, wanted)
        stages = self.stages if stages is None else tree.write(self.stages, stages, step)
        times = tree.write(self.times, t_next, step + 1)
        details = tree.write(self.details, details, step)
        num_steps = step + wanted.astype(step.dtype)
        kept = dict(times=times, details=details, rows=rows, stages=stages, latest=latest)
        return dataclasses.replace(self, num_steps=num_steps, **kept)

    def without_states(self) -> "Record":
        """The grid alone."""
        return dataclasses.replace(self, rows=None, stages=None, latest=None)

    def new_page(self) -> "Record":
        """An empty record of a few steps, from where this one ends."""
        blank = lambda rows: lambda x: jnp.zeros((rows, *x.shape[1:]), x.dtype)
        times = tree.write(blank(self.page + 1)(self.times), self.times[self.num_steps], 0)
        kept = jax.tree.map(blank(self.page), (self.details, self.rows, self.stages))
        return self._page(times, kept, jnp.zeros_like(self.num_steps))

    def with_page(self, page: "Record") -> "Record":
        """The steps of a page after those that are there."""
        step = self.num_steps
        put = lambda x, new: lax.dynamic_update_slice_in_dim(x, new, step, 0)
        parts = lambda r: (r.times, r.details, r.rows, r.stages)
        times, details, rows, stages = jax.tree.map(put, parts(self), parts(page))
        num_steps = step + page.num_steps
        return Record(times, details, rows, stages, num_steps, self.max_steps, self.page)

    def page_from(self, first: Count) -> "Record":
        """A page of steps."""
        cut = lambda rows: lambda x: lax.dynamic_slice_in_dim(x, first, rows)
        kept = jax.tree.map(cut(self.page), (self.details, self.rows, self.stages))
        number = jnp.minimum(self.num_steps - first, self.page)
        return self._page(cut(self.page + 1)(self.times), kept, number)

    def _page(self, times: Any, kept: tuple, num_steps: Count) -> "Record":
        details, rows, stages = kept
        return Record(times, details, rows, stages, num_steps, max_steps=self.page)


def empty_record(
    t0: Time,
    state0: State,
    details: Details | None,
    stages: Any,
    max_steps: int,
    checkpoints: int,
    operands: Any = (),
    by_lane: bool = False,
) -> Record:
    """Rows and times for all lanes; the lane axes of `t0`, `state0` and `details` come after the
    rows. `state0`: what a row holds. `stages`: like those of one step, if there shall be room for
    them; where they are noted nothing is mapped. `operands`: what all but those is mapped with.
    `by_lane`: whether lanes shall be replayed each by its own steps, if all states are there.
    """
    row_bytes = tree.num_bytes(state0)
    page, has_all = 0, checkpoints >= max_steps
    if has_all and stages is None:
        page = _page_length(row_bytes + tree.num_bytes((t0, details)), max_steps)
    allocate = lambda rows, beside=operands: (
        lambda like: uninitialized((rows, *like.shape), like.dtype, beside)
    )
    rows = None
    if has_all:
        rows = AllRows(jax.tree.map(allocate(max_steps + page), state0))
    elif checkpoints > 0:
        rows = empty_rows(state0, checkpoints, max_steps, operands)
    times = tree.write(allocate(max_steps + 1 + page)(t0), t0, 0)
    details = jax.tree.map(allocate(max_steps + page), details)
    stages = jax.tree.map(allocate(max_steps + page, ()), stages)
    latest = None
    if by_lane and has_all and not page:
        nobody = jnp.full_like(t0, -1, jnp.int32)
        latest = tree.write(allocate(max_steps + 1)(nobody), nobody, 0)
    number = jnp.array(0)
    return Record(times, details, rows, stages, number, max_steps, page, latest=latest)


def shared_by_lanes(record: Record) -> list[Any]:
    """What of a record has no lanes: how its rows are counted."""
    rows = record.rows
    return [record.num_steps, *([rows.orders, rows.doublings] if isinstance(rows, Rows) else [])]


def _page_length(row_bytes: int, max_steps: int) -> int:
    """For CPUs: their compiler makes one function of a loop that touches less than a kilobyte; of a
    larger one it makes a call for each operation, which for a few numbers takes ten times as long.
    """
    length = min(_PAGE_BYTES // row_bytes, _LONGEST_PAGE)
    if not is_on_host():
        return 0
    return length if _SHORTEST_PAGE <= length < max_steps else 0
