"""Cotangents of the values at `ts`, given back to the steps in which they were saved.

The mirror of `saving.py`: blocks of consecutive times, from the last to the first.
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from .. import tree
from ..shapes import Count, Flag, State, Time
from .lanes import Lanes
from .problem import Operands, Problem
from .saving import any_lane, block_size, interpolate


class Found(eqx.Module):
    """What one lane has found so far. `ts` has a block of padding in front."""

    ts: Any
    remaining: Count  # ts[:remaining] belong to earlier steps


class Place(eqx.Module):
    """A step as interpolation sees it."""

    t0: Time
    t1: Time
    info: Any
    accepted: Flag


class ForStep(eqx.Module):
    """Cotangents that reach a step through the values saved inside it."""

    t0: Time
    t1: Time
    info: Any


def nothing_found(ts: Any, count: Count) -> Found:
    return Found(jnp.zeros(ts.shape[0] + block_size(ts), ts.dtype), count)


def padded_in_front(ts: Any, ys: State) -> State:
    """Values at `ts` with one block of zeros before them."""
    zeros = lambda y: jnp.zeros((block_size(ts), *y.shape[1:]), y.dtype)
    return jax.tree.map(lambda y: jnp.concatenate([zeros(y), y]), ys)


@dataclass(frozen=True, eq=False)
class SavedValues:
    """The values at `ts` in all lanes, and what the loss says of them."""

    problem: Problem
    lanes: Lanes
    flat: list[Any]
    ct_ys: State  # with a block of padding in front

    def pull(self, found: Found, place: Place) -> tuple[Found, ForStep]:
        """Add up the cotangents of the values in one step."""
        nothing = ForStep(*tree.zeros_like((place.t0, place.t1, place.info)))
        pull = self.lanes.map(
            lambda flat, _, *rest: _pull_block(self.problem, self._join(flat), *rest)
        )

        def body(state: tuple) -> tuple:
            found, ct, _ = state
            found, ct = pull(self.flat, None, found, ct, place, self.ct_ys)
            return found, ct, self._anything_left(found, place)

        state = (found, nothing, self._anything_left(found, place))
        found, ct, _ = lax.while_loop(lambda state: state[2], body, state)
        return found, ct

    def _anything_left(self, found: Found, place: Place) -> Flag:
        left = self.lanes.map(lambda flat, _, *rest: _is_left(self._join(flat), *rest))
        return any_lane(left(self.flat, None, found, place))

    def _join(self, flat: list[Any]) -> Operands:
        return jax.tree.unflatten(self.problem.treedef, flat)


def _is_left(operands: Operands, found: Found, place: Place) -> Flag:
    last = operands.ts[jnp.maximum(found.remaining - 1, 0)]
    return place.accepted & (found.remaining > 0) & (last > _start_of(operands, place))


def _start_of(operands: Operands, place: Place) -> Time:
    """The first step also owns the times at its very start."""
    return jnp.where(place.t0 == operands.t0, -jnp.inf, place.t0)


def _pull_block(
    problem: Problem, operands: Operands, found: Found, ct: ForStep, place: Place, ct_ys: State
) -> tuple[Found, ForStep]:
    """The block of times that ends just before `found.remaining`."""
    size = block_size(operands.ts)
    take = lambda x: lax.dynamic_slice_in_dim(x, found.remaining, size)
    block = take(jnp.concatenate([jnp.full(size, -jnp.inf, operands.ts.dtype), operands.ts]))
    inside = place.accepted & (block > _start_of(operands, place))
    # A lane with no step here has t0 == t1, where interpolation divides by zero.
    t1 = jnp.where(place.accepted, place.t1, place.t0 + 1)
    times = jnp.where(inside, block, place.t0)
    of_step = lambda *given: interpolate(problem, *given)
    _, vjp = jax.vjp(of_step, place.t0, t1, place.info, times)
    d_t0, d_t1, d_info, d_ts = vjp(tree.masked(inside, jax.tree.map(take, ct_ys)))
    d_ts = jnp.where(inside, d_ts, take(found.ts))
    ct_ts = lax.dynamic_update_slice_in_dim(found.ts, d_ts, found.remaining, 0)
    remaining = found.remaining - jnp.sum(inside, dtype=found.remaining.dtype)
    ct = ForStep(ct.t0 + d_t0, ct.t1 + d_t1, tree.add(ct.info, d_info))
    return Found(ct_ts, remaining), ct
