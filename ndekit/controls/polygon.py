r"""Log-signatures of consecutive windows of a polygon, by closed sums.

With $S_k$ the place of corner $k$ as seen from the window's beginning and $D_k$ the piece behind
it, composing pieces one by one adds up to

$$A_k = \tfrac12 [S_k, D_k], \quad P_k = \sum_{l<k} A_l, \quad L_2 = \sum_k A_k, \quad
L_3 = \sum_k \Big( \tfrac12 [P_k, D_k] + \tfrac16 [S_k - D_k, A_k] \Big).$$

Nothing in it waits for the piece before but the sums $P_k$: a scan that composes piece by piece
gives the same, step after step. A window adds up what is its own: sums since the beginning,
subtracted, are worthless in float32 after a long time.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..tree import where


class Rows(NamedTuple):
    """The pieces of all windows in rows of `width` each; a window takes as many as it needs.

    Attributes:
        window: which window each row belongs to.
        begins: whether the row is its window's first.
        corners: `(row, width + 1)` numbers of the corners, those of knots before those of edges.
            What is left of a row stays at the window's end.
    """

    window: Int[Array, " row"]
    begins: Array
    corners: Int[Array, "row width+1"]


def level_sums(
    xs: Float[Array, "knots d"],
    at_edges: Float[Array, "edges d"],
    rows: Rows,
    depth: int,
) -> tuple[Array, ...]:
    """The levels of each window, `(w, d)`, `(w, d, d)`, ...

    Args:
        xs: the corners of the polygon.
        at_edges: its values where windows meet.
        rows: in which order it passes through these.
        depth: how many levels.
    """
    total = jnp.diff(at_edges, axis=0)
    if depth == 1:
        return (total,)
    points = jnp.concatenate([xs, at_edges])[rows.corners]
    pieces = jnp.diff(points, axis=1)
    places = points[:, :-1] - at_edges[rows.window][:, None]
    product = places[..., :, None] * pieces[..., None, :]
    areas = (product - jnp.swapaxes(product, -1, -2)) / 2
    of_rows = jnp.sum(areas, axis=1)
    levels = (total, _of_windows(of_rows, rows, len(total)))
    if depth == 2:
        return levels
    before = _before_each(areas) + _before_each_row(of_rows, rows)[:, None]
    # As [P, D] = -[D, P], both sums are of brackets of a vector with a matrix.
    vectors = jnp.concatenate([-pieces / 2, (places - pieces) / 6], axis=1)
    matrices = jnp.concatenate([before, areas], axis=1)
    outer = jnp.einsum("rki,rkjl->rijl", vectors, matrices, precision="highest")
    outer = _of_windows(outer, rows, len(total))
    return (*levels, outer - jnp.moveaxis(outer, -3, -1))


def in_rows(
    knots: Float[Array, " knots"],
    edges: Float[Array, " edges"],
    most: int | None,
) -> Rows:
    """The corners that each window passes through.

    Args:
        knots: increasing places of the corners.
        edges: increasing places where windows meet.
        most: the largest number of pieces that a window can have, where it is known.
    """
    num_knots, num_windows = len(knots), len(edges) - 1
    most = num_knots + 1 if most is None else most
    # One row a window for short ones, as many rows as columns for a long one.
    width = max(1, min(most, math.ceil(num_knots / num_windows), math.isqrt(num_knots) + 1))
    most_rows = math.ceil((num_knots + num_windows * width) / width)
    num_rows = min(num_windows * math.ceil(most / width), most_rows)
    first = jnp.searchsorted(knots, edges[:-1], side="right")
    inside = jnp.maximum(jnp.searchsorted(knots, edges[1:], side="left") - first, 0)
    if num_rows == num_windows:
        window, number = jnp.arange(num_rows, dtype=first.dtype), jnp.zeros_like(first)
    else:
        taken = jnp.cumsum(inside // width + 1)
        row = jnp.arange(num_rows, dtype=first.dtype)
        window = jnp.searchsorted(taken, row, side="right").astype(first.dtype)
        window = jnp.minimum(window, num_windows - 1)
        number = row - (taken - (inside // width + 1))[window]
    column = jnp.arange(width + 1, dtype=first.dtype)
    first, inside, at = first[window][:, None], inside[window][:, None], window[:, None]
    corner = jnp.minimum(number[:, None] * width + column[None], inside + 1)
    corners = jnp.where(corner == 0, num_knots + at, first + corner - 1)
    corners = jnp.where(corner > inside, num_knots + at + 1, corners)
    return Rows(window, number == 0, corners)


def _of_windows(of_rows: Array, rows: Rows, num_windows: int) -> Array:
    """Sums over the rows of each window."""
    if len(of_rows) == num_windows:
        return of_rows
    if num_windows == 1:
        return jnp.sum(of_rows, axis=0, keepdims=True)
    return jax.ops.segment_sum(of_rows, rows.window, num_windows, indices_are_sorted=True)


def _before_each(areas: Float[Array, "row width d d"]) -> Float[Array, "row width d d"]:
    """Sums of what stands before in the row."""
    return jnp.cumsum(areas, axis=1) - areas


def _before_each_row(of_rows: Float[Array, "row d d"], rows: Rows) -> Float[Array, "row d d"]:
    """Sums of the earlier rows of the same window."""

    def turn(total: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        own, begins = row
        total = where(begins, jnp.zeros_like(total), total)
        return total + own, total

    return jax.lax.scan(turn, jnp.zeros_like(of_rows[0]), (of_rows, rows.begins))[1]
