r"""The reverse pass of one small state: a stretch of steps at once.

What takes long in the gradient of a small solve is the number of operations, one step after the
other, and not their arithmetic. All states are in the record, so the steps of a stretch can be
linearized side by side, as if they were lanes. Only

$$\lambda_n = J_n^T \lambda_{n+1} + s_n, \qquad J_n = \partial y_{n+1} / \partial y_n,$$

goes from step to step, where $s_n$ is what the loss says of the inside of a step. The Jacobians of
a state of $d$ numbers are $d$ cotangents taken through all steps at once; with every $\lambda$
known, one more gives the derivative by the parameters.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from ... import tree
from ...shapes import Count, State
from ..forward.problem import Problem
from ..forward.record import RecordedStep
from ..programs.effects import calls_host
from ..programs.lanes import Lanes
from .step_vjp import (
    Advanced,
    Cotangents,
    Replay,
    ct_of_readings,
    linearize,
    pull_inside,
)

# Steps side by side: most solves of a small network take so few, and empty ones cost as much.
STEPS = 24
# Numbers of a state: its Jacobians take as many passes over a step.
_LARGEST_STATE = 8
# Numbers that costs give: each step of a stretch is shown all of them.
_LARGEST_COSTS = 64
# Bytes of the stages of all steps.
_LARGEST_RECORD = 2**22


def takes_steps_at_once(problem: Problem, lanes: Lanes) -> bool:
    """Whether the reverse pass takes steps side by side: those of one small state, by an explicit
    scheme on a vector field, where a step depends on nothing else of the step before.
    """
    if lanes.levels or problem.max_steps is None or not problem.stepper.steps_at_once:
        return False
    if problem.one_by_one or problem.moving or any(map(calls_host, problem.programs)):
        return False
    y, costs, t = problem.outcome.y, problem.outcome.costs, problem.outcome.t
    numbers = lambda x: sum(leaf.size for leaf in jax.tree.leaves(x))
    small = numbers(y) <= _LARGEST_STATE and numbers(costs) <= _LARGEST_COSTS
    record = problem.max_steps * problem.num_stages * tree.num_bytes(y)
    one_dtype = len({x.dtype for x in jax.tree.leaves((y, t))}) == 1
    return small and one_dtype and record <= _LARGEST_RECORD


def vjp_of_steps(pass_: Replay, ct: Cotangents, end: Count) -> tuple[Cotangents, Count]:
    """The loss's derivative before the last steps of those before `end`, from that after them; and
    which step is the first of these.
    """
    steps, first = _steps_before(pass_, end)
    along = _side_by_side(pass_, steps.t0.shape[0])
    out, vjp = linearize(along, steps, end)
    accepted = steps.accepted.astype(ct.remaining.dtype)
    remaining = ct.remaining - lax.cumsum(accepted, reverse=True)
    parameters, found, ct_info, _ = pull_inside(along, ct, steps, out.info, remaining)
    readings = ct_of_readings(along, steps, remaining)
    said = dataclasses.replace(tree.zeros_like(out), readings=readings, info=ct_info)
    ct_y, after = _from_step_to_step(along, steps, vjp, said, ct.y)
    pulled = vjp(dataclasses.replace(said, y1=after))
    parameters = tree.add(parameters, pulled.parameters)
    return Cotangents(parameters, ct_y, ct.carry, ct.owned, found, remaining[0], None), first


def _steps_before(pass_: Replay, end: Count) -> tuple[RecordedStep, Count]:
    """The last steps before `end`, in the layout of lanes, and which is the first of them. Where
    there are too few, empty ones come after them.
    """
    record = pass_.recording.record
    number = min(STEPS, record.max_steps)
    first = jnp.maximum(end - number, 0)
    steps = record.steps(first, number)
    start = jax.tree.map(lambda x: x[:1], (steps.t0, steps.t0, steps.y, steps.memo))
    real = first + jnp.arange(number) < end
    found = steps.t0, steps.t1, steps.y, steps.memo
    t0, t1, *at_stages = tree.where(real, found, start)
    y, stages = _as_lanes(pass_.lanes, at_stages)
    accepted = steps.accepted & real
    return dataclasses.replace(steps, t0=t0, t1=t1, y=y, memo=stages, accepted=accepted), first


def _side_by_side(pass_: Replay, number: int) -> Replay:
    """The pass with each step as a lane; what is known of the one lane is known in each."""
    lanes = pass_.lanes.within((False,) * len(pass_.flat))
    everywhere = lambda x: _as_lanes(lanes, jnp.broadcast_to(x, (number, *jnp.shape(x))))
    spread = lambda x: jax.tree.map(everywhere, x)
    recording, said = pass_.recording, pass_.ct_outcome
    saved = pass_.saved
    return dataclasses.replace(
        pass_,
        side_by_side=True,
        lanes=lanes,
        recording=dataclasses.replace(recording, totals=spread(recording.totals)),
        ct_outcome=dataclasses.replace(said, costs=spread(said.costs)),
        num_accepted=spread(pass_.num_accepted),
        saved=[s and dataclasses.replace(s, along=lanes.axis) for s in saved],
    )


def _from_step_to_step(
    along: Replay, steps: RecordedStep, vjp: Callable, said: Advanced, ct_y: State
) -> tuple[State, State]:
    r"""$\lambda$ before the first step, and after each, in the layout of lanes."""
    lanes, (flat_y, unravel) = along.lanes, ravel_pytree(ct_y)
    number, size = steps.t0.shape[0], flat_y.size

    def before(direction: Any, weight: Any) -> Any:
        """What comes out in front of each step for `direction` behind it, and what is said."""
        everywhere = jnp.broadcast_to(direction, (number, size))
        y1 = _as_lanes(lanes, jax.vmap(unravel)(everywhere))
        weighted = jax.tree.map(lambda x: x * weight.astype(x.dtype), said)
        pulled = vjp(dataclasses.replace(weighted, y1=y1)).y
        return jax.vmap(lambda y: ravel_pytree(y)[0])(_as_rows(lanes, pulled))

    says = bool(jax.tree.leaves((said.readings, said.info)))
    directions = jnp.eye(size + says, size, dtype=flat_y.dtype)
    weights = jnp.eye(size + says, size + 1, dtype=flat_y.dtype)[:, -1]
    pulled = jax.vmap(before, out_axes=-1)(directions, weights)
    accepted = steps.accepted[:, None]
    standstill = jnp.eye(size, dtype=flat_y.dtype)[None], jnp.zeros_like(flat_y)[None]
    jacobians = jnp.where(accepted[..., None], pulled[..., :size], standstill[0])
    sources = jnp.where(accepted, pulled[..., -1] if says else standstill[1], standstill[1])
    lambdas = _solved(jacobians, sources, flat_y)
    after = jnp.where(accepted, lambdas[1:], 0)
    return unravel(lambdas[0]), _as_lanes(lanes, jax.vmap(unravel)(after))


def _solved(jacobians: Any, sources: Any, last: Any) -> Any:
    r"""All $\lambda$, as one triangular system."""
    number, size, _ = jacobians.shape
    following = jnp.eye(number, k=1, dtype=last.dtype)
    system = -following[:, None, :, None] * jacobians[:, :, None, :]
    at_end = sources[-1] + jnp.sum(jacobians[-1] * last[None], axis=-1)
    known = jnp.concatenate([sources[:-1], at_end[None]])
    found = lax.linalg.triangular_solve(
        system.reshape(number * size, number * size), known.reshape(-1, 1), left_side=True,
        lower=False, unit_diagonal=True,
    )  # fmt: skip
    return jnp.concatenate([found.reshape(number, size), last[None]])


def _as_lanes(lanes: Lanes, rows: Any) -> Any:
    """Rows, one for each step, in the layout of lanes."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, lanes.axis), rows)


def _as_rows(lanes: Lanes, x: Any) -> Any:
    """The inverse of `_as_lanes`."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, lanes.axis, 0), x)
