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
        gap: the time since the row before, or since the start of the series.
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
    """What is remembered of the rows so far."""

    t: Float[Array, ""]
    last: Float[Array, " channels"]
    read_at: Float[Array, " channels"]


def no_memory(t0: Time, channels: int, dtype: Any) -> Memory:
    """Before the first row, at the start `t0`."""
    t0 = jnp.asarray(t0, dtype)
    return Memory(t0, jnp.zeros(channels, dtype), jnp.broadcast_to(t0, (channels,)))


def remember(memory: Memory, t: Time, x: Array, mask: Array) -> tuple[Memory, Observation]:
    """One more row. Streams and whole series go through here."""
    seen = Observation(t, x, mask, t - memory.t, memory.last, t - memory.read_at)
    last, read_at = jnp.where(mask, x, memory.last), jnp.where(mask, t, memory.read_at)
    return Memory(t, last, read_at), seen


def observations(series: Series, t0: Time) -> Observation:
    """All rows of a clean series."""
    memory = no_memory(t0, series.xs.shape[-1], series.xs.dtype)
    rows: Any = (series.ts, series.xs, series.mask)
    return jax.lax.scan(lambda memory, row: remember(memory, *row), memory, rows)[1]


def single(series: Any, size: int, model: str) -> Series:
    """The series, cleaned, if it is a single one that the model can take.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(series, Series):
        raise ValueError(
            f"`{model}` takes a `nk.data.Series`, got {type(series).__name__}. "
            "Make one with `nk.data.Series(ts, xs)`."
        )
    if jnp.ndim(series.xs) != 2:
        raise ValueError(
            f"`{model}` takes one series with `xs` of shape (time, channel), got "
            f"{series.xs.shape}. Use `jax.vmap(model)(series)` for a batch."
        )
    if series.xs.shape[-1] != size:
        raise ValueError(
            f"This `{model}` was made for {size} channels, but the series has "
            f"{series.xs.shape[-1]}."
        )
    return series.clean()
