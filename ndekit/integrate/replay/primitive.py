"""The solve as one JAX primitive, so that it meets `jax.vmap` before its loops exist.

Batched from outside, a reverse pass would keep one cotangent of every shared parameter per lane and
sum them at the end. As a primitive the solve is told which arrays have a lane axis, and emits one
loop over all lanes (see `programs/lanes.py`). Where JAX asks for a derivative, the lanes are known:
then the solve is recorded, and replayed.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray

from ..forward.loop import solve_forward
from ..forward.outcome import Outcome, outcome_struct
from ..forward.problem import Operands, Problem
from ..forward.rounding import warn_of_rounding
from ..programs.lanes import Lanes
from ..programs.own_rules import AbstractProgram, has_tangent, operation, placed
from .derivatives import record, tangents_of


def solve(problem: Problem, operands: Operands) -> Outcome:
    """Solve; differentiable by record and replay."""
    warn_of_rounding(problem, operands)
    flat, treedef = jax.tree.flatten(jax.tree.map(jnp.asarray, operands))
    outcome = outcome_struct(problem, operands)
    problem = dataclasses.replace(problem, treedef=treedef, outcome=outcome)
    lanes = Lanes((), last=problem.fenced)
    return jax.tree.unflatten(jax.tree.structure(outcome), Solve(problem, lanes)(*flat))


@dataclass(frozen=True, eq=False)
class Solve(AbstractProgram):
    """From the operands the outcome."""

    primitive = operation("ndekit_solve")

    problem: Problem
    lanes: Lanes

    def run(self, *flat: Any) -> list[Any]:
        return jax.tree.leaves(solve_forward(self.problem, self.lanes, list(flat)))

    def avals(self, *flat: Any) -> list[Any]:
        shape = lambda x: self.lanes.shape_with(x.shape, list(flat))
        each = jax.tree.leaves(self.problem.outcome)
        return [ShapedArray(shape(x), x.dtype, weak_type=x.weak_type) for x in each]

    def batch(self, arrays: list[Any], axes: tuple[int | None, ...]) -> tuple[list[Any], list]:
        has_lane = tuple(axis is not None for axis in axes)
        given = placed(arrays, axes, self.lanes.where(has_lane))
        out = Solve(self.problem, self.lanes.within(has_lane))(*given)
        return out, list(self.lanes.axes_of(out))

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        perturbed = tuple(map(has_tangent, tangents))
        solve, found = record(self.problem, self.lanes, perturbed, primals)
        return found[: solve.num_values], tangents_of(solve, found, primals, tangents)
