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


class Record(eqx.Module):
    """What the forward loop keeps for the reverse pass.

    `times[n]` is the start of step n and, unless the controller jumps, `times[n + 1]` its end;
    equal where a lane did not accept.
    """

    times: Any
    ends: Any  # only of controllers that jump, whose next step starts elsewhere
    jumped: Any  # whether the field had just jumped before a step; likewise
    rows: Rows
    stride: Count
    num_steps: Count

    def step(self, number: Count) -> tuple[Time, Time, Any]:
        """The ends of a step, and whether it came after a jump."""
        if self.ends is None:
            return self.times[number], self.times[number + 1], None
        return self.times[number], self.ends[number], self.jumped[number]


def default_checkpoints(max_steps: int, state_bytes: int) -> int:
    """sqrt(max_steps), but of large states no more than fill 16 MB (at least 16 of them).

    Every row is written once when it is allocated, which for a large state costs as much as a cheap
    evaluation of the vector field; running a few steps again costs less than preparing a hundred
    rows that nobody uses.
    """
    affordable = max(16, 2**24 // max(state_bytes, 1))
    return min(max(16, math.ceil(math.sqrt(max_steps))), affordable, max_steps)


def empty_record(
    t0: Time, state0: State, max_steps: int, checkpoints: int | None, jumps: bool
) -> Record:
    """Rows and times for all lanes; the lane axes of `t0` and `state0` come after the rows."""
    if checkpoints is None:
        state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state0))
        checkpoints = default_checkpoints(max_steps, state_bytes)
    number = min(checkpoints, max_steps)
    allocate = lambda rows, like, dtype: lax.empty((rows, *like.shape), dtype)
    states = jax.tree.map(lambda leaf: allocate(number + 1, leaf, leaf.dtype), state0)
    rows = Rows(states, jnp.full(number, _EMPTY))
    times = allocate(max_steps + 1, t0, t0.dtype).at[0].set(t0)
    ends = allocate(max_steps, t0, t0.dtype) if jumps else None
    jumped = allocate(max_steps, t0, jnp.bool_) if jumps else None
    return Record(times, ends, jumped, rows, stride=jnp.array(1), num_steps=jnp.array(0))


def append(
    record: Record, state: State, t_next: Time, t_end: Time, jumped: Any, any_accepted: Flag
) -> Record:
    """Note a step from `state` to `t_end`, the next one starting at `t_next`; that one takes its
    place unless a lane accepted it.
    """
    step, rows = record.num_steps, record.rows
    wanted = any_accepted & (step % record.stride == 0)
    overflow = wanted & (rows.num_free() == 0)
    stride = jnp.where(overflow, 2 * record.stride, record.stride)
    rows = rows.without(rows.steps % stride != 0)
    jumps = record.ends is not None
    return Record(
        times=record.times.at[step + 1].set(t_next),
        ends=record.ends.at[step].set(t_end) if jumps else None,
        jumped=record.jumped.at[step].set(jumped) if jumps else None,
        rows=rows.put(state, step, wanted & (step % stride == 0)),
        stride=stride,
        num_steps=step + any_accepted.astype(step.dtype),
    )
