"""The root mean square of a few numbers, without a product of matrices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx

from ...tree import sum_in_order
from ..programs.batch_axis import lanes_last

_FEW = 8


def rms_norm(tree: Any) -> Any:
    """`optimistix.rms_norm`; its derivative at zero is zero.

    optimistix's is a product of vectors, and with lanes one of matrices: for a few numbers half of
    a step. Written out as a sum it is part of what stands around it.
    """
    leaves = jax.tree.leaves(tree)
    size, dtypes = sum(leaf.size for leaf in leaves), {leaf.dtype for leaf in leaves}
    real = all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes)
    if not (0 < size <= _FEW and len(dtypes) == 1 and real):
        return optx.rms_norm(tree)
    squares = [x[i] * x[i] for x in map(lanes_last, map(jnp.ravel, leaves)) for i in range(x.size)]
    total = sum_in_order(squares)
    return _root(total) / np.sqrt(size).astype(total.dtype)


def preferred(norm: Any) -> Any:
    """The norm as the engine computes it."""
    return rms_norm if norm is optx.rms_norm else norm


@jax.custom_jvp
def _root(x: Any) -> Any:
    return jnp.sqrt(x)


@_root.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    root = _root(*primals)
    positive = root > 0
    return root, jnp.where(positive, 0.5 / jnp.where(positive, root, 1), 0) * tangents[0]
