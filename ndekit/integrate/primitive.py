"""The solve as one JAX primitive, so that it meets `jax.vmap` before its loops exist.

A plain custom-vjp function is batched from outside: JAX maps its reverse pass, which then keeps one
cotangent of every shared parameter per lane and sums them at the end. As a primitive the solve is
told which arrays have a lane axis and emits one loop over all lanes (see `lanes.py`).
Differentiation turns the primitive into a custom-vjp function at the point where JAX asks for it,
lanes known.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .forward import Outcome, outcome_struct, solve_forward
from .keeping import with_stages_kept
from .lanes import Lanes
from .problem import Operands, Problem
from .replay import replay

_solve_p = Primitive("ndekit_solve")
_solve_p.multiple_results = True


def solve(problem: Problem, operands: Operands) -> Outcome:
    """Solve; differentiable by record and replay."""
    flat, treedef = jax.tree.flatten(jax.tree.map(jnp.asarray, operands))
    outcome = outcome_struct(problem, operands)
    problem = dataclasses.replace(problem, treedef=treedef, outcome=outcome)
    lanes = Lanes((), last=problem.fenced)
    out = _solve_p.bind(*flat, problem=problem, lanes=lanes)
    return jax.tree.unflatten(jax.tree.structure(outcome), out)


def _run(*flat: Any, problem: Problem, lanes: Lanes) -> list[Any]:
    outcome, _ = solve_forward(problem, lanes, list(flat), recording=False)
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
    directions = [t for t, p in zip(tangents, perturbed, strict=True) if p]
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
    if any(jax.tree.leaves((flags.controller, flags.controller_state0))):
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
    recorded = problem
    if problem.keeps_stages:
        recorded = with_stages_kept(problem, jax.tree.unflatten(problem.treedef, perturbed))

    def join(active: list, rest: list) -> list:
        values = iter(active)
        return [next(values) if p else x for x, p in zip(rest, perturbed, strict=True)]

    @jax.custom_vjp
    def run(active: list, rest: list) -> list[Any]:
        return _solve_p.bind(*join(active, rest), problem=problem, lanes=lanes)

    def forward(active: list, rest: list) -> tuple[list[Any], Any]:
        flat = join(active, rest)
        outcome, recording = solve_forward(recorded, lanes, flat, recording=True)
        return jax.tree.leaves(outcome), (flat, outcome, recording)

    def backward(residuals: Any, ct: list) -> tuple[list, None]:
        flat, outcome, recording = residuals
        ct_outcome = jax.tree.unflatten(jax.tree.structure(outcome), ct)
        return replay(recorded, lanes, perturbed, flat, recording, outcome, ct_outcome), None

    run.defvjp(forward, backward)
    return run


_solve_p.def_impl(_run)
_solve_p.def_abstract_eval(_abstract)
mlir.register_lowering(_solve_p, mlir.lower_fun(_run, multiple_results=True))
batching.primitive_batchers[_solve_p] = _batch
ad.primitive_jvps[_solve_p] = _jvp
