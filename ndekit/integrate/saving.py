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

from .. import tree
from ..shapes import Count, Flag, State, Time
from .attempt import Proposal
from .lanes import Lanes
from .problem import Operands, Problem

_BLOCK = 8


class Saved(eqx.Module):
    """The values at `ts[:count]`; infinity after that, as diffrax pads."""

    ys: State
    count: Count


def block_size(ts: Any) -> int:
    return min(_BLOCK, ts.shape[0])


def nothing_saved(problem: Problem, operands: Operands) -> Saved | None:
    """Before the first step. A solve over no time at all has all its values already."""
    if operands.ts is None:
        return None
    rows = operands.ts.shape[0] + block_size(operands.ts)
    no_time = operands.t0 == operands.t1
    fill = lambda y: jnp.broadcast_to(jnp.where(no_time, y, jnp.inf), (rows, *y.shape))
    count = jnp.where(no_time, operands.ts.shape[0], 0)
    return Saved(jax.tree.map(fill, operands.y0), count)


def interpolate(problem: Problem, t0: Time, t1: Time, info: Any, ts: Any) -> State:
    """The solver's own interpolation of one step, at a block of times."""
    interpolation: diffrax.AbstractLocalInterpolation = problem.interpolation(t0=t0, t1=t1, **info)
    return jax.vmap(lambda t: interpolation.evaluate(t))(ts)


def save(problem: Problem, lanes: Lanes, flat: list, saved: Saved, proposal: Proposal) -> Saved:
    """Write the values at the times inside the accepted steps."""

    def waiting(flat: list, _: Any, saved: Saved, proposal: Proposal) -> Flag:
        ts, _ = _padded_behind(problem, flat)
        return proposal.accepted & (ts[saved.count] <= proposal.t_end)

    def write(flat: list, _: Any, saved: Saved, proposal: Proposal) -> Saved:
        ts, size = _padded_behind(problem, flat)
        block = lax.dynamic_slice_in_dim(ts, saved.count, size)
        inside = proposal.accepted & (block <= proposal.t_end)
        trial, h = proposal.trial, proposal.t_end - proposal.t
        info = problem.stepper.dense_info(h, proposal.y, trial)
        times = jnp.where(inside, block, proposal.t)
        values = interpolate(problem, proposal.t, proposal.t_end, info, times)
        values = tree.where(
            inside, values, jax.tree.map(lambda v: jnp.full_like(v, jnp.inf), values)
        )
        ys = jax.tree.map(
            lambda ys, v: lax.dynamic_update_slice_in_dim(ys, v, saved.count, 0), saved.ys, values
        )
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


def _padded_behind(problem: Problem, flat: list) -> tuple[Any, int]:
    """The times with a block of infinities behind them, and the length of a block."""
    ts = jax.tree.unflatten(problem.treedef, flat).ts
    size = block_size(ts)
    return jnp.concatenate([ts, jnp.full(size, jnp.inf, ts.dtype)]), size
