"""Values and slopes of every channel at every row of a series, where it was read or not."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from ..data import Series


class Gaps(NamedTuple):
    """For each row and channel, the two readings that it lies between.

    The first row counts as read. `after` is `before` where nothing is read any more.

    Attributes:
        xs: the readings, with the first row filled.
        before: row of the last reading, this row's own included.
        after: row of the next reading behind this row.
        goes_on: whether there is such a one.
        width: time from one to the other; 1 where there is none.
        slope: rise over `width`; 0 where there is none.
        since: time from the last reading to this row.
    """

    xs: Float[Array, "time channel"]
    before: Int[Array, "time channel"]
    after: Int[Array, "time channel"]
    goes_on: Bool[Array, "time channel"]
    width: Float[Array, "time channel"]
    slope: Float[Array, "time channel"]
    since: Float[Array, "time channel"]


def gaps(series: Series, start: Any) -> Gaps:
    """What surrounds each row; `start` fills the first row, or the first reading where `None`."""
    xs, mask = _with_first_row(series, start)
    num_rows, dtype = xs.shape[0], xs.dtype
    rows = jax.lax.broadcasted_iota(jnp.int32, xs.shape, 0)
    before = jax.lax.cummax(jnp.where(mask, rows, 0), axis=0)
    at_or_after = jax.lax.cummin(jnp.where(mask, rows, num_rows), axis=0, reverse=True)
    after = jnp.concatenate([at_or_after[1:], jnp.full_like(rows[:1], num_rows)])
    goes_on = after < num_rows
    after = jnp.where(goes_on, after, before)
    ts = jnp.asarray(series.ts)
    # One time in place of none, before the division: 0/0 has no derivative.
    width = jnp.where(goes_on, ts[after] - ts[before], 1).astype(dtype)
    slope = jnp.where(goes_on, (of_rows(xs, after) - of_rows(xs, before)) / width, 0)
    since = (ts[:, None] - ts[before]).astype(dtype)
    return Gaps(xs, before, after, goes_on, width, slope, since)


def of_rows(xs: Array, rows: Array) -> Array:
    """`xs[rows[i, j], j]` for each row and channel."""
    return jnp.take_along_axis(xs, rows, axis=0)


def _with_first_row(series: Series, start: Any) -> tuple[Array, Array]:
    xs, mask = jnp.asarray(series.xs), jnp.asarray(series.mask)
    if start is None:
        # A channel that is never read stays at row 0, which holds a zero.
        first = of_rows(xs, jnp.argmax(mask, axis=0, keepdims=True))[0]
    else:
        first = jnp.where(mask[0], xs[0], start_values(start, xs))
    return xs.at[0].set(first), mask.at[0].set(True)


def start_values(start: Any, xs: Array) -> Array:
    """`start` as one number a channel."""
    if np.ndim(start) and np.shape(start) != xs.shape[-1:]:
        raise ValueError(
            f"`start` must be one number, or one for each of the {xs.shape[-1]} channels, got "
            f"shape {np.shape(start)}."
        )
    if not isinstance(start, Tracer) and not np.all(np.isfinite(np.asarray(start, float))):
        raise ValueError(f"`start` must be finite, got {start}. Use the channels' means.")
    return jnp.broadcast_to(jnp.asarray(start).astype(xs.dtype), xs.shape[-1:])
