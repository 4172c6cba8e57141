"""What noisy data points say of the point that they were, on average."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, UInt

from ..numbers import count


def posterior_variance(
    x1: Any, *, key: Key[Array, ""] | UInt[Array, "2"], num: int = 4096
) -> Callable[[Array], Array]:
    r"""$s \mapsto \frac{1}{d} E \lVert x_1 - E[x_1 \mid x_1 + x_0 / s] \rVert^2$ of some points.

    Args:
        x1: points, `(n, ...)`, with a mean square of 1 for each coordinate.
        key: draws points and noise, once for all `s`: the function is smooth.
        num: pairs of a point and a noise.

    Raises:
        ValueError: if `x1` is not normalised, or `num` is too small.
    """
    count("num_samples", num)
    points = _normalised(x1)
    point_key, noise_key = jr.split(key)
    # Every point as often as the others, as far as that goes.
    chosen = jr.permutation(point_key, jnp.arange(num) % len(points))
    noise = jr.normal(noise_key, (num, points.shape[1]), points.dtype)

    def seen_from(j: Array, z: Array) -> tuple[Array, Array]:
        away = points - points[j][None]
        return jnp.sum(away**2, axis=1), jnp.matmul(away, z, precision="highest")

    squares, along = jax.lax.map(lambda pair: seen_from(*pair), (chosen, noise), batch_size=64)

    def mmse(s: Float[Array, ""]) -> Float[Array, ""]:
        # |x1_j + z / s - x1_i|^2 written around j, where it does not cancel.
        weights = jax.nn.softmax(-0.5 * s**2 * squares - s * along, axis=1)
        centre = jnp.matmul(weights, points, precision="highest") - points[chosen]
        variance = jnp.sum(weights * squares, axis=1) - jnp.sum(centre**2, axis=1)
        return jnp.mean(jnp.maximum(variance, 0)) / points.shape[1]

    return mmse


def _normalised(x1: Any) -> Float[Array, "n size"]:
    x1 = jnp.asarray(x1)
    if x1.ndim < 2 or not jnp.issubdtype(x1.dtype, jnp.floating) or 0 in x1.shape:
        raise ValueError(f"`x1` must be floating points of shape (n, ...), got {x1.shape}.")
    points = x1.reshape(len(x1), math.prod(x1.shape[1:]))
    size = float(jnp.mean(points**2))
    if not abs(size - 1) < 0.1:
        raise ValueError(
            f"`x1` must have a mean square of 1 for each coordinate, got {size:.3g}. "
            "Normalise it: `(x1 - x1.mean(0)) / x1.std()`."
        )
    return points
