"""Smooth curves over [0, 1] from a few numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

DEGREE = 3


def places(num: int) -> np.ndarray:
    """Where each of `num` coefficients of `spline` has its middle, from 0 to 1 (Greville's).

    Coefficients equal to them make the identity.
    """
    knots = _knots(num)
    return np.array([knots[i + 1 : i + 1 + DEGREE].mean() for i in range(num)])


def spline(
    t: Float[Array, "*times"], coefficients: Float[Array, "num *size"]
) -> Float[Array, "*times_and_size"]:
    """The cubic B-spline with equal intervals and these coefficients, at least 4.

    It begins in the first and ends in the last one, has two continuous derivatives, and rises where
    they do. Beyond [0, 1] its last pieces go on.
    """
    table = jnp.asarray(_pieces(len(coefficients)), coefficients.dtype)
    powers = jnp.tensordot(table, coefficients, 1, precision="highest")
    intervals = len(table)
    place = t * intervals
    piece = jnp.clip(jnp.floor(jax.lax.stop_gradient(place)), 0, intervals - 1)
    rows = powers[piece.astype(int)]
    s = (place - piece).reshape(*t.shape, *[1] * (coefficients.ndim - 1))
    first, *others = (jnp.take(rows, power, axis=t.ndim) for power in range(DEGREE + 1))
    total = others.pop()
    while others:
        total = others.pop() + s * total
    return first + s * total


@functools.cache
def _pieces(num: int) -> np.ndarray:
    """Piece, power of the share of the piece, coefficient: what each adds to each."""
    intervals = num - DEGREE
    nodes = np.linspace(0.0, 1.0, DEGREE + 1)
    to_powers = np.linalg.inv(np.vander(nodes, increasing=True))
    values = [[_blend(i, (i + s) / intervals, num) for s in nodes] for i in range(intervals)]
    return np.einsum("pk,ikc->ipc", to_powers, np.array(values))


def _blend(piece: int, t: float, num: int) -> np.ndarray:
    """The weight of each coefficient at `t`, by de Boor's algorithm."""
    knots = _knots(num)
    rows = list(np.eye(num)[piece : piece + DEGREE + 1])
    for level in range(1, DEGREE + 1):
        for j in range(DEGREE, level - 1, -1):
            left, right = knots[piece + j], knots[piece + j + DEGREE + 1 - level]
            share = (t - left) / (right - left)
            rows[j] = (1 - share) * rows[j - 1] + share * rows[j]
    return rows[DEGREE]


def _knots(num: int) -> np.ndarray:
    inner = np.linspace(0.0, 1.0, num - DEGREE + 1)
    return np.concatenate([np.zeros(DEGREE), inner, np.ones(DEGREE)])


def monotone(
    x: Float[Array, "*times"], widths: Float[Array, " steps"], rise: float
) -> Float[Array, "*times"]:
    """The cubic Hermite curve from 0 that rises by `rise` over each of these widths, without an
    overshoot (Fritsch-Carlson).
    """
    secants = rise / widths
    inner = 2 * secants[1:] * secants[:-1] / (secants[1:] + secants[:-1])
    slopes = jnp.concatenate([secants[:1], inner, secants[-1:]])
    knots = jnp.concatenate([jnp.zeros_like(widths[:1]), jnp.cumsum(widths)])
    i = jnp.clip(jnp.searchsorted(knots, x, side="right") - 1, 0, len(widths) - 1)
    h, left, right = widths[i], slopes[i], slopes[i + 1]
    s = (x - knots[i]) / h
    bend = (1 - s) * (left * h - rise) - s * (right * h - rise)
    return rise * i.astype(x.dtype) + s * (rise + (1 - s) * bend)
