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

from ... import tree
from ...shapes import Count
from ..forward import stepping
from ..forward.checkpoints import Rows, Stack, stack_of
from ..forward.grid import Grid, remembered
from ..forward.outcome import Outcome, Solved
from ..forward.problem import Operands, Problem
from ..forward.record import AllRows, RecordedStep
from ..forward.resets import with_resets
from ..forward.saving import block_size
from ..programs.counted_loops import counted, turns_together, until
from ..programs.lanes import Lanes
from .cotangents import collect
from .resets_vjp import before_resets
from .saving_vjp import SavedValues, nothing_found, padded_in_front
from .step_vjp import Cotangents, Replay, step_vjp
from .steps_at_once import STEPS, vjp_of_steps

# Values at `ts` that are looked at together, where many steps are.
_BLOCK_OF_STRETCH = 128


class _Walk(eqx.Module):
    ct: Cotangents
    # The stack of checkpoints; or the state after the step, where steps are undone; or where all
    # are there, nothing, or which step is the next of each lane.
    states: Any
    step: Count


def replay(
    problem: Problem,
    lanes: Lanes,
    perturbed: tuple[bool, ...],
    alone: bool,
    solved: Solved,
    ct_outcome: Any,
) -> list[Any]:
    """Cotangents of the perturbed operands, in their order."""
    steps_at_once = alone and problem.steps_at_once
    pass_ = _prepare(problem, lanes, perturbed, solved, ct_outcome, steps_at_once)
    ct, record = _at_the_end(pass_, solved.outcome), solved.recording.record
    if steps_at_once:
        return collect(pass_, perturbed, _walked_at_once(pass_, ct))
    states, number = solved.recording.end, record.num_steps
    if isinstance(record.rows, Rows):
        states = stack_of(record.rows, record.num_steps)
    if record.latest is not None:
        states, number = record.latest[record.num_steps], jnp.max(solved.outcome.num_accepted)
    ct = _walked(pass_, _Walk(ct, states, number - 1)).ct
    return collect(pass_, perturbed, before_resets(pass_, ct, None))


def _walked_at_once(pass_: Replay, ct: Cotangents) -> Cotangents:
    record = pass_.recording.record
    walk, turn = (ct, record.num_steps), lambda walk: vjp_of_steps(pass_, *walk)
    if record.counts:
        return counted(-(-record.max_steps // min(STEPS, record.max_steps)), turn, walk)[0]
    return lax.while_loop(lambda w: w[1] > 0, turn, walk)[0]


def _walked(pass_: Replay, walk: _Walk) -> _Walk:
    record = pass_.recording.record
    goes_on = lambda w: w.step >= 0
    if record.page:
        return lax.while_loop(goes_on, lambda w: _turn_page(pass_, w), walk)
    if record.counts:
        return counted(record.max_steps, lambda w: _turn(pass_, w), walk)
    if not isinstance(record.rows, AllRows):
        return lax.while_loop(goes_on, lambda w: _turn(pass_, w), walk)
    together = turns_together(pass_.problem.max_steps)
    stays = together > 1
    return until(goes_on, lambda w: _turn(pass_, w, stays), walk, together)


def _prepare(
    problem: Problem,
    lanes: Lanes,
    perturbed: tuple[bool, ...],
    solved: Solved,
    ct_outcome: Any,
    steps_at_once: bool,
) -> Replay:
    flat = solved.flat
    positions: Operands = jax.tree.unflatten(problem.treedef, range(len(flat)))
    of_problem = (positions.constants, positions.costs, positions.of_field, positions.fns)
    of_problem = (*of_problem, positions.between)
    if problem.resets is not None:
        of_problem = (*of_problem, positions.resets.update, positions.resets.begin)
    if problem.moving:
        of_problem = (*of_problem, positions.controller)
    parameters = tuple(i for i in jax.tree.leaves(of_problem) if perturbed[i])
    saved, operands = [], jax.tree.unflatten(problem.treedef, flat)
    for index, values in enumerate(ct_outcome.streams.at_ts):
        if values is None:
            saved.append(None)
            continue
        size = _block_size(problem, lanes, operands.ts[index], steps_at_once)
        ct_ys = lanes.map(lambda _, __, ys, size=size: padded_in_front(ys, size))
        read = tuple(i for i in (*positions.fns[index], *positions.between) if perturbed[i])
        given = (problem, lanes, flat, index, read, size, ct_ys(flat, None, values.ys))
        saved.append(SavedValues(*given))
    return Replay(
        problem,
        lanes,
        parameters,
        flat,
        solved.recording,
        solved.outcome.num_accepted,
        ct_outcome,
        saved,
        solved.outcome.resets,
    )


def _block_size(problem: Problem, lanes: Lanes, ts: Any, steps_at_once: bool) -> int:
    """How many times of a solve are looked at at once: more, where more steps are."""
    length = ts.shape[0 if lanes.last else -1]
    return min(_BLOCK_OF_STRETCH, length) if steps_at_once else block_size(problem, length)


def _at_the_end(pass_: Replay, outcome: Outcome) -> Cotangents:
    """The loss's derivative after the last step."""
    flat, ct_outcome = pass_.flat, pass_.ct_outcome
    carry = ct_outcome.carry
    if carry is None:
        carry = pass_.map(lambda ops, _: tree.zeros_like(ops.carry0))(flat, None)
    carry = eqx.filter(carry, eqx.is_inexact_array) if pass_.chained else ()
    found = []
    for values, saved in zip(pass_.saved, outcome.streams.at_ts, strict=True):
        if values is None or saved is None:
            found.append(None)
            continue
        nothing = lambda ops, _, n, v=values: nothing_found(ops.ts[v.index], n, v.size)
        found.append(pass_.map(nothing)(flat, None, saved.count))
    owned = pass_.map(lambda ops, _: tree.zeros_like(pass_.problem.owned_times(ops)))
    return Cotangents(
        parameters=[jnp.zeros_like(flat[i]) for i in pass_.parameters],
        y=ct_outcome.y,
        carry=carry,
        owned=owned(flat, None),
        found=found,
        remaining=outcome.num_accepted,
        grid=_grid_at_the_end(pass_, outcome) if pass_.problem.moving else None,
        resets_left=None if outcome.resets is None else outcome.resets.count,
    )


def _grid_at_the_end(pass_: Replay, outcome: Outcome) -> Grid:
    problem, ct_memory = pass_.problem, pass_.ct_outcome.controller_state
    past = lambda ops, _: tree.zeros_like(remembered(problem, ops.controller_state0))
    memory = pass_.map(past)(pass_.flat, None)
    if problem.own_grid and ct_memory is not None:
        memory = eqx.filter(ct_memory, jax.tree.map(eqx.is_inexact_array, outcome.controller_state))
    return Grid(jnp.asarray(pass_.ct_outcome.t), jnp.zeros_like(outcome.t), memory)


def _turn(pass_: Replay, walk: _Walk, stays: bool = False) -> _Walk:
    """Go one step back; or stay where there is none left, if it may be so."""
    go_before = _arrive if pass_.problem.undo is None else _undo
    record = pass_.recording.record
    if isinstance(record.rows, AllRows):
        go_before = _look_up if record.latest is None else _look_up_by_lane
    number = jnp.maximum(walk.step, 0) if stays else walk.step
    states, step = go_before(pass_, walk.states, number)
    if stays:
        step = step.only_if(walk.step >= 0)
    ct = before_resets(pass_, walk.ct, (step.t1, step.accepted))
    return _Walk(step_vjp(pass_, ct, step, number), states, walk.step - 1)


def _turn_page(pass_: Replay, walk: _Walk) -> _Walk:
    """Go a page of steps back."""
    record = pass_.recording.record
    first = jnp.maximum(walk.step + 1 - record.page, 0)
    recording = dataclasses.replace(pass_.recording, record=record.page_from(first))
    of_page = dataclasses.replace(pass_, recording=recording)
    walk = _Walk(walk.ct, walk.states, walk.step - first)
    walk = lax.while_loop(lambda w: w.step >= 0, lambda w: _turn(of_page, w), walk)
    return _Walk(walk.ct, walk.states, first - 1)


def _look_up(pass_: Replay, nothing: Any, wanted: Count) -> tuple[Any, RecordedStep]:
    """The state before step `wanted`, where the record has all."""
    record: Any = pass_.recording.record
    return nothing, record.step(wanted, tree.read(record.rows.states, wanted))


def _look_up_by_lane(pass_: Replay, steps: Count, _: Count) -> tuple[Count, RecordedStep]:
    """Each lane before the last of its own steps that are left."""
    record: Any = pass_.recording.record

    def look(read: Any, row: Count) -> tuple:
        step = record.step(row, read(record.rows.states, row), read)
        return read(record.latest, row), step

    before, step = pass_.lanes.at_own_rows(look, jnp.maximum(steps, 0))
    return before, step.only_if(steps >= 0)


def _undo(pass_: Replay, after: tuple, wanted: Count) -> tuple[tuple, RecordedStep]:
    """The state before step `wanted`, from the state after it."""
    step = pass_.recording.record.step(wanted, after)

    def undo(operands: Operands, number: Count, step: RecordedStep) -> tuple:
        back = pass_.problem.undo
        assert back is not None  # or the record would hold states
        drawn = stepping.draw(pass_.problem, operands, (step.t0, step.t1), number)
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
    record = pass_.recording.record
    draw = pass_.map(lambda operands, *rest: _draw(pass_.problem, operands, *rest))
    advance = _advanced(pass_)

    def run_on(loop: tuple) -> tuple:
        stack, (y, carry, (_, drawn)), number, _ = loop
        step = record.step(number, (y, carry, ((), drawn)))
        after, left = advance(pass_.flat, number, step)
        keep = (number > first) & ((number - first) % spacing == 0)
        stack = stack.push((y, carry, (left, drawn)), number, keep)
        number = number + 1
        drawn = draw(pass_.flat, number, record.step(number, (*after, ())))
        return stack, (*after, (left, drawn)), number, jnp.array(False)

    state, first = stack.last()
    free = stack.num_free() + 1
    spacing = jnp.maximum((wanted - first + free - 1) // free, 1)
    # All that is read of the stack goes through the loop: what is read of it beside a loop that
    # writes to it makes the compiler copy it whole.
    loop = (stack, tuple(state), first, jnp.array(True))
    stack, (y, carry, memo), _, memo_fits = lax.while_loop(lambda s: s[2] < wanted, run_on, loop)
    step = record.step(wanted, (y, carry, memo))
    if jax.tree.leaves(memo[0]):
        # What a step leaves is known when it has been made, and this one has not been yet.
        left = lax.cond(memo_fits, lambda: memo[0], lambda: advance(pass_.flat, wanted, step)[1])
        step = dataclasses.replace(step, memo=(left, memo[1]))
    return stack.without(wanted), step


def _advanced(pass_: Replay) -> Any:
    """The state with which a solve goes on after a step, and what the step leaves."""
    problem = pass_.problem
    advance = pass_.map(lambda operands, *rest: _advance(problem, operands, *rest))
    if problem.resets is None:
        return advance
    resets = pass_.map(lambda operands, _, *given: with_resets(problem, operands, *given))

    def with_them(flat: list, number: Count, step: RecordedStep) -> tuple:
        after, left = advance(flat, number, step)
        made = (pass_.resets.rows.after, pass_.resets.count)
        return resets(flat, None, made, (step.t1, step.accepted), after), left

    return with_them


def _advance(problem: Problem, operands: Operands, number: Count, step: RecordedStep) -> tuple:
    """The state after a step, and what the step leaves."""
    jumped = None if step.details is None else step.details.made_jump
    ends, state = (step.t0, step.t1), (step.y, step.carry)
    trial, left = stepping.advance(problem, operands, number, ends, state, jumped, step.memo[1])
    carry = trial.carry if problem.stepper.keeps_carry else ()
    return tree.where(step.accepted, (trial.y1, carry), (step.y, step.carry)), left


def _draw(problem: Problem, operands: Operands, number: Count, step: RecordedStep) -> tuple:
    return stepping.draw(problem, operands, (step.t0, step.t1), number)
