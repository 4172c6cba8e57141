"""The mean square of all entries of a state."""

import jax
import jax.numpy as jnp

from .. import tree
from ..shapes import Scalar, State


def mean_square(x: State) -> Scalar:
    """Over all leaves; a complex entry counts with its modulus. Zero for a state of no entries."""
    leaves = jax.tree.leaves(x)
    squares = [jnp.sum(jnp.real(leaf * jnp.conj(leaf))) for leaf in leaves]
    return tree.sum_in_order(squares) / max(1, sum(leaf.size for leaf in leaves))
