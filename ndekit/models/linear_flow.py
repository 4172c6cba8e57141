"""The states of a linear equation from window to window, in chunks."""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from .. import tree
from ..fields import LinearField
from ..fields.blocks import applied, exponential, identity, product

Flow = Literal["exp", "euler"]


class Increments(NamedTuple):
    """The log-signatures of straight lines, as far as they are not 0."""

    levels: tuple[Float[Array, "windows channels"]]


class Flowed(NamedTuple):
    """What comes out of all windows.

    Attributes:
        last: the state behind the last.
        total: the sum of the states behind each that is no padding.
        size: the sum of the generators' mean square entries, those of padding being 0.
        ys: the states behind each, if asked for.
    """

    last: Float[Array, " hidden"]
    total: Float[Array, " hidden"]
    size: Float[Array, ""]
    ys: Float[Array, "windows hidden"] | None


def flow_matrices(field: LinearField, window: Any, flow: Flow) -> tuple[Array, Array]:
    r"""$\exp(\Omega)$ of each window, or $I + \Omega$; and the mean square of what makes it."""
    omega = field.generator(window)
    one = jnp.broadcast_to(identity(omega), omega.shape)
    matrices = one + omega if flow == "euler" else exponential(omega)
    return matrices, jnp.mean(omega**2, axis=(-3, -2, -1))


def moved(field: LinearField, matrices: Array, y: Float[Array, "*w hidden"]) -> Array:
    """States behind windows, of those before them."""
    column = _columns(field, y)
    return _rows(field, applied(matrices, column))


def flow_along(
    field: LinearField,
    windows: Any,
    y0: Float[Array, " hidden"],
    is_real: Bool[Array, " windows"],
    *,
    flow: Flow,
    chunk: int,
    parallel: bool,
    keep: bool,
) -> Flowed:
    """From window to window: in a chunk all matrices are made at once, and again in the reverse
    pass, which so needs the memory of a chunk and not of the whole series.

    Args:
        field: the equation.
        windows: a log-signature with one window axis.
        y0: the state before the first.
        is_real: which windows are no padding.
        flow: the exponential, or its first two terms.
        chunk: windows in a chunk.
        parallel: whether the products of a chunk are made as a tree, in about log(chunk) steps of
            matrices, or one state after the other.
        keep: whether all states are wanted.
    """
    count = windows.levels[0].shape[0]
    chunk = min(chunk, max(count, 1))
    num_chunks = max(-(-count // chunk), 1)
    padding = num_chunks * chunk - count
    padded = lambda x: jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
    in_chunks = lambda x: padded(x).reshape(num_chunks, chunk, *x.shape[1:])
    body = partial(_chunk, field, flow, parallel, keep)
    start = _columns(field, y0)
    sums = jnp.zeros_like(start), jnp.zeros((), y0.dtype)
    # What is padding does nothing, whatever stands there.
    given = jax.tree.map(in_chunks, (tree.masked(is_real, windows), is_real))
    (last, (total, size)), ys = lax.scan(jax.checkpoint(body), (start, sums), given)
    if keep:
        ys = _rows(field, ys.reshape(-1, *ys.shape[2:])[:count])
    return Flowed(_rows(field, last), _rows(field, total), size, ys)


def _chunk(
    field: LinearField, flow: Flow, parallel: bool, keep: bool, state: tuple, given: tuple
) -> tuple:
    y, (total, size) = state
    window, is_real = given
    matrices, sizes = flow_matrices(field, window, flow)
    if parallel:
        products = lax.associative_scan(lambda a, b: product(b, a), matrices)
        ys = applied(products, jnp.broadcast_to(y, (len(products), *y.shape)))
    else:
        _, ys = lax.scan(_cross, y, matrices, unroll=4)
    weights = is_real.astype(y.dtype)
    total = total + jnp.tensordot(weights, ys, axes=1)
    return (ys[-1], (total, size + jnp.sum(weights * sizes))), ys if keep else None


def _cross(y: Array, matrices: Array) -> tuple[Array, Array]:
    y = applied(matrices, y)
    return y, y


def _columns(field: LinearField, y: Array) -> Array:
    """The state as its blocks see it: with a 1 behind each, where there are offsets."""
    column = field.in_blocks(y)
    if field.offsets is None:
        return column
    return jnp.concatenate([column, jnp.ones_like(column[..., :1, :])], axis=-2)


def _rows(field: LinearField, column: Array) -> Array:
    """The inverse of `_columns`."""
    size = field.matrices.shape[2]
    return column[..., :size, :].reshape(*column.shape[:-2], field.hidden_size)
