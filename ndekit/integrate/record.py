"""The record of a solve: the times of every step, and the states at checkpoints that thin out as
the solve grows.

With R rows: while at most R steps have been recorded each has its state. When the rows are full,
every second state is given up and the stride doubles; freed rows are reused in place, nothing is
moved. The reverse pass takes the last state that is left, runs forward from it to where it needs
one, and leaves new checkpoints in the rows that have become free. So a short solve is replayed
without recomputation, a long one with little, and memory is R states whatever the number of steps.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from .. import tree
from ..shapes import Count, Flag, State, Time

_EMPTY = -1


class Rows(eqx.Module):
    """States before some steps, and which steps these are; one more row for what is not kept."""

    states: State
    steps: Any

    def put(self, state: State, step: Count, keep: Flag) -> "Rows":
        """With the state before `step`, if `keep` and there is a free row."""
        free = self.steps == _EMPTY
        keep = keep & jnp.any(free)
        number = self.steps.shape[0]
        row = jnp.where(keep, jnp.argmax(free), number)
        steps = jnp.where(keep & (jnp.arange(number) == row), step, self.steps)
        return Rows(tree.write(self.states, state, row), steps)

    def last_until(self, step: Count) -> tuple[State, Count]:
        """The last state not after `step`, and the step it stands before."""
        row = jnp.argmax(jnp.where(self.steps <= step, self.steps, _EMPTY))
        return tree.read(self.states, row), self.steps[row]

    def without(self, unwanted: Any) -> "Rows":
        return Rows(self.states, jnp.where(unwanted, _EMPTY, self.steps))

    def num_free(self) -> Count:
        return jnp.sum(self.steps == _EMPTY)


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
    stride: Count
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


def default_checkpoints(max_steps: int, row_bytes: int) -> int:
    """sqrt(max_steps), more of small rows (32 kB of them), fewer of large ones (16 MB, but 16).

    Every row is written once when it is allocated, which for a large state costs as much as a cheap
    evaluation of the vector field; running a few steps again costs less than preparing a hundred
    rows that nobody uses. Small rows cost nothing, and spare the running again.
    """
    cheap, affordable = 2**15 // max(row_bytes, 1), max(16, 2**24 // max(row_bytes, 1))
    wanted = max(16, math.ceil(math.sqrt(max_steps)), cheap)
    return min(wanted, affordable, max_steps)


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
    allocate = lambda rows: lambda like: lax.empty((rows, *like.shape), like.dtype)
    rows = None
    if number > 0:
        rows = Rows(jax.tree.map(allocate(number + 1), state0), jnp.full(number, _EMPTY))
    times = allocate(max_steps + 1)(t0).at[0].set(t0)
    details = jax.tree.map(allocate(max_steps), details)
    return Record(times, details, rows, stride=jnp.array(1), num_steps=jnp.array(0))


def append(
    record: Record, state: State, t_next: Time, details: Details | None, wanted: Flag
) -> Record:
    """Note a step from `state`, the next one starting at `t_next`; that one takes its place unless
    this one is wanted.
    """
    step, rows = record.num_steps, record.rows
    stride = record.stride
    if rows is not None:
        at_stride = wanted & (step % stride == 0)
        overflow = at_stride & (rows.num_free() == 0)
        stride = jnp.where(overflow, 2 * stride, stride)
        rows = rows.without(rows.steps % stride != 0)
        rows = rows.put(state, step, at_stride & (step % stride == 0))
    return Record(
        times=record.times.at[step + 1].set(t_next),
        details=tree.write(record.details, details, step),
        rows=rows,
        stride=stride,
        num_steps=step + wanted.astype(step.dtype),
    )
