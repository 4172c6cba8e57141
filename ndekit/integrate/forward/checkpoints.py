"""States at checkpoints: rows that thin out as the solve grows, and are then taken from the end.

With R rows, each of the first R steps has its state. When the rows are full, every second state is
given up and the stride doubles; freed rows are reused in place, nothing is moved. The reverse pass
takes the last state that is left, runs forward from it to where it needs one, and leaves new
checkpoints in the rows that have become free. So a short solve is replayed without recomputation, a
long one with little, and memory is R states whatever the number of steps.

Which row holds which step is arithmetic: nothing here looks through the rows.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ... import tree
from ...shapes import Count, Flag, State
from ..programs.uninitialized import uninitialized

# Up to so many bytes the states of all steps are kept, and none is run again: a program for that is
# a quarter of what a gradient takes to compile. A solve that knows no lanes may be one of many, if
# there is a `jax.vmap` around its gradient, each with a record of its own.
_ALL_OF_LANES, _ALL_OF_ONE = 2**26, 2**20
_TINY = 256  # bytes of a row


class Rows(eqx.Module):
    """The state before every 2^d-th step; one more row takes what is not kept."""

    states: State
    orders: Any  # [d, place]: the row of the state before step `place * 2^d`
    doublings: Count  # d

    def put(self, state: State, step: Count, wanted: Flag) -> "Rows":
        """With the state before `step`, if `wanted` and its turn; the steps come one by one."""
        number, d = _number(self.states), self.doublings
        its_turn = wanted & (step == (step >> d) << d)
        full = its_turn & (step >> d >= number)
        d = d + full.astype(d.dtype)
        keep = its_turn & (step == (step >> d) << d)
        row = jnp.where(keep, self.orders[d, step >> d], number)
        return Rows(tree.write(self.states, state, row), self.orders, d)


class Stack(eqx.Module):
    """The checkpoints that are left on the way back, the latest on top."""

    states: State
    order: Any  # the row of each place
    steps: Any  # the step before which the state at each place stands; one place more
    top: Count

    def last(self) -> tuple[State, Count]:
        return tree.read(self.states, self.order[self.top]), self.steps[self.top]

    def push(self, state: State, step: Count, wanted: Flag) -> "Stack":
        """With the state before `step`, if `wanted`; there must be room."""
        number, place = _number(self.states), self.top + 1
        row = jnp.where(wanted, self.order[place], number)
        steps = tree.write(self.steps, step, place)
        top = jnp.where(wanted, place, self.top)
        return Stack(tree.write(self.states, state, row), self.order, steps, top)

    def without(self, step: Count) -> "Stack":
        """With the state before `step` taken off, if it is there."""
        top = self.top - (self.steps[self.top] == step).astype(self.top.dtype)
        return Stack(self.states, self.order, self.steps, top)

    def num_free(self) -> Count:
        return _number(self.states) - 1 - self.top


def empty_rows(state: State, number: int, max_steps: int, beside: Any = ()) -> Rows:
    allocate = lambda like: uninitialized((number + 1, *like.shape), like.dtype, beside)
    return Rows(
        jax.tree.map(allocate, state), jnp.asarray(_orders(number, max_steps)), jnp.array(0)
    )


def stack_of(rows: Rows, num_steps: Count) -> Stack:
    """The rows that a solve of so many steps has left."""
    d = rows.doublings
    order = rows.orders[d]
    steps = jnp.arange(order.size + 1, dtype=d.dtype) << d
    return Stack(rows.states, order, steps, num_steps - 1 >> d)


def default_checkpoints(
    max_steps: int, row_bytes: int, noise_bytes: int = 0, sure_steps: int = 0, *,
    in_lanes: bool = False,
) -> int:  # fmt: skip
    """All, if they take no more than 64 MB of a solve in lanes, or 1 MB in rows of no more than
    256 B. Else 2 sqrt(max_steps), 128 kB of such rows, 256 MB (but 16) of large ones.

    Rows with the noise of a step are fewer, so that they take what rows of states alone would. For
    each of `sure_steps`, which end where a value is saved, there is one more: what is saved takes
    as much anyway.
    """
    row_bytes = max(row_bytes, 1)
    is_tiny, all_bytes = row_bytes <= _TINY, max_steps * row_bytes
    if in_lanes and all_bytes <= _ALL_OF_LANES or is_tiny and all_bytes <= _ALL_OF_ONE:
        return max_steps
    tiny = 2**17 // row_bytes if is_tiny else 0
    affordable = max(16, 2**28 // row_bytes)
    share = 1 - noise_bytes / row_bytes
    number = max(16, math.ceil(2 * math.sqrt(max_steps) * share), tiny) + sure_steps
    return min(number, affordable, max_steps)


def _number(states: State) -> int:
    return jax.tree.leaves(states)[0].shape[0] - 1


def _orders(number: int, max_steps: int) -> np.ndarray:
    """At a doubling the even places keep their rows, and those of the odd ones come after them."""
    orders = [np.arange(number)]
    while number << len(orders) - 1 < max_steps:
        orders.append(np.concatenate([orders[-1][::2], orders[-1][1::2]]))
    return np.stack(orders)
