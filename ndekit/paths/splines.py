"""Smooth curves over [0, 1] from a few numbers."""

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
    num = len(coefficients)
    knots = jnp.asarray(_knots(num), t.dtype)
    intervals = num - DEGREE
    piece = jnp.clip(jnp.floor(jax.lax.stop_gradient(t) * intervals), 0, intervals - 1).astype(int)
    extra = coefficients.ndim - 1
    # De Boor's algorithm: four coefficients, blended into one.
    rows = [coefficients[piece + j] for j in range(DEGREE + 1)]
    for level in range(1, DEGREE + 1):
        for j in range(DEGREE, level - 1, -1):
            left, right = knots[piece + j], knots[piece + j + DEGREE + 1 - level]
            share = (t - left) / (right - left)
            share = share.reshape(*t.shape, *[1] * extra) if t.ndim and extra else share
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
