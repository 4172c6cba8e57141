"""Which piece of a path holds a time, found without a loop.

A binary search is a loop of a dozen dependent turns: slow on an accelerator, and one more `while`
in the program of every stage. Here each knot is compared at once, in two rounds where there are
many; an engine that evaluates all stages of a step together compares for all of them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Below this many knots one round of comparisons is faster than two.
_ONE_ROUND = 256


def piece_at(knots: Float[Array, " knots"], t: Any, left: bool) -> Int[Array, ""]:
    """The `i` with `knots[i] < t <= knots[i + 1]`, or `knots[i] <= t < knots[i + 1]` if not `left`.

    0 for times before the first piece, the number of the last knot for those behind it.
    """
    t = jnp.asarray(t).astype(knots.dtype)
    if t.ndim:
        raise ValueError(f"A path is evaluated at one time, got shape {t.shape}. Use `jax.vmap`.")
    knots = jax.lax.stop_gradient(knots)
    return jnp.maximum(_num_before(knots, jax.lax.stop_gradient(t), left) - 1, 0)


def _num_before(knots: Array, t: Array, left: bool) -> Array:
    is_before = (lambda knots: knots < t) if left else (lambda knots: knots <= t)
    count = lambda knots: jnp.sum(is_before(knots), dtype=jnp.int32)
    size = knots.shape[0]
    if size <= _ONE_ROUND:
        return count(knots)
    width = int(size**0.5)
    heads = knots[::width]
    padding = jnp.full(len(heads) * width - size, jnp.inf, knots.dtype)
    blocks = jnp.concatenate([knots, padding]).reshape(len(heads), width)
    block = jnp.maximum(count(heads) - 1, 0)
    return block * width + count(blocks[block])
