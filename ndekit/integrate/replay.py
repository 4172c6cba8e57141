"""The reverse pass: the recorded steps walked backwards, one vjp each.

Step sizes are constants: the gradient is that of the solve on its recorded grid. Rejected attempts
were never recorded, so nothing of them is evaluated here.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from .. import tree
from ..shapes import Count, State, Time
from .forward import Outcome, Recording
from .lanes import Lanes
from .problem import Operands, Problem
from .pull import Cotangents, RecordedStep, Replay, pull
from .record import Rows
from .saved_values import SavedValues, nothing_found, padded_in_front
from .saving import block_size


class _Walk(eqx.Module):
    ct: Cotangents
    rows: Rows
    step: Count


def replay(
    problem: Problem,
    lanes: Lanes,
    perturbed: tuple[bool, ...],
    flat: list[Any],
    recording: Recording,
    outcome: Outcome,
    ct_outcome: Any,
) -> list[Any]:
    """Cotangents of the perturbed operands, in their order."""
    pass_ = _prepare(problem, lanes, perturbed, flat, recording, outcome, ct_outcome)
    ct, record = _at_the_end(pass_, outcome, ct_outcome), recording.record
    walk = _Walk(ct, record.rows, record.num_steps - 1)
    walk = lax.while_loop(lambda w: w.step >= 0, lambda w: _turn(pass_, w), walk)
    return _collect(pass_, perturbed, walk.ct)


def _prepare(
    problem: Problem,
    lanes: Lanes,
    perturbed: tuple[bool, ...],
    flat: list[Any],
    recording: Recording,
    outcome: Outcome,
    ct_outcome: Any,
) -> Replay:
    flags: Operands = jax.tree.unflatten(problem.treedef, perturbed)
    positions: Operands = jax.tree.unflatten(problem.treedef, range(len(flat)))
    of_parameters = jax.tree.leaves((positions.constants, positions.costs))
    parameters = tuple(i for i in of_parameters if perturbed[i])
    saved = None
    if outcome.saved is not None:
        pad = lambda flat, _, ys: padded_in_front(jax.tree.unflatten(problem.treedef, flat).ts, ys)
        ct_ys = lanes.map(pad)(flat, None, ct_outcome.saved.ys)
        saved = SavedValues(problem, lanes, flat, ct_ys)
    counts, ct_costs = outcome.num_accepted, ct_outcome.costs
    return Replay(problem, lanes, flags, parameters, flat, recording, counts, ct_costs, saved)


def _at_the_end(pass_: Replay, outcome: Outcome, ct_outcome: Any) -> Cotangents:
    """The loss's derivative after the last step."""
    flat, carry, found = pass_.flat, (), None
    if pass_.chained:
        carry = pass_.map(lambda ops, _: tree.zeros_like(ops.carry0))(flat, None)
    if outcome.saved is not None:
        nothing = pass_.map(lambda ops, _, count: nothing_found(ops.ts, count))
        found = nothing(flat, None, outcome.saved.count)
    at_t1 = pass_.map(lambda ops, _, t: t == ops.t1)(flat, None, outcome.t)
    return Cotangents(
        parameters=[jnp.zeros_like(flat[i]) for i in pass_.parameters],
        y=ct_outcome.y,
        carry=carry,
        t0=jnp.zeros_like(outcome.t),
        t1=jnp.where(at_t1, ct_outcome.t, 0),
        found=found,
        remaining=outcome.num_accepted,
    )


def _turn(pass_: Replay, walk: _Walk) -> _Walk:
    """Go one step back."""
    rows, step = _arrive(pass_, walk.rows, walk.step)
    return _Walk(pull(pass_, walk.ct, step), rows, walk.step - 1)


def _arrive(pass_: Replay, rows: Rows, wanted: Count) -> tuple[Rows, RecordedStep]:
    """The state before step `wanted`: from its row, or by running on from the last row before it.

    On the way checkpoints are left in the free rows, evenly spaced; for a distance no longer than
    their number, all.
    """
    problem, times = pass_.problem, pass_.recording.record.times

    def advance(operands: Operands, number: Count, t0: Time, t1: Time, y: State) -> State:
        field = problem.field(operands)
        return tree.where(t1 > t0, problem.stepper.solution(field, t0, t1, y), y)

    def run_on(state: tuple) -> tuple:
        rows, y, number = state
        y = pass_.map(advance)(pass_.flat, number, times[number], times[number + 1], y)
        number = number + 1
        return rows.put(y, number, (number - first) % spacing == 0), y, number

    y, first = rows.last_until(wanted)
    free = rows.num_free() + 1
    spacing = jnp.maximum((wanted - first + free - 1) // free, 1)
    rows, y, _ = lax.while_loop(lambda s: s[2] < wanted, run_on, (rows, y, first))
    t0, t1 = times[wanted], times[wanted + 1]
    return rows.without(rows.steps == wanted), RecordedStep(wanted, t0, t1, y, t1 > t0)


def _collect(pass_: Replay, perturbed: tuple[bool, ...], ct: Cotangents) -> list[Any]:
    """The cotangents in the operands' order, summed over lanes that an operand lacks."""
    operands: Operands = jax.tree.unflatten(pass_.problem.treedef, pass_.flat)
    ct_y, ct_ts, ct_carry0 = ct.y, None, ct.carry
    if not pass_.chained:
        ct_carry0 = pass_.map(lambda ops, _: tree.zeros_like(ops.carry0))(pass_.flat, None)
    if ct.found is not None and pass_.saved is not None:
        ct_y = pass_.map(_add_values_over_no_time)(pass_.flat, None, ct.y, pass_.saved.ct_ys)
        unpad = pass_.map(lambda ops, _, ts: ts[block_size(ops.ts) :])
        ct_ts = unpad(pass_.flat, None, ct.found.ts)
    filled = dataclasses.replace(operands, y0=ct_y, carry0=ct_carry0, t0=ct.t0, t1=ct.t1, ts=ct_ts)
    found = jax.tree.leaves(filled)
    by_parameter = dict(zip(pass_.parameters, ct.parameters, strict=True))
    wanted = []
    for i, (is_perturbed, value) in enumerate(zip(perturbed, found, strict=True)):
        if is_perturbed:
            in_full = i not in by_parameter
            wanted.append(pass_.lanes.sum_missing(value, i) if in_full else by_parameter[i])
    return wanted


def _add_values_over_no_time(operands: Operands, _: Any, ct_y: State, ct_ys: State) -> State:
    """A solve from t0 to t0 saved y0 at every time."""
    no_time = operands.t0 == operands.t1
    total = jax.tree.map(lambda ys: jnp.sum(ys, axis=0), ct_ys)
    return tree.where(no_time, tree.add(ct_y, total), ct_y)
