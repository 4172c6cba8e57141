"""How far samples of series are apart."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def marginal_distance(
    ours: Float[Array, "number times size"], theirs: Float[Array, "other times size"]
) -> Float[Array, ""]:
    r"""The Wasserstein-1 distance of the laws of two samples at each time and of each number, in
    the mean: $\int_0^1 \lvert Q(p) - Q'(p) \rvert\, dp$ of the quantiles, by the midpoint rule with
    a point for each of ours, exact if as many are known of theirs. Missing numbers (NaN) are left
    out, and so are columns of nothing else.
    """
    parts = (jnp.arange(len(ours), dtype=ours.dtype) + 0.5) / len(ours)

    def quantiles(column: Array) -> Array:
        known = jnp.sum(~jnp.isnan(column)).astype(parts.dtype)
        return jnp.sort(column)[jnp.floor(parts * known).astype(jnp.int32)]  # NaN is last

    def columns(xs: Array) -> Array:
        return jax.vmap(quantiles, in_axes=1)(xs.reshape(len(xs), -1))

    return jnp.nanmean(jnp.abs(columns(ours) - columns(theirs)))
