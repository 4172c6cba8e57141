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
from ..shapes import Count
from .checkpoints import Stack, stack_of
from .forward import Outcome, Recording
from .lanes import Lanes
from .moving import Grid
from .problem import Operands, Problem
from .pull import Cotangents, Replay, pull
from .record import RecordedStep
from .saved_values import SavedValues, nothing_found, padded_in_front
from .saving import block_size


class _Walk(eqx.Module):
    ct: Cotangents
    states: Any  # the stack of checkpoints; or the state after the step, where steps are undone
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
    ct, record = _at_the_end(pass_, outcome), recording.record
    states = recording.end
    if record.rows is not None:
        states = stack_of(record.rows, record.num_steps)
    walk = _Walk(ct, states, record.num_steps - 1)
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
    if problem.noise is not None and any(jax.tree.leaves((flags.t0, flags.t1, flags.ts))):
        raise ValueError(
            "A solve with `BrownianMotion` has no derivative by `t0`, `t1` or `saveat.ts`: the "
            "path is nowhere differentiable. Pass them through `jax.lax.stop_gradient`."
        )
    positions: Operands = jax.tree.unflatten(problem.treedef, range(len(flat)))
    of_problem = (positions.constants, positions.costs, positions.of_field, positions.fns)
    parameters = tuple(i for i in jax.tree.leaves(of_problem) if perturbed[i])
    saved = []
    for index, values in enumerate(ct_outcome.streams.at_ts):
        if values is None:
            saved.append(None)
            continue
        pad = lambda flat, _, ys, index=index: padded_in_front(
            jax.tree.unflatten(problem.treedef, flat).ts[index], ys
        )
        of_fn = tuple(i for i in positions.fns[index] if perturbed[i])
        ct_ys = lanes.map(pad)(flat, None, values.ys)
        saved.append(SavedValues(problem, lanes, flat, index, of_fn, ct_ys))
    count = outcome.num_accepted
    return Replay(problem, lanes, flags, parameters, flat, recording, count, ct_outcome, saved)


def _at_the_end(pass_: Replay, outcome: Outcome) -> Cotangents:
    """The loss's derivative after the last step."""
    flat, ct_outcome = pass_.flat, pass_.ct_outcome
    carry = ct_outcome.carry
    if carry is None:
        carry = pass_.map(lambda ops, _: tree.zeros_like(ops.carry0))(flat, None)
    carry = eqx.filter(carry, eqx.is_inexact_array) if pass_.chained else ()
    found = []
    for index, saved in enumerate(outcome.streams.at_ts):
        nothing = pass_.map(lambda ops, _, n, index=index: nothing_found(ops.ts[index], n))
        found.append(None if saved is None else nothing(flat, None, saved.count))
    # Where step sizes are differentiated the end is reached by the last step's own times.
    owns_end = lambda ops, _, t: (t == ops.t1) & (not pass_.problem.moving)
    at_t1 = pass_.map(owns_end)(flat, None, outcome.t)
    return Cotangents(
        parameters=[jnp.zeros_like(flat[i]) for i in pass_.parameters],
        y=ct_outcome.y,
        carry=carry,
        t0=jnp.zeros_like(outcome.t),
        t1=tree.zeros_like(outcome.t)
        if pass_.problem.moving
        else jnp.where(at_t1, ct_outcome.t, 0),
        found=found,
        remaining=outcome.num_accepted,
        grid=_grid_at_the_end(pass_, outcome) if pass_.problem.moving else None,
    )


def _grid_at_the_end(pass_: Replay, outcome: Outcome) -> Grid:
    errors = pass_.map(lambda ops, _: tree.zeros_like(ops.controller_state0[:2]))
    return Grid(
        jnp.asarray(pass_.ct_outcome.t),
        jnp.zeros_like(outcome.t),
        errors(pass_.flat, None),
    )


def _turn(pass_: Replay, walk: _Walk) -> _Walk:
    """Go one step back."""
    go_before = _arrive if pass_.problem.undo is None else _undo
    states, step = go_before(pass_, walk.states, walk.step)
    return _Walk(pull(pass_, walk.ct, step, walk.step), states, walk.step - 1)


def _undo(pass_: Replay, after: tuple, wanted: Count) -> tuple[tuple, RecordedStep]:
    """The state before step `wanted`, from the state after it."""
    step = pass_.recording.record.step(wanted, after)

    def undo(operands: Operands, number: Count, step: RecordedStep) -> tuple:
        back = pass_.problem.undo
        assert back is not None  # or the record would hold states
        drawn = pass_.problem.draw(operands, (step.t0, step.t1), number)
        before = back(operands.undo, step.t0, step.t1, step.y, step.carry, *drawn)
        return tree.where(step.accepted, before, (step.y, step.carry)), drawn

    before, drawn = pass_.map(undo)(pass_.flat, wanted, step)
    step = dataclasses.replace(step, y=before[0], carry=before[1], memo=((), drawn))
    return (*before, ()), step


def _arrive(pass_: Replay, stack: Stack, wanted: Count) -> tuple[Stack, RecordedStep]:
    """The state before step `wanted`: from the stack, or by running on from what is on top.

    On the way checkpoints are pushed, evenly spaced over the room; for a distance no longer than
    that, all.
    """
    problem, record = pass_.problem, pass_.recording.record

    def advance(operands: Operands, number: Count, step: RecordedStep) -> tuple:
        jumped = None if step.details is None else step.details.made_jump
        ends, state = (step.t0, step.t1), (step.y, step.carry)
        trial, memo = problem.advance(operands, number, ends, state, jumped)
        carry = trial.carry if problem.stepper.keeps_carry else ()
        after = tree.where(step.accepted, (trial.y1, carry), (step.y, step.carry))
        return after, memo

    def run_on(loop: tuple) -> tuple:
        stack, (y, carry, _), number, _ = loop
        step = record.step(number, (y, carry, ()))
        after, memo = pass_.map(advance)(pass_.flat, number, step)
        keep = (number > first) & ((number - first) % spacing == 0)
        stack = stack.push((y, carry, memo), number, keep)
        return stack, (*after, memo), number + 1, jnp.array(False)

    state, first = stack.last()
    free = stack.num_free() + 1
    spacing = jnp.maximum((wanted - first + free - 1) // free, 1)
    # All that is read of the stack goes through the loop: what is read of it beside a loop that
    # writes to it makes the compiler copy it whole.
    loop = (stack, tuple(state), first, jnp.array(True))
    stack, (y, carry, memo), _, memo_fits = lax.while_loop(lambda s: s[2] < wanted, run_on, loop)
    if jax.tree.leaves(memo):
        step = record.step(wanted, (y, carry, ()))
        memo = lax.cond(
            memo_fits, lambda: memo, lambda: pass_.map(advance)(pass_.flat, wanted, step)[1]
        )
    return stack.without(wanted), record.step(wanted, (y, carry, memo))


def _collect(pass_: Replay, perturbed: tuple[bool, ...], ct: Cotangents) -> list[Any]:
    """The cotangents in the operands' order, summed over lanes that an operand lacks."""
    operands: Operands = jax.tree.unflatten(pass_.problem.treedef, pass_.flat)
    carry0 = pass_.map(lambda ops, _: tree.zeros_like(ops.carry0))(pass_.flat, None)
    ct_carry0 = eqx.combine(ct.carry, carry0) if pass_.chained else carry0
    ct_ts: list[Any] = [None] * len(ct.found)
    for index, found in enumerate(ct.found):
        if found is not None:
            unpad = lambda ops, _, ts, index=index: ts[block_size(ops.ts[index]) :]
            ct_ts[index] = pass_.map(unpad)(pass_.flat, None, found.ts)
    filled = dataclasses.replace(operands, y0=ct.y, carry0=ct_carry0, t0=ct.t0, t1=ct.t1, ts=ct_ts)
    if ct.grid is not None:
        filled = dataclasses.replace(filled, t0=ct.grid.t, t_next0=ct.grid.t_end)
    found = jax.tree.leaves(filled)
    by_parameter = dict(zip(pass_.parameters, ct.parameters, strict=True))
    wanted = []
    for i, (is_perturbed, value) in enumerate(zip(perturbed, found, strict=True)):
        if is_perturbed:
            in_full = i not in by_parameter
            wanted.append(pass_.lanes.sum_missing(value, i) if in_full else by_parameter[i])
    return wanted
