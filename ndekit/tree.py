"""Arithmetic on PyTrees of arrays, leaf by leaf."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree


def where(pred: Bool[Array, "..."], if_true: PyTree, if_false: PyTree) -> PyTree:
    """Choose between two trees; `pred` may lack the trailing axes of the leaves."""

    def choose(a: Any, b: Any) -> Array:
        a, b = jnp.asarray(a), jnp.asarray(b)
        missing = max(a.ndim, b.ndim) - pred.ndim
        return jnp.where(jnp.reshape(pred, pred.shape + (1,) * missing), a, b)

    return jax.tree.map(choose, if_true, if_false)


def masked(pred: Bool[Array, "..."], tree: PyTree) -> PyTree:
    """`tree` where `pred` holds and zeros elsewhere."""
    return where(pred, tree, zeros_like(tree))


def zeros_like(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, tree)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether no number of the tree is infinite or NaN; other leaves do not count."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([_is_finite(leaf) for leaf in leaves], bool))


def _is_finite(x: Array) -> Bool[Array, ""]:
    # XLA's CPU compiler takes half as long to add up many numbers as to look at each.
    if x.size >= 1024:
        return jnp.isfinite(jnp.sum(x * 0))
    return jnp.all(jnp.isfinite(x))


def add(a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(jnp.add, a, b)


def subtract(a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(jnp.subtract, a, b)


def weighted_sum(weights: Sequence[float], trees: Sequence[PyTree]) -> PyTree:
    r"""$\sum_i w_i x_i$, with the terms of zero weight left out altogether."""
    kept = [(w, tree) for w, tree in zip(weights, trees, strict=True) if w != 0]
    if not kept:
        return zeros_like(trees[0])
    return jax.tree.map(
        lambda *leaves: sum_in_order([w * x for (w, _), x in zip(kept, leaves, strict=True)]),
        *[tree for _, tree in kept],
    )


def sum_in_order(terms: Sequence[Array]) -> Array:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def multiply(scalar: Any, tree: PyTree) -> PyTree:
    """`scalar * tree`, with the scalar taken to each leaf's dtype."""
    return jax.tree.map(lambda x: jnp.asarray(scalar).astype(x.dtype) * x, tree)


def read(buffers: PyTree, index: Any) -> PyTree:
    """Row `index` of every buffer."""
    return jax.tree.map(
        lambda b: jax.lax.dynamic_index_in_dim(b, index, 0, keepdims=False), buffers
    )


def rows(buffers: PyTree, indices: Any) -> PyTree:
    """Several rows of every buffer."""
    return jax.tree.map(lambda b: b[indices], buffers)


def write(buffers: PyTree, rows: PyTree, index: Any) -> PyTree:
    """The buffers with row `index` replaced."""
    return jax.tree.map(
        lambda b, row: jax.lax.dynamic_update_index_in_dim(b, row, index, 0), buffers, rows
    )


def num_bytes(tree: PyTree) -> int:
    """What the arrays of a tree take."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def zero_with_derivative(x: Array) -> Array:
    """Zero, with the derivative of `x`."""
    return x - jax.lax.stop_gradient(x)


@jax.custom_jvp
def held(x: PyTree) -> PyTree:
    """`x`, a constant of the innermost derivative that is being taken, and of no other.

    `jax.lax.stop_gradient` stops all of them: inside a gradient that is differentiated again it
    takes a term out of the second derivative.
    """
    return x


@held.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[PyTree, PyTree]:
    return primals[0], zeros_like(tangents[0])


def real_dtype(tree: PyTree) -> jnp.dtype:
    """The real floating dtype that the leaves promote to."""
    leaves = jax.tree.leaves(tree)
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*leaves) if leaves else jnp.result_type(float)
    return jnp.finfo(dtype).dtype
