"""Which arrays of a model are trained, and of which types."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def trained(model: PyTree) -> PyTree:
    """The model's floating-point arrays; `None` elsewhere."""
    return eqx.filter(model, _flags(model))


def trained_and_rest(model: PyTree) -> tuple[PyTree, PyTree]:
    """What is trained, and what stays as it is."""
    return eqx.partition(model, _flags(model))


def strongly_typed(model: PyTree) -> PyTree:
    """The model, its arrays as they are after an update: a weak type would be lost there, and the
    second update compiled anew.
    """
    is_weak = lambda x: isinstance(x, jax.Array) and x.weak_type
    return jax.tree.map(lambda x: jnp.array(x, x.dtype) if is_weak(x) else x, model)


def _flags(model: PyTree) -> PyTree:
    """The arrays of a step size controller are the times of a grid, or tolerances: a weight decay
    would move them too.
    """
    is_controller = lambda node: isinstance(node, diffrax.AbstractStepSizeController)

    def flags(node: Any) -> Any:
        return False if is_controller(node) else eqx.is_inexact_array(node)

    return jax.tree.map(flags, model, is_leaf=is_controller)
