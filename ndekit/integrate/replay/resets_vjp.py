"""The vjp of resets, on the way back: each before that of the step that ended there."""

import dataclasses
from typing import Any

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jax import lax

from ... import tree
from ...shapes import Count, Flag, State, Time
from ..forward.problem import Operands, Problem
from ..forward.resets import own_time, reset
from ..programs.equations import primitive_names
from ..programs.outer_products import merge_outer_products
from .step_vjp import Cotangents, Replay


class _Given(eqx.Module):
    """Everything that a reset depends on."""

    parameters: list[Any]
    y: State
    t: Time


def before_resets(pass_: Replay, ct: Cotangents, ended: tuple[Time, Flag] | None) -> Cotangents:
    """The loss's derivative before the resets that are the next on the way back: those at the end
    of a step (its end, and whether it was accepted), or all that are left.
    """
    if pass_.problem.resets is None:
        return ct
    waits = pass_.map(lambda ops, _, left, *ended: _waits(ops, left, *ended))
    is_waiting = lambda ct: waits(pass_.flat, None, ct.resets_left, *(ended or ()))
    places = _places(pass_)

    def body(state: tuple[Cotangents, Flag]) -> tuple[Cotangents, Flag]:
        ct = _before_one(pass_, places, *state)
        return ct, is_waiting(ct)

    # As on the way there: a loop that runs once or not at all.
    state = (ct, is_waiting(ct))
    return lax.while_loop(lambda s: eqxi.unvmap_any(s[1]), body, state)[0]


def _waits(operands: Operands, left: Count, t_end: Any = None, accepted: Any = None) -> Flag:
    """Whether a lane stands behind a reset."""
    waits = left > 0
    if t_end is None:
        return waits
    return waits & accepted & (operands.resets.ts[jnp.maximum(left - 1, 0)] >= t_end)


def _places(pass_: Replay) -> tuple[int, ...]:
    """Which of the pass's parameters a reset may depend on: places among these."""
    positions: Operands = jax.tree.unflatten(pass_.problem.treedef, range(len(pass_.flat)))
    resets = positions.resets
    read = jax.tree.leaves((resets.update, resets.begin))
    if pass_.chained:
        read += jax.tree.leaves(positions.constants)
    return tuple(i for i, position in enumerate(pass_.parameters) if position in read)


def _before_one(pass_: Replay, places: tuple[int, ...], ct: Cotangents, here: Flag) -> Cotangents:
    """The loss's derivative before one reset, in lanes that stand `here` behind it."""
    flat, made, said = pass_.flat, pass_.resets, pass_.ct_outcome.resets
    lookup = pass_.map(lambda ops, _, *given: _place(pass_.problem, ops, *given))
    index, t, y = lookup(flat, None, made, ct.resets_left, here)
    own = pass_.map(lambda ops, _, rows, index, here: tree.masked(here, tree.read(rows, index)))
    said_before, said_after = own(flat, None, (said.rows.before, said.rows.after), index, here)
    one = pass_.map(lambda ops, _, *given: _reset(pass_, ops, *given))

    def run(given: _Given) -> Any:
        filled = list(flat)
        for i, value in zip(places, given.parameters, strict=True):
            filled[pass_.parameters[i]] = value
        return one(filled, None, index, given.t, given.y)

    given = _Given([flat[pass_.parameters[i]] for i in places], y, t)
    out, vjp = jax.vjp(run, given)
    behind = pass_.where(here, (ct.y, ct.carry), tree.zeros_like((ct.y, ct.carry)))
    behind = (tree.add(behind[0], said_after), behind[1])
    pulled = _pulled(pass_.problem, vjp, jax.tree.map(lambda x, o: x.astype(o.dtype), behind, out))
    parameters = list(ct.parameters)
    for i, value in zip(places, pulled.parameters, strict=True):
        parameters[i] = parameters[i] + value
    nothing = tree.zeros_like(ct.carry)
    before = (tree.add(pulled.y, said_before), nothing)
    y, carry = pass_.where(here, before, (ct.y, ct.carry))
    grid = ct.grid
    if grid is not None:
        moved = pass_.where(here, pulled.t, tree.zeros_like(pulled.t))
        grid = dataclasses.replace(grid, t=grid.t + moved)
    left = ct.resets_left - here.astype(ct.resets_left.dtype)
    return dataclasses.replace(
        ct, parameters=parameters, y=y, carry=carry, grid=grid, resets_left=left
    )


def _place(
    problem: Problem, operands: Operands, made: Any, left: Count, here: Flag
) -> tuple[Count, Time, State]:
    """Where a lane was reset; of one that was not, where it was reset first, or else the start."""
    ts, index = operands.resets.ts, jnp.where(here, left - 1, 0)
    been = made.count > 0
    before = tree.read(made.rows.before, index)
    t = own_time(problem, operands, ts[index])
    t, y = tree.where(been, (t, before), (operands.t0, operands.y0))
    return index, t, y


def _reset(pass_: Replay, operands: Operands, index: Count, t: Time, y: State) -> tuple:
    """The state after a reset, and what of the carry has a cotangent."""
    problem: Problem = pass_.problem
    if not pass_.chained:
        return problem.resets.update(operands.resets.update, index, t, y), ()
    after, carry = reset(problem, operands, index, t, y, operands.carry0)
    return after, eqx.filter(carry, eqx.is_inexact_array)


def _pulled(problem: Problem, vjp: Any, ct: Any) -> _Given:
    if "dot_general" not in primitive_names(problem.resets.update.jaxpr.jaxpr):
        return vjp(ct)[0]
    return merge_outer_products(vjp, ct)[0]
