"""Cotangents of the values at `ts`, given back to the steps in which they were saved.

The mirror of `forward/saving.py`: blocks of consecutive times, from the last to the first.
"""

import functools
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from ... import tree
from ...shapes import Count, Flag, Time
from ..forward.problem import Operands, Problem
from ..forward.saving import any_lane, values_at
from ..programs.lanes import Lanes


class Found(eqx.Module):
    """What one lane has found so far. `ts` has a block of padding in front."""

    ts: Any
    remaining: Count  # ts[:remaining] belong to earlier steps


class Inside(eqx.Module):
    """A step as interpolation sees it; or rows, one for each of several steps."""

    t0: Time
    t1: Time
    info: Any
    accepted: Flag


class ForStep(eqx.Module):
    """Cotangents that reach a step, and what `fn` closes over, through the values saved inside."""

    t0: Time
    t1: Time
    info: Any
    constants: list[Any]  # summed over the lanes that share them


def nothing_found(ts: Any, count: Count, size: int) -> Found:
    return Found(jnp.zeros(ts.shape[0] + size, ts.dtype), count)


def padded_in_front(ys: Any, size: int) -> Any:
    """Values at `ts` with one block of zeros before them."""
    zeros = lambda y: jnp.zeros((size, *y.shape[1:]), y.dtype)
    return jax.tree.map(lambda y: jnp.concatenate([zeros(y), y]), ys)


@dataclass(frozen=True, eq=False)
class SavedValues:
    """The values at the `ts` of one `SubSaveAt` in all lanes, and what the loss says of them."""

    problem: Problem
    lanes: Lanes
    flat: list[Any]
    index: int
    parameters: tuple[int, ...]  # positions in `flat` of what else is perturbed that values read
    size: int  # of a block
    ct_ys: Any  # with a block of padding in front
    # Where many steps of one lane come side by side: the axis along which, of a step's
    # interpolation.
    along: int | None = None

    def pull(self, found: Found, inside: Inside) -> tuple[Found, ForStep]:
        """Add up the cotangents of the values in one step, or in several side by side."""
        axis = self.along
        if axis is None:
            return self._pull(found, inside)
        rows = jax.tree.map(lambda x: jnp.moveaxis(x, axis, 0), inside.info)
        found, d = self._pull(found, Inside(inside.t0, inside.t1, rows, inside.accepted))
        info = jax.tree.map(lambda x: jnp.moveaxis(x, 0, axis), d.info)
        return found, ForStep(d.t0, d.t1, info, d.constants)

    def _pull(self, found: Found, inside: Inside) -> tuple[Found, ForStep]:
        nothing = tree.zeros_like((inside.t0, inside.t1, inside.info))
        of_fn = [jnp.zeros_like(self.flat[i]) for i in self.parameters]

        def body(state: tuple) -> tuple:
            found, ct, _ = state
            found, ct = self._pull_block(found, ct, inside)
            return found, ct, self._anything_left(found, inside)

        t0, t1, info = nothing
        state = (found, ForStep(t0, t1, info, of_fn), self._anything_left(found, inside))
        found, ct, _ = lax.while_loop(lambda state: state[2], body, state)
        return found, ct

    def _anything_left(self, found: Found, inside: Inside) -> Flag:
        left = self.lanes.map(lambda flat, _, *rest: _is_left(*self._of(flat), *rest))
        return any_lane(left(self.flat, None, found, inside))

    def _pull_block(self, found: Found, ct: ForStep, inside: Inside) -> tuple[Found, ForStep]:
        """The block of times that ends just before `found.remaining`."""
        block = self.lanes.map(lambda flat, _, *rest: _block(self.size, *self._of(flat), *rest))
        wanted, times, ct_values = block(self.flat, None, found, inside, self.ct_ys)

        def values(constants: list, t0: Time, t1: Time, info: Any, times: Any) -> Any:
            flat = list(self.flat)
            for position, value in zip(self.parameters, constants, strict=True):
                flat[position] = value
            return self.lanes.map(self._values)(flat, None, t0, t1, info, times)

        # A lane with no step here has t0 == t1, where interpolation divides by zero.
        t1 = jnp.where(inside.accepted, inside.t1, inside.t0 + 1)
        constants = [self.flat[i] for i in self.parameters]
        _, vjp = jax.vjp(values, constants, inside.t0, t1, inside.info, times)
        d_constants, d_t0, d_t1, d_info, d_ts = vjp(ct_values)
        write = self.lanes.map(lambda flat, _, *rest: _found(self.size, *rest))
        # Along noise nobody differentiates by times.
        d_ts = d_ts if self.problem.noise is None else None
        found = write(self.flat, None, found, wanted, d_ts)
        d = ForStep(d_t0, d_t1, d_info, d_constants)
        return found, tree.add(ct, d)

    def _values(self, flat: list, _: Any, *step: Any) -> Any:
        operands: Operands = jax.tree.unflatten(self.problem.treedef, flat)
        value_at: Any = functools.partial(values_at, self.problem, operands, self.index)
        if self.along is None:
            return value_at(*step)
        *steps, times = step
        own = _of_its_step(steps, times)
        return jax.tree.map(lambda x: x[:, 0], jax.vmap(value_at)(*own, times[:, None]))

    def _of(self, flat: list[Any]) -> tuple[Time, Any]:
        operands: Operands = jax.tree.unflatten(self.problem.treedef, flat)
        return operands.t0, operands.ts[self.index]


def _of_its_step(steps: list[Any], times: Any) -> list[Any]:
    """For each time what is known of the step that holds it, from rows of steps. As a product, for
    whose derivative no row is written to twice.
    """
    _, t1, _ = steps
    rows = jax.vmap(lambda step: ravel_pytree(step)[0])(steps)
    unravel = ravel_pytree(jax.tree.map(lambda x: x[0], steps))[1]
    which = jnp.argmax(t1[None] >= times[:, None], axis=1)
    chosen = jax.nn.one_hot(which, rows.shape[0], dtype=rows.dtype)
    return jax.vmap(unravel)(jnp.matmul(chosen, rows, precision=lax.Precision.HIGHEST))


def _is_left(t0: Time, ts: Any, found: Found, inside: Inside) -> Flag:
    last = ts[jnp.maximum(found.remaining - 1, 0)]
    wanted = (found.remaining > 0) & (last > _start_of(t0, inside))
    return wanted & jnp.any(inside.accepted)


def _start_of(t0: Time, inside: Inside) -> Time:
    """The first step also owns the times at its very start."""
    start = _start(inside)
    return jnp.where(start == t0, -jnp.inf, start)


def _start(inside: Inside) -> Time:
    """Of the step, or of the first of them."""
    return jnp.ravel(inside.t0)[0]


def _block(
    size: int, t0: Time, ts: Any, found: Found, inside: Inside, ct_ys: Any
) -> tuple[Flag, Any, Any]:
    """Which times of the block the step holds, the times, and the cotangents of their values."""
    take = lambda x: lax.dynamic_slice_in_dim(x, found.remaining, size)
    block = take(jnp.concatenate([jnp.full(size, -jnp.inf, ts.dtype), ts]))
    wanted = jnp.any(inside.accepted) & (block > _start_of(t0, inside))
    times = jnp.where(wanted, block, _start(inside))
    return wanted, times, tree.masked(wanted, jax.tree.map(take, ct_ys))


def _found(size: int, found: Found, wanted: Flag, d_ts: Any) -> Found:
    remaining = found.remaining - jnp.sum(wanted, dtype=found.remaining.dtype)
    if d_ts is None:
        return Found(found.ts, remaining)
    here = lax.dynamic_slice_in_dim(found.ts, found.remaining, size)
    d_ts = jnp.where(wanted, d_ts, here)
    ct_ts = lax.dynamic_update_slice_in_dim(found.ts, d_ts, found.remaining, 0)
    return Found(ct_ts, remaining)
