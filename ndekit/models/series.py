"""Time series as models take them."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real


def check_series(
    ts: Real[Array, " times"], xs: Float[Array, "*batch times size"], size: int
) -> None:
    """Refuse series that do not belong to their times, or to a model of observations of `size`."""
    if jnp.ndim(ts) != 1 or len(ts) < 2:
        raise ValueError(f"`ts` must be at least two times, but has shape {jnp.shape(ts)}.")
    if jnp.ndim(xs) < 2 or xs.shape[-2:] != (len(ts), size):
        raise ValueError(
            f"`xs` must have shape (..., {len(ts)}, {size}): one observation of {size} numbers for "
            f"each of the times `ts`; but has {jnp.shape(xs)}."
        )


def states_of(
    cell: eqx.nn.GRUCell, xs: Float[Array, "*batch times size"], reverse: bool
) -> Float[Array, "*batch times width"]:
    """What a recurrent cell knows when it has read each observation."""

    def of_series(xs: Array) -> Array:
        def step(state: Array, x: Array) -> tuple[Array, Array]:
            state = cell(x, state)
            return state, state

        return jax.lax.scan(step, jnp.zeros(cell.hidden_size, xs.dtype), xs, reverse=reverse)[1]

    states = jax.vmap(of_series)(xs.reshape(-1, *xs.shape[-2:]))
    return states.reshape(*xs.shape[:-1], cell.hidden_size)
