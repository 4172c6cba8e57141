"""Values at the user's times `ts`, written as the solve passes them.

In blocks of consecutive times, so that the cost grows with the number of times and not with steps
x times. Where a block reaches past the step, the rest of it is left for the next step.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jax import lax

from ... import tree
from ...shapes import Count, Flag, Time
from ..programs.effects import mapped_over_rows
from ..programs.lanes import Lanes
from ..steppers.stepper import Trial
from .attempt import Proposal
from .problem import Operands, Problem

BLOCK = 8


class Saved(eqx.Module):
    """The values at `ts[:count]`; infinity after that, as diffrax pads."""

    ys: Any
    count: Count


def block_size(problem: Problem, number: int) -> int:
    """How many of a `number` of times are looked at together."""
    return min(BLOCK if problem.between is None else problem.between.block, number)


def nothing_saved(problem: Problem, operands: Operands, index: int) -> Saved:
    """Before the first step, for `SubSaveAt` number `index`."""
    ts, plan = operands.ts[index], problem.plans[index]
    rows = ts.shape[0] + block_size(problem, ts.shape[0])
    row = operands.y0 if plan.fn is None else plan.fn.shapes
    fill = lambda y: jnp.full((rows, *y.shape), jnp.inf, y.dtype)
    return Saved(jax.tree.map(fill, row), jnp.array(0))


def values_at(
    problem: Problem, operands: Operands, index: int, t0: Time, t1: Time, info: Any, ts: Any
) -> Any:
    """What `SubSaveAt` number `index` keeps of the state at a block of times inside a step."""
    plan, constants = problem.plans[index], operands.fns[index]
    state_at = _state_inside(problem, operands, t0, t1, info)

    def value(t: Time) -> Any:
        y = state_at(t)
        return y if plan.fn is None else plan.fn(constants, t, y)

    programs = [plan.fn, None if problem.between is None else problem.between.program]
    return mapped_over_rows(value, programs)(ts)


def inside_of(problem: Problem, ends: tuple[Time, Time], y0: Any, trial: Trial) -> Any:
    """What of a step the values inside it are made of."""
    t0, t1 = ends
    if problem.between is None:
        return problem.stepper.interpolant(t1 - t0, y0, trial)
    return {"t0": t0, "y0": y0, "y1": trial.y1}


def _state_inside(
    problem: Problem, operands: Operands, t0: Time, t1: Time, info: Any
) -> Callable[[Time], Any]:
    if problem.between is None:
        return problem.interpolation(t0=t0, t1=t1, **info).evaluate
    program = problem.between.program
    return lambda t: program(operands.between, t0, t1, info, t)


def save(
    problem: Problem, lanes: Lanes, flat: list, saved: Saved, proposal: Proposal, index: int
) -> Saved:
    """Write the values at the times inside the accepted steps, for `SubSaveAt` number `index`."""

    def waiting(flat: list, _: Any, saved: Saved, proposal: Proposal) -> Flag:
        ts, _ = _padded_behind(problem, flat, index)
        return proposal.accepted & (ts[saved.count] <= proposal.t_end)

    def write(flat: list, _: Any, saved: Saved, proposal: Proposal) -> Saved:
        ts, size = _padded_behind(problem, flat, index)
        operands: Operands = jax.tree.unflatten(problem.treedef, flat)
        block = lax.dynamic_slice_in_dim(ts, saved.count, size)
        inside = proposal.accepted & (block <= proposal.t_end)
        ends = (proposal.t, proposal.t_end)
        info = inside_of(problem, ends, proposal.y, proposal.trial)
        times = jnp.where(inside, block, proposal.t)
        values = values_at(problem, operands, index, *ends, info, times)
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
    size = block_size(problem, ts.shape[0])
    return jnp.concatenate([ts, jnp.full(size, jnp.inf, ts.dtype)]), size
