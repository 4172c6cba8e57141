"""Series as models meet them: a single one, row by row, with what is remembered of those before."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..data import Series
from ..shapes import Time


class Observation(eqx.Module):
    """One row of a series, and what a model may know of the rows before it.

    Attributes:
        t: the time.
        x: the readings; 0 for those that are missing.
        mask: which there are.
        gap: the time since the row before of which something was read, or since the start.
        last: the last reading of each channel before this row; 0 where there was none.
        since: the time since that reading, or since the start.
    """

    t: Float[Array, "*rows"]
    x: Float[Array, "*rows channels"]
    mask: Bool[Array, "*rows channels"]
    gap: Float[Array, "*rows"]
    last: Float[Array, "*rows channels"]
    since: Float[Array, "*rows channels"]


class Memory(eqx.Module):
    """What is remembered of the rows so far: `t` is the last at which something was read."""

    t: Float[Array, ""]
    last: Float[Array, " channels"]
    read_at: Float[Array, " channels"]


def no_memory(t0: Time, channels: int, dtype: Any) -> Memory:
    """Before the first row, at the start `t0`."""
    t0 = jnp.asarray(t0, dtype)
    return Memory(t0, jnp.zeros(channels, dtype), jnp.broadcast_to(t0, (channels,)))


def remember(memory: Memory, t: Time, x: Array, mask: Array) -> tuple[Memory, Observation]:
    """One more row; one without a reading leaves nothing to remember. Streams and whole series go
    through here.
    """
    seen = Observation(t, x, mask, t - memory.t, memory.last, t - memory.read_at)
    last, read_at = jnp.where(mask, x, memory.last), jnp.where(mask, t, memory.read_at)
    return Memory(jnp.where(jnp.any(mask), t, memory.t), last, read_at), seen


def in_order(t: Time, last: Time, has_begun: Any) -> Time:
    """The time of a stream's next row, if it does not come before the last one."""
    before = jnp.asarray(has_begun) & (t < last)
    return eqx.error_if(t, before, "The rows of a stream must be in order of time.")


def observations(series: Series, t0: Time) -> Observation:
    """All rows of a clean series."""
    memory = no_memory(t0, series.xs.shape[-1], series.xs.dtype)
    rows: Any = (series.ts, series.xs, series.mask)
    return jax.lax.scan(lambda memory, row: remember(memory, *row), memory, rows)[1]
