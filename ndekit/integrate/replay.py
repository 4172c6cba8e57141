"""The reverse pass: the recorded steps walked backwards, one vjp each.

Step sizes are constants: the gradient is that of the solve on its recorded grid. Rejected attempts
were never recorded, so nothing of them is evaluated here.
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from .. import tree
from ..shapes import Count, Flag, State, Time
from .costs import readings_of, shares_of
from .forward import Outcome, Recording
from .lanes import Lanes
from .problem import Operands, Problem, result_dtype
from .record import Rows
from .saving import SavedCotangents, block_size, nothing_found, padded_in_front, pull_saved


@dataclass(frozen=True, eq=False)
class _Replay:
    """What stays fixed during one reverse pass."""

    problem: Problem
    lanes: Lanes
    perturbed: Operands  # of bools
    parameters: tuple[
        int, ...
    ]  # positions in `flat` of perturbed constants and arrays inside costs
    flat: list[Any]
    recording: Recording
    num_accepted: Count
    ct_costs: Any
    ct_ys: Any  # with a block of padding in front

    @property
    def wants_times(self) -> bool:
        return bool(self.perturbed.t0 or self.perturbed.t1)

    @property
    def chained(self) -> bool:
        """Whether the last stage of a step matters beyond being the next step's first.

        If not, a step is replayed as a function of its state alone, and the first stage is part of
        it. If so, the first stage is an input of its own, whose cotangent goes to the step before,
        where it was the last stage; else it would be differentiated twice.
        """
        return bool(self.ct_costs) or self.ct_ys is not None

    def map(self, fn: Any) -> Any:
        """`fn(operands, shared, *each)` over all lanes, the operands ours unless given."""
        joined = lambda flat, *rest: fn(jax.tree.unflatten(self.problem.treedef, flat), *rest)
        return self.lanes.map(joined)

    def where(self, pred: Flag, if_true: Any, if_false: Any) -> Any:
        choose = self.lanes.map(lambda _, __, *given: tree.where(*given))
        return choose(self.flat, None, pred, if_true, if_false)

    def with_parameters(self, values: list[Any]) -> list[Any]:
        flat = list(self.flat)
        for position, value in zip(self.parameters, values, strict=True):
            flat[position] = value
        return flat


class _Cotangents(eqx.Module):
    """The loss's derivative by everything at the start of some step."""

    parameters: list[Any]  # summed over the steps seen
    y: State
    carry: Any
    t0: Any
    t1: Any
    found: SavedCotangents | None
    remaining: Count  # accepted steps before this one, in each lane


class _Walk(eqx.Module):
    ct: _Cotangents
    rows: Rows
    step: Count


class _Recorded(eqx.Module):
    """One recorded step, in all lanes."""

    number: Count
    t0: Time
    t1: Time
    y: State
    accepted: Flag


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
    pass_, ct = _prepare(problem, lanes, perturbed, flat, recording, outcome, ct_outcome)
    record = recording.record
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
) -> tuple[_Replay, _Cotangents]:
    flags: Operands = jax.tree.unflatten(problem.treedef, perturbed)
    positions: Operands = jax.tree.unflatten(problem.treedef, range(len(flat)))
    of_parameters = jax.tree.leaves((positions.constants, positions.costs))
    parameters = tuple(i for i in of_parameters if perturbed[i])
    ct_ys = None
    if outcome.saved is not None:
        pad = lambda flat, _, ys: padded_in_front(jax.tree.unflatten(problem.treedef, flat).ts, ys)
        ct_ys = lanes.map(pad)(flat, None, ct_outcome.saved.ys)
    pass_ = _Replay(
        problem,
        lanes,
        flags,
        parameters,
        flat,
        recording,
        outcome.num_accepted,
        ct_outcome.costs,
        ct_ys,
    )
    carry = ()
    if pass_.chained:
        carry = pass_.map(lambda ops, _: tree.zeros_like(ops.carry0))(flat, None)
    at_t1 = pass_.map(lambda operands, _, t: t == operands.t1)(flat, None, outcome.t)
    ct = _Cotangents(
        parameters=[jnp.zeros_like(flat[i]) for i in parameters],
        y=ct_outcome.y,
        carry=carry,
        t0=jnp.zeros_like(outcome.t),
        t1=jnp.where(at_t1, ct_outcome.t, 0),
        found=None
        if ct_ys is None
        else pass_.map(lambda ops, _: nothing_found(ops.ts))(flat, None),
        remaining=outcome.num_accepted,
    )
    return pass_, ct


def _turn(pass_: _Replay, walk: _Walk) -> _Walk:
    """Go one step back."""
    rows, step = _arrive(pass_, walk.rows, walk.step)
    return _Walk(_pull(pass_, walk.ct, step), rows, walk.step - 1)


def _arrive(pass_: _Replay, rows: Rows, wanted: Count) -> tuple[Rows, _Recorded]:
    """The state before step `wanted`: from its row, or by running on from the last row before it.

    On the way checkpoints are left in the free rows, evenly spaced; for a distance no longer than
    their number, all.
    """
    problem, times = pass_.problem, pass_.recording.record.times

    def advance(operands: Operands, number: Count, t0: Time, t1: Time, y: State) -> State:
        field = problem.field(operands, number)
        carry = problem.stepper.init(field, t0, y)
        return tree.where(t1 > t0, problem.stepper.step(field, t0, t1, y, carry).y1, y)

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
    return rows.without(rows.steps == wanted), _Recorded(wanted, t0, t1, y, t1 > t0)


def _pull(pass_: _Replay, ct: _Cotangents, step: _Recorded) -> _Cotangents:
    """The vjp of one recorded step, in all lanes."""
    problem = pass_.problem
    parameters = [pass_.flat[i] for i in pass_.parameters]
    carry = ()
    if pass_.chained:
        init = pass_.map(lambda ops, _, t, y: problem.stepper.init(problem.field(ops), t, y))
        carry = init(pass_.flat, None, step.t0, step.y)
    advance = pass_.map(lambda ops, *rest: _advance(pass_, ops, *rest))

    def run(parameters: list, y: State, carry: Any, times: tuple) -> _Advanced:
        return advance(pass_.with_parameters(parameters), step.number, y, carry, *times)

    times = (step.t0, step.t1)
    if pass_.wants_times:
        out, vjp = jax.vjp(run, parameters, step.y, carry, times)
    else:
        out, vjp = jax.vjp(lambda *given: run(*given, times), parameters, step.y, carry)
    remaining = ct.remaining - step.accepted.astype(ct.remaining.dtype)
    found, ct_info, saved_times = ct.found, None, (0, 0)
    if found is not None:
        place = (step.t0, step.t1, out.info, step.accepted)
        found, ct_saved = pull_saved(problem, pass_.lanes, pass_.flat, pass_.ct_ys, found, place)
        ct_info, saved_times = ct_saved.info, (ct_saved.t0, ct_saved.t1)
    ct_y1, ct_carry1 = pass_.where(step.accepted, (ct.y, ct.carry), tree.zeros_like((ct.y, ct.carry)))
    pulled = vjp(
        _Advanced(ct_y1, ct_carry1, _ct_readings(pass_, step.accepted, remaining), ct_info)
    )
    ct_t0, ct_t1 = ct.t0, ct.t1
    if pass_.wants_times:
        ends = (step.t0, step.t1, step.accepted)
        d_times = tree.add(pulled[3], saved_times)
        ct_t0, ct_t1 = pass_.map(_own_times)(pass_.flat, None, ends, d_times, (ct_t0, ct_t1))
    return _Cotangents(
        parameters=tree.add(ct.parameters, pulled[0]),
        y=pass_.where(step.accepted, pulled[1], ct.y),
        carry=pass_.where(step.accepted, pulled[2], ct.carry),
        t0=ct_t0,
        t1=ct_t1,
        found=found,
        remaining=remaining,
    )


class _Advanced(eqx.Module):
    """Everything of one step that a loss can depend on."""

    y1: State
    carry: Any
    readings: dict[str, Any]
    info: Any


def _advance(
    pass_: _Replay, operands: Operands, number: Count, y: State, carry: Any, t0: Time, t1: Time
) -> _Advanced:
    """One step of one lane."""
    problem = pass_.problem
    field = problem.field(operands, number)
    if not pass_.chained:
        carry = problem.stepper.init(field, t0, y)
        return _Advanced(problem.stepper.step(field, t0, t1, y, carry).y1, (), {}, None)
    trial = problem.stepper.step(field, t0, t1, y, carry)
    placements = problem.full_placements(operands)
    readings = {}
    if placements:
        step = problem.view(operands, t0, t1, y, trial)
        readings = readings_of(placements, step, result_dtype(operands))
    info = None
    if operands.ts is not None:
        info = problem.stepper.dense_info(t1 - t0, y, trial)
    return _Advanced(trial.y1, trial.carry, readings, info)


def _ct_readings(pass_: _Replay, accepted: Flag, number: Count) -> dict[str, Any]:
    """What the loss says of each cost of accepted step `number`."""

    def of_lane(
        operands: Operands, _: Any, totals: Any, ct: Any, accepted: Flag, *counts: Count
    ) -> dict:
        placements = pass_.problem.full_placements(operands)
        shares = shares_of(placements, totals, *counts)
        return tree.masked(accepted, {name: ct[name] * share for name, share in shares.items()})

    if not pass_.ct_costs:
        return {}
    counts = (pass_.num_accepted, number)
    return pass_.map(of_lane)(
        pass_.flat, None, pass_.recording.totals, pass_.ct_costs, accepted, *counts
    )


def _own_times(operands: Operands, _: Any, ends: tuple, d_times: tuple, ct: tuple) -> tuple:
    """Times that the user owns: only the first step sees t0, only the last sees t1."""
    t0, t1, accepted = ends
    at_start = accepted & (t0 == operands.t0)
    at_end = accepted & (t1 == operands.t1)
    return ct[0] + jnp.where(at_start, d_times[0], 0), ct[1] + jnp.where(at_end, d_times[1], 0)


def _collect(pass_: _Replay, perturbed: tuple[bool, ...], ct: _Cotangents) -> list[Any]:
    """The cotangents in the operands' order and shapes: summed over lanes where an operand has no lane axis."""
    operands: Operands = jax.tree.unflatten(pass_.problem.treedef, pass_.flat)
    ct_y, ct_ts, ct_carry0 = ct.y, None, ct.carry
    if not pass_.chained:
        ct_carry0 = pass_.map(lambda ops, _: tree.zeros_like(ops.carry0))(pass_.flat, None)
    if ct.found is not None:
        ct_y = pass_.map(_add_values_over_no_time)(pass_.flat, None, ct.y, pass_.ct_ys)
        unpad = pass_.map(lambda ops, _, ts: ts[block_size(ops.ts) :])
        ct_ts = unpad(pass_.flat, None, ct.found.ts)
    filled = Operands(
        constants=operands.constants,
        costs=operands.costs,
        y0=ct_y,
        carry0=ct_carry0,
        t0=ct.t0,
        t1=ct.t1,
        ts=ct_ts,
        t_next0=operands.t_next0,
        controller=operands.controller,
        controller_state0=operands.controller_state0,
        totals0=operands.totals0,
    )
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
