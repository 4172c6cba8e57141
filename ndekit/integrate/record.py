"""The record of a solve: the times of every step, and the states at checkpoints."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .. import tree
from ..shapes import Count, Flag, State, Time
from .checkpoints import Rows, default_checkpoints, empty_rows
from .untouched import untouched


class Details(eqx.Module):
    """What some solves must know of each attempt besides its times."""

    t_end: Time  # the next attempt may start elsewhere
    made_jump: Any = None  # whether the field had just jumped before it
    accepted: Any = None  # where rejected attempts are recorded too:
    finite: Any = None  # whether nothing overflowed in it
    memory: Any = None  # what the controller remembered


class RecordedStep(eqx.Module):
    """One recorded step, in all lanes."""

    t0: Time
    t1: Time
    y: State
    carry: Any  # `()` if it is not recorded
    memo: Any
    accepted: Flag
    details: Details | None


class Record(eqx.Module):
    """What the forward loop keeps for the reverse pass.

    `times[n]` is the start of step n and, without details, `times[n + 1]` its end; equal where a
    lane did not accept.
    """

    times: Any
    details: Details | None
    rows: Rows | None  # none where steps are undone
    num_steps: Count

    def step(self, number: Count, state: tuple[State, Any, Any]) -> RecordedStep:
        """A step, from the state before it."""
        t0, t1, details = self.times[number], self.times[number + 1], None
        accepted = t1 > t0
        if self.details is not None:
            details = tree.read(self.details, number)
            t1 = details.t_end
            accepted = t1 > t0 if details.accepted is None else details.accepted
        return RecordedStep(t0, t1, *state, accepted, details)


def empty_record(
    t0: Time, state0: State, details: Details | None, max_steps: int, checkpoints: int | None
) -> Record:
    """Rows and times for all lanes; the lane axes of `t0`, `state0` and `details` come after the
    rows.
    """
    if checkpoints is None:
        row_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state0))
        checkpoints = default_checkpoints(max_steps, row_bytes)
    number = min(checkpoints, max_steps)
    rows = empty_rows(state0, number, max_steps) if number > 0 else None
    allocate = lambda rows: lambda like: untouched((rows, *like.shape), like.dtype)
    times = tree.write(allocate(max_steps + 1)(t0), t0, 0)
    details = jax.tree.map(allocate(max_steps), details)
    return Record(times, details, rows, num_steps=jnp.array(0))


def append(
    record: Record, state: State, t_next: Time, details: Details | None, wanted: Flag
) -> Record:
    """Note a step from `state`, the next one starting at `t_next`; that one takes its place unless
    this one is wanted.
    """
    step, rows = record.num_steps, record.rows
    return Record(
        times=tree.write(record.times, t_next, step + 1),
        details=tree.write(record.details, details, step),
        rows=None if rows is None else rows.put(state, step, wanted),
        num_steps=step + wanted.astype(step.dtype),
    )
