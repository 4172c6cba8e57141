"""Values at the user's times `ts`, written as the solve passes them.

In blocks of consecutive times, so that the cost grows with the number of times and not with steps
x times. Where a block reaches past the step, the rest of it is left for the next step.
"""

from typing import Any

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jax import lax

from ... import tree
from ...shapes import Count, Flag, Time
from ..programs.effects import mapped_over_rows
from ..programs.lanes import Lanes
from .attempt import Proposal
from .problem import Operands, Plan, Problem

BLOCK = 8


class Saved(eqx.Module):
    """The values at `ts[:count]`; infinity after that, as diffrax pads."""

    ys: Any
    count: Count


def block_size(ts: Any) -> int:
    return min(BLOCK, ts.shape[0])


def nothing_saved(problem: Problem, operands: Operands, index: int) -> Saved:
    """Before the first step, for `SubSaveAt` number `index`."""
    ts, plan = operands.ts[index], problem.plans[index]
    rows = ts.shape[0] + block_size(ts)
    row = operands.y0 if plan.fn is None else plan.fn.shapes
    fill = lambda y: jnp.full((rows, *y.shape), jnp.inf, y.dtype)
    return Saved(jax.tree.map(fill, row), jnp.array(0))


def values_at(
    problem: Problem, plan: Plan, constants: list[Any], t0: Time, t1: Time, info: Any, ts: Any
) -> Any:
    """The solver's own interpolation of one step at a block of times, and what is kept of it."""
    interpolation: diffrax.AbstractLocalInterpolation = problem.interpolation(t0=t0, t1=t1, **info)

    def value(t: Time) -> Any:
        y = interpolation.evaluate(t)
        return y if plan.fn is None else plan.fn(constants, t, y)

    return mapped_over_rows(value, plan.fn)(ts)


def save(
    problem: Problem, lanes: Lanes, flat: list, saved: Saved, proposal: Proposal, index: int
) -> Saved:
    """Write the values at the times inside the accepted steps, for `SubSaveAt` number `index`."""
    plan = problem.plans[index]

    def waiting(flat: list, _: Any, saved: Saved, proposal: Proposal) -> Flag:
        ts, _ = _padded_behind(problem, flat, index)
        return proposal.accepted & (ts[saved.count] <= proposal.t_end)

    def write(flat: list, _: Any, saved: Saved, proposal: Proposal) -> Saved:
        ts, size = _padded_behind(problem, flat, index)
        constants = jax.tree.unflatten(problem.treedef, flat).fns[index]
        block = lax.dynamic_slice_in_dim(ts, saved.count, size)
        inside = proposal.accepted & (block <= proposal.t_end)
        trial, h = proposal.trial, proposal.t_end - proposal.t
        info = problem.stepper.interpolant(h, proposal.y, trial)
        times = jnp.where(inside, block, proposal.t)
        values = values_at(problem, plan, constants, proposal.t, proposal.t_end, info, times)
        values = tree.where(inside, values, jax.tree.map(_infinite, values))
        put = lambda ys, v: lax.dynamic_update_slice_in_dim(ys, v, saved.count, 0)
        ys = jax.tree.map(put, saved.ys, values)
        return Saved(ys, saved.count + jnp.sum(inside, dtype=saved.count.dtype))

    is_waiting = lambda s: any_lane(lanes.map(waiting)(flat, None, s, proposal))
    step = lanes.map(write)

    def body(state: tuple[Saved, Flag]) -> tuple[Saved, Flag]:
        s = step(flat, None, state[0], proposal)
        return s, is_waiting(s)

    return lax.while_loop(lambda s: s[1], body, (saved, is_waiting(saved)))[0]


def any_lane(flags: Flag) -> Flag:
    """One plain scalar for all lanes, also for those that an outer `jax.vmap` adds."""
    return eqxi.unvmap_any(flags)


def _infinite(x: Any) -> Any:
    return jnp.full_like(x, jnp.inf)


def _padded_behind(problem: Problem, flat: list, index: int) -> tuple[Any, int]:
    """The times with a block of infinities behind them, and the length of a block."""
    ts = jax.tree.unflatten(problem.treedef, flat).ts[index]
    size = block_size(ts)
    return jnp.concatenate([ts, jnp.full(size, jnp.inf, ts.dtype)]), size
