"""A function of one sample, applied along the leading axes of a state."""

from collections.abc import Callable

import jax
from jaxtyping import Array


def over_samples(function: Callable[[Array], Array], y: Array, ndim: int) -> Array:
    """`function` of each sample in `y`, where a sample has `ndim` axes, the last ones.

    What a user writes of one sample is then never given a batch, which it might take for a sample.
    """
    if y.ndim < ndim:
        raise ValueError(
            f"The state must have at least {ndim} axes, got the shape {y.shape}. Leading axes may "
            "be samples; the others are the field's own."
        )
    for _ in range(y.ndim - ndim):
        function = jax.vmap(function)
    return function(y)


def halves(y: Array) -> tuple[Array, Array]:
    """The two halves of the last axis.

    Raises:
        ValueError: if its length is odd.
    """
    if y.ndim == 0 or y.shape[-1] % 2 or y.shape[-1] == 0:
        raise ValueError(
            f"The state must be two halves of the same length along its last axis, got the shape "
            f"{y.shape}. Join positions and velocities (or momenta), `jnp.concatenate([q, v], -1)`."
        )
    size = y.shape[-1] // 2
    return y[..., :size], y[..., size:]
