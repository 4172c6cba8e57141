"""Linear systems of a few unknowns, without a call to a library."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jax.flatten_util import ravel_pytree

from ...shapes import State

# Elimination is written out: 2 n^3 operations to compile.
_FEW = 4


def inverse(m: Any) -> Any:
    """Inverses of matrices on the last two axes; of a few rows by elimination with pivots."""
    size = m.shape[-1]
    if size > _FEW:
        return jnp.linalg.inv(m)
    unit = jnp.broadcast_to(jnp.eye(size, dtype=m.dtype), m.shape)
    rows = [jnp.concatenate([m, unit], axis=-1)[..., i, :] for i in range(size)]
    for i in range(size):
        for j in range(i + 1, size):
            larger = (jnp.abs(rows[j][..., i]) > jnp.abs(rows[i][..., i]))[..., None]
            rows[i], rows[j] = (
                jnp.where(larger, rows[j], rows[i]),
                jnp.where(larger, rows[i], rows[j]),
            )
        rows[i] = rows[i] / rows[i][..., i : i + 1]
        for j in range(size):
            if j != i:
                rows[j] = rows[j] - rows[j][..., i : i + 1] * rows[i]
    return jnp.stack(rows, axis=-2)[..., size:]


class ByInverse(lx.AbstractLinearSolver):
    """Inverts a dense matrix once, and multiplies by it in every iteration."""

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> Any:
        return inverse(operator.as_matrix())

    def compute(self, state: Any, vector: Any, options: dict[str, Any]) -> tuple:
        flat, unravel = ravel_pytree(vector)
        # Not a product of matrices, which would be a call.
        return unravel(jnp.sum(state * flat[None, :], axis=1)), lx.RESULTS.successful, {}

    def transpose(self, state: Any, options: dict[str, Any]) -> tuple:
        return state.T, options

    def conj(self, state: Any, options: dict[str, Any]) -> tuple:
        return jnp.conj(state), options

    def assume_full_rank(self) -> bool:
        return True


def by_inverses(solver: Any, y0: State) -> Any:
    """A solver whose root finders invert their matrices, where these are small."""
    if not 0 < sum(leaf.size for leaf in jax.tree.leaves(y0)) <= _FEW:
        return solver
    is_finder = lambda x: isinstance(x, optx.AbstractRootFinder)
    return jax.tree.map(_inverting, solver, is_leaf=is_finder)


def _inverting(part: Any) -> Any:
    linear_solver = getattr(part, "linear_solver", None)
    if type(linear_solver) is not lx.AutoLinearSolver or linear_solver.well_posed is False:
        return part
    return eqx.tree_at(lambda finder: finder.linear_solver, part, ByInverse())
