"""Time series as models take them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..integrate.setup import is_concrete


def as_series(
    ts: Any, xs: Any, size: int, dtype: Any, *, axes: int | None, holes: bool
) -> tuple[Array, Array]:
    """Times and series as arrays, the latter of the model's dtype.

    Args:
        size: of an observation.
        axes: how many leading axes series must have; any number if `None`.
        holes: whether numbers may be missing (NaN).

    Raises:
        ValueError: for shapes that do not fit each other or the model, times that do not increase,
            or missing numbers. Of values that are traced nothing is known.
    """
    ts, xs = jnp.asarray(ts), jnp.asarray(xs, dtype)
    if ts.ndim != 1 or len(ts) < 2:
        raise ValueError(f"`ts` must be at least two times, but has shape {ts.shape}.")
    fits = xs.ndim >= 2 and xs.shape[-2:] == (len(ts), size)
    if not fits or axes not in (None, xs.ndim - 2):
        leading = {None: "..., ", 0: "", 1: "batch, "}[axes]
        raise ValueError(
            f"`xs` must have shape ({leading}{len(ts)}, {size}): {size} numbers for each of the "
            f"times `ts`; but has {xs.shape}."
            + (" Use `jax.vmap` for many series." if axes == 0 and xs.ndim > 2 else "")
        )
    if is_concrete(ts) and not np.all(np.diff(ts) > 0):
        raise ValueError(f"`ts` must increase, but got {ts}.")
    if not holes and is_concrete(xs) and np.any(np.isnan(xs)):
        raise ValueError(
            "`xs` has missing numbers (NaN). Make the model with `missing=True`, or fill them in."
        )
    return ts, xs


def encoder_of(size: int, width: int, missing: bool, key: Any) -> eqx.nn.GRUCell:
    """What reads series of `size` numbers, `missing` some of them or not (`states_of`)."""
    return eqx.nn.GRUCell(2 * size if missing else size, width, key=key)


def _with_presence(xs: Float[Array, "*batch times size"]) -> Float[Array, "*batch times twice"]:
    """Beside each number whether it is there: 1, or 0 for NaN, which is then 0 as well."""
    is_there = ~jnp.isnan(xs)
    return jnp.concatenate([jnp.where(is_there, xs, 0), is_there.astype(xs.dtype)], axis=-1)


def states_of(
    cell: eqx.nn.GRUCell, xs: Float[Array, "*batch times size"], missing: bool, reverse: bool
) -> Float[Array, "*batch times width"]:
    """What a recurrent cell knows when it has read each observation."""
    if missing:
        xs = _with_presence(xs)

    def of_series(xs: Array) -> Array:
        def step(state: Array, x: Array) -> tuple[Array, Array]:
            state = cell(x, state)
            return state, state

        return jax.lax.scan(step, jnp.zeros(cell.hidden_size, xs.dtype), xs, reverse=reverse)[1]

    states = jax.vmap(of_series)(xs.reshape(-1, *xs.shape[-2:]))
    return states.reshape(*xs.shape[:-1], cell.hidden_size)
