"""The solve as one JAX primitive, so that it meets `jax.vmap` before its loops exist.

A plain custom-vjp function is batched from outside: JAX maps its reverse pass, which then keeps one
cotangent of every shared parameter per lane and sums them at the end. As a primitive the solve is
told which arrays have a lane axis and emits one loop over all lanes (see `programs/lanes.py`).
Differentiation turns the primitive into a custom-vjp function at the point where JAX asks for it,
lanes known.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ..forward.checkpoints import Rows
from ..forward.loop import Outcome, Recording, Solved, outcome_struct, record_forward, solve_forward
from ..forward.problem import Operands, Problem
from ..forward.rounding import warn_of_rounding
from ..programs.batch_of_one import for_batch_of_one
from ..programs.lanes import Lanes
from ..programs.reverse_only import reverse_only
from .backwards import replay, times_of
from .kept_stages import with_stages_kept
from .steps_at_once import takes_steps_at_once

_solve_p = Primitive("ndekit_solve")
_solve_p.multiple_results = True


def solve(problem: Problem, operands: Operands) -> Outcome:
    """Solve; differentiable by record and replay."""
    warn_of_rounding(problem, operands)
    flat, treedef = jax.tree.flatten(jax.tree.map(jnp.asarray, operands))
    outcome = outcome_struct(problem, operands)
    problem = dataclasses.replace(problem, treedef=treedef, outcome=outcome)
    lanes = Lanes((), last=problem.fenced)
    out = _solve_p.bind(*flat, problem=problem, lanes=lanes)
    return jax.tree.unflatten(jax.tree.structure(outcome), out)


def _run(*flat: Any, problem: Problem, lanes: Lanes) -> list[Any]:
    outcome = solve_forward(problem, lanes, list(flat))
    return jax.tree.leaves(outcome)


def _abstract(*flat: Any, problem: Problem, lanes: Lanes) -> list[Any]:
    struct = jax.tree.leaves(problem.outcome)
    shape = lambda x: lanes.shape_with(x.shape, list(flat))
    return [ShapedArray(shape(x), x.dtype, weak_type=x.weak_type) for x in struct]


def _batch(flat: Any, axes: Any, *, problem: Problem, lanes: Lanes) -> tuple[list[Any], list[int]]:
    has_lane = tuple(axis is not None for axis in axes)
    moved = [
        jnp.moveaxis(x, axis, lanes.axis) if mapped else x
        for x, axis, mapped in zip(flat, axes, has_lane, strict=True)
    ]
    out = _solve_p.bind(*moved, problem=problem, lanes=lanes.within(has_lane))
    return out, [x.ndim - 1 if lanes.last else 0 for x in out]


def _jvp(primals: Any, tangents: Any, *, problem: Problem, lanes: Lanes) -> tuple[Any, Any]:
    primals = [jnp.asarray(x) for x in primals]  # literals come as Python scalars
    differentiable = [jnp.issubdtype(x.dtype, jnp.inexact) for x in primals]
    perturbed = tuple(
        ok and type(tangent) is not ad.Zero
        for ok, tangent in zip(differentiable, tangents, strict=True)
    )
    _refuse_lost_derivatives(problem, perturbed)
    rest = [None if p else x for x, p in zip(primals, perturbed, strict=True)]
    active = [x for x, p in zip(primals, perturbed, strict=True) if p]
    directions = [reverse_only(t) for t, p in zip(tangents, perturbed, strict=True) if p]
    function = _with_replay(problem, lanes, perturbed)
    out, d_out = jax.jvp(lambda *active: function(list(active), rest), active, directions)
    return out, [_without_float0(d) for d in d_out]


def _refuse_lost_derivatives(problem: Problem, perturbed: tuple[bool, ...]) -> None:
    if problem.max_steps is None:
        raise ValueError(
            "The engine keeps the time of each step, so it needs to know how many there can "
            "be, but got `max_steps=None`. Give a number, or use `adjoint=diffrax.ForwardMode()`."
        )
    flags: Operands = jax.tree.unflatten(problem.treedef, perturbed)
    of_rule = (flags.controller, flags.controller_state0)
    if not problem.own_grid and any(jax.tree.leaves(of_rule)):
        raise ValueError(
            "`ReplayAdjoint` holds the grid of steps constant, but the loss was differentiated by "
            "an array inside the step size controller. Stop its gradient with "
            "`jax.lax.stop_gradient`, or use `adjoint=diffrax.RecursiveCheckpointAdjoint()`."
        )


def _without_float0(tangent: Any) -> Any:
    """Integers have no tangent; a rule must say so with a symbolic zero."""
    if tangent.dtype == jax.dtypes.float0:
        return ad.Zero(ShapedArray(tangent.shape, tangent.dtype))
    return tangent


def _with_replay(problem: Problem, lanes: Lanes, perturbed: tuple[bool, ...]) -> Any:
    """The solve as a custom-vjp function of (perturbed operands, the rest)."""
    flags: Operands = jax.tree.unflatten(problem.treedef, perturbed)
    recorded = problem = dataclasses.replace(problem, grid=_grid_of(problem, flags))
    if problem.keeps_stages:
        recorded = with_stages_kept(problem, flags)
    recorded = dataclasses.replace(recorded, steps_at_once=takes_steps_at_once(recorded, lanes))

    def join(active: list, rest: list) -> list:
        values = iter(active)
        return [next(values) if p else x for x, p in zip(rest, perturbed, strict=True)]

    @jax.custom_vjp
    def run(active: list, rest: list) -> list[Any]:
        return _solve_p.bind(*join(active, rest), problem=problem, lanes=lanes)

    def forward(active: list, rest: list) -> tuple[list[Any], Any]:
        flat = join(active, rest)
        record = lambda alone: partial(record_forward, recorded, lanes, alone)
        outcome, recording = _either(recorded, record, _recorded_in_lanes, flat)
        return jax.tree.leaves(outcome), Solved(flat, outcome, recording)

    def backward(solved: Solved, ct: list) -> tuple[list, None]:
        go_back = lambda alone: partial(replay, recorded, lanes, perturbed, alone)
        said = map(_of_integer_too, jax.tree.leaves(solved.outcome), ct)
        ct_outcome = jax.tree.unflatten(jax.tree.structure(solved.outcome), said)
        everything = lambda out: jax.tree.map(lambda _: True, out)
        return _either(recorded, go_back, everything, solved, ct_outcome), None

    run.defvjp(forward, backward)
    return run


def _grid_of(problem: Problem, flags: Operands) -> str:
    """How the grid is differentiated, where it is one thing or another by what is perturbed."""
    if problem.moving or problem.noise is not None or not any(jax.tree.leaves(times_of(flags))):
        return problem.grid
    return "program" if problem.own_grid else "owned"


def _of_integer_too(value: Any, ct: Any) -> Any:
    """The cotangent of an integer as an array like any other."""
    return jnp.zeros_like(value) if ct.dtype == jax.dtypes.float0 else ct


def _either(problem: Problem, way: Callable, mapped: Callable, *args: Any) -> Any:
    """The way of one lane alone, if there is one."""
    if problem.steps_at_once:
        return for_batch_of_one(way(True), way(False), mapped, *args)
    return way(False)(*args)


def _recorded_in_lanes(found: tuple[Outcome, Recording]) -> Any:
    """What of a recorded solve has lanes, if `jax.vmap` maps it: all but how rows are counted."""
    outcome, recording = jax.tree.map(lambda _: True, found)
    counted = lambda r: (r.num_steps, r.stages)
    if isinstance(recording.record.rows, Rows):
        counted = lambda r: (r.num_steps, r.stages, r.rows.orders, r.rows.doublings)
    shared = lambda recording: counted(recording.record)
    nothing = jax.tree.map(lambda _: False, shared(recording))
    return outcome, eqx.tree_at(shared, recording, nothing)


_solve_p.def_impl(_run)
_solve_p.def_abstract_eval(_abstract)
mlir.register_lowering(_solve_p, mlir.lower_fun(_run, multiple_results=True))
batching.primitive_batchers[_solve_p] = _batch
ad.primitive_jvps[_solve_p] = _jvp
