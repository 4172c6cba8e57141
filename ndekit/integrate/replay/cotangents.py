"""What the reverse pass has found, in the order of the operands."""

import dataclasses
from typing import Any

import equinox as eqx
import jax

from ... import tree
from ..control.user_times import OwnedTimes, pulled_to_owned
from ..forward.grid import Grid
from ..forward.problem import Operands, Problem
from ..forward.resets import cut_at
from .step_vjp import Cotangents, Replay


def collect(pass_: Replay, perturbed: tuple[bool, ...], ct: Cotangents) -> list[Any]:
    """The cotangents in the operands' order, summed over lanes that an operand lacks. `None` for
    what nothing depends on, so that JAX goes no further there.
    """
    found = _by_position(pass_, ct)
    by_parameter = dict(zip(pass_.parameters, ct.parameters, strict=True))
    wanted = []
    for i in (i for i, is_perturbed in enumerate(perturbed) if is_perturbed):
        if i in by_parameter:
            wanted.append(by_parameter[i])
        else:
            value = found[i]
            wanted.append(None if value is None else pass_.lanes.sum_missing(value, i))
    return wanted


def _by_position(pass_: Replay, ct: Cotangents) -> dict[int, Any]:
    """The cotangents of operands that each lane has for itself, by their positions; `None` for
    those on which nothing depends.
    """
    positions: Operands = jax.tree.unflatten(pass_.problem.treedef, range(len(pass_.flat)))
    found: dict[int, Any] = {}

    def put(where: Any, values: Any) -> None:
        of = lambda tree: jax.tree.leaves(tree, is_leaf=lambda x: x is None)
        found.update((i, x) for i, x in zip(of(where), of(values), strict=True) if i is not None)

    # Conditions decide where a solve ends, and their values go nowhere.
    # And the times of resets are owned times.
    known = positions.watch, positions.carry0, getattr(positions.resets, "ts", None)
    found.update(dict.fromkeys(jax.tree.leaves(known)))
    if pass_.chained:
        carry0 = pass_.map(lambda ops, _: tree.zeros_like(ops.carry0))(pass_.flat, None)
        put(positions.carry0, eqx.combine(ct.carry, carry0))
    put(positions.y0, ct.y)
    put(pass_.problem.owned_times(positions), ct.owned)
    for where, values, found_at in zip(positions.ts, pass_.saved, ct.found, strict=True):
        if values is not None and found_at is not None:
            unpad = lambda _, __, ts, size=values.size: ts[size:]
            put(where, pass_.map(unpad)(pass_.flat, None, found_at.ts))
    if ct.grid is not None and pass_.problem.grid == "owned":
        owned = pass_.map(lambda ops, _, *rest: _at_the_start(pass_.problem, ops, *rest))
        put(pass_.problem.owned_times(positions), owned(pass_.flat, None, ct.owned, ct.grid))
    elif ct.grid is not None:
        of_first = pass_.map(lambda ops, _, *rest: _of_first_end(pass_.problem, ops, *rest))
        owned, t_next0 = of_first(pass_.flat, None, ct.owned, ct.grid)
        put(pass_.problem.owned_times(positions), owned)
        put((positions.t0, positions.t_next0), (ct.grid.t, t_next0))
        if pass_.problem.own_grid:
            smooth = jax.tree.map(eqx.is_inexact_array, _lane_operands(pass_).controller_state0)
            put(eqx.filter(positions.controller_state0, smooth), ct.grid.memory)
    return found


def _at_the_start(problem: Problem, operands: Operands, ct: OwnedTimes, grid: Grid) -> OwnedTimes:
    """The cotangents of the user's times, with what is said of the ends of the first attempt."""
    ct, t_next0 = _of_first_end(problem, operands, ct, grid)
    first = pulled_to_owned((operands.t_next0,), problem.owned_times(operands), (t_next0,))
    ct = tree.add(ct, first)
    return dataclasses.replace(ct, t0=ct.t0 + grid.t)


def _of_first_end(
    problem: Problem, operands: Operands, ct: OwnedTimes, grid: Grid
) -> tuple[OwnedTimes, Any]:
    """The cotangents of the user's times and of the controller's end of the first attempt: one that
    a reset cuts short ends at a time of the user.
    """
    if problem.resets is None:
        return ct, grid.t_end
    first = lambda t_next0, stops: cut_at(operands.t0, t_next0, stops)
    _, vjp = jax.vjp(first, operands.t_next0, operands.stops)
    t_next0, stops = vjp(grid.t_end)
    return dataclasses.replace(ct, stops=ct.stops + stops), t_next0


def _lane_operands(pass_: Replay) -> Operands:
    return jax.tree.unflatten(pass_.problem.treedef, pass_.flat)
