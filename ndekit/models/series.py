"""Time series as models take them.

One that is shorter than others is padded: its last time is repeated. What stands there is no part
of it, whatever it is.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from ..integrate.times import is_concrete


def as_series(
    ts: Any, xs: Any, size: int, dtype: Any, *, axes: int | None, holes: bool
) -> tuple[Array, Array]:
    """Times and series as arrays, the latter of the model's dtype, NaN in the padding.

    Args:
        size: of an observation.
        axes: how many leading axes series must have; any number if `None`.
        holes: whether numbers may be missing (NaN).

    Raises:
        ValueError: for shapes that do not fit each other or the model, times that do not increase
            up to the padding, or missing numbers. Of values that are traced nothing is known.
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
    if is_concrete(ts):
        _check_known(np.asarray(ts), xs, holes)
    return ts, without_padding(ts, xs)


def _check_known(ts: np.ndarray, xs: Any, holes: bool) -> None:
    """By NumPy: inside of `jax.jit`, too, what is known is checked."""
    increases = np.trim_zeros(np.diff(ts), "b")
    if not len(increases) or not np.all(increases > 0):
        raise ValueError(
            f"`ts` must increase, and may then repeat the last time as padding; but got {ts}."
        )
    number = len(increases) + 1
    if not holes and is_concrete(xs) and np.any(np.isnan(np.asarray(xs)[..., :number, :])):
        raise ValueError(
            "`xs` has missing numbers (NaN). Make the model with `missing=True`, or fill them in."
        )


def last_of(ts: Array) -> Int[Array, ""]:
    """The number of the last time that is no padding."""
    return jnp.argmax(ts == ts[-1])


def is_padding(ts: Array) -> Bool[Array, " times"]:
    return jnp.arange(len(ts)) > last_of(ts)


def without_padding(ts: Array, xs: Array) -> Array:
    """A series with NaN for numbers that are no part of it."""
    return jnp.where(jnp.broadcast_to(is_padding(ts)[:, None], xs.shape), jnp.nan, xs)


def encoder_of(size: int, width: int, missing: bool, key: Any) -> eqx.nn.GRUCell:
    """What reads series of `size` numbers, `missing` some of them or not (`states_of`)."""
    return eqx.nn.GRUCell(2 * size if missing else size, width, key=key)


def _with_presence(xs: Float[Array, "*batch times size"]) -> Float[Array, "*batch times twice"]:
    """Beside each number whether it is there: 1, or 0 for NaN, which is then 0 as well."""
    is_there = ~jnp.isnan(xs)
    return jnp.concatenate([jnp.where(is_there, xs, 0), is_there.astype(xs.dtype)], axis=-1)


def states_of(
    cell: eqx.nn.GRUCell,
    ts: Real[Array, " times"],
    xs: Float[Array, "*batch times size"],
    missing: bool,
    reverse: bool,
) -> Float[Array, "*batch times width"]:
    """What a recurrent cell knows when it has read each observation; padding is not read."""
    padding = is_padding(ts)
    # Nowhere a NaN, also where the cell's answer is not taken: its gradient would be one.
    xs = jnp.where(jnp.broadcast_to(padding[:, None], xs.shape), 0, xs)
    if missing:
        xs = _with_presence(xs)

    def of_series(xs: Array) -> Array:
        def step(state: Array, seen: tuple[Array, Array]) -> tuple[Array, Array]:
            x, is_over = seen
            state = jnp.where(is_over, state, cell(x, state))
            return state, state

        start = jnp.zeros(cell.hidden_size, xs.dtype)
        return jax.lax.scan(step, start, (xs, padding), reverse=reverse)[1]

    states = jax.vmap(of_series)(xs.reshape(-1, *xs.shape[-2:]))
    return states.reshape(*xs.shape[:-1], cell.hidden_size)
