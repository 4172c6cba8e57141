"""What it costs to pair two rows, and checks of the batches."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt

RandomKey = Key[Array, ""] | UInt[Array, "2"]


def pair_costs(
    x0: Float[Array, "n *shape"],
    x1: Float[Array, "n *shape"],
    condition: Any,
    condition_weight: float | Array,
) -> Float[Array, "n n"]:
    """Squared distances, row by row of `x0`, and a price for another condition.

    Labels (integers or booleans) differ or do not, by 1; real conditions by their squared distance.
    """
    costs = _squared_distances(x0, x1)
    if condition is None:
        return costs
    condition = jnp.asarray(condition)
    if condition.shape[:1] != x1.shape[:1]:
        raise ValueError(
            f"`condition` must have a row for each of the {len(x1)} pairs, got the shape "
            f"{condition.shape}."
        )
    if jnp.issubdtype(condition.dtype, jnp.floating):
        apart = _squared_distances(condition, condition).astype(costs.dtype)
    else:
        rows = condition.reshape(len(condition), -1)
        apart = jnp.any(rows[:, None] != rows[None], axis=2).astype(costs.dtype)
    return costs + condition_weight * apart


def check_batches(x0: Array, x1: Array) -> None:
    """Pass over two batches of one shape.

    Raises:
        ValueError: for others.
    """
    if x0.shape != x1.shape or x0.ndim == 0 or len(x0) == 0:
        raise ValueError(
            f"`x0` and `x1` must be batches of one shape, (n, ...), got {x0.shape} and {x1.shape}."
        )


def _squared_distances(x0: Array, x1: Array) -> Array:
    """By one product of matrices, about the mean of both, where it cancels least."""
    # Squares of half precision overflow at 256.
    wide = lambda x: x if x.dtype in (jnp.float32, jnp.float64) else x.astype(jnp.float32)
    x0, x1 = wide(x0.reshape(len(x0), -1)), wide(x1.reshape(len(x1), -1))
    both = jnp.concatenate([x0, x1])
    centre = jnp.mean(jnp.where(jnp.isfinite(both), both, 0), axis=0)[None]
    x0, x1 = x0 - centre, x1 - centre
    squares = jnp.sum(x0**2, axis=1)[:, None] + jnp.sum(x1**2, axis=1)[None]
    return jnp.maximum(squares - 2 * jnp.matmul(x0, x1.T, precision="highest"), 0)
