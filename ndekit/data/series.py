"""A time series whose samples have their own times, lengths and gaps."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Series(eqx.Module):
    """Times, readings, and which of these are there.

    Attributes:
        ts: `(*batch, time)`, strictly increasing, through the padding too.
        xs: `(*batch, time, channel)`, 0 where nothing was read.
        mask: `(*batch, time, channel)`, whether a number was read.
        length: `(*batch,)`, how many rows there are; what comes after them is padding.
    """

    ts: Float[Array, "*batch time"]
    xs: Float[Array, "*batch time channel"]
    mask: Bool[Array, "*batch time channel"]
    length: Int[Array, "*batch"]

    def __init__(self, ts: Any, xs: Any, mask: Any = None, *, length: Any = None):
        np_ = np if not any(isinstance(x, Array) for x in (ts, xs, mask, length)) else jnp
        ts, xs = np_.asarray(ts), np_.asarray(xs)
        known = ~np_.isnan(xs) if mask is None else np_.asarray(mask, bool) & ~np_.isnan(xs)
        length = np_.full(ts.shape[:-1], ts.shape[-1]) if length is None else np_.asarray(length)
        self.ts, self.xs, self.mask, self.length = ts, xs, known, length
        cleaned = self.clean()
        self.ts, self.xs, self.mask = cleaned.ts, cleaned.xs, cleaned.mask

    @property
    def is_real(self) -> Bool[Array, "*batch time"]:
        """Which rows are no padding."""
        return jnp.arange(self.ts.shape[-1]) < jnp.asarray(self.length)[..., None]

    def clean(self) -> "Series":
        """The series with nothing in its padding: what stood there has no say and no gradient."""
        real, rows = self.is_real, jnp.arange(self.ts.shape[-1])
        ts = jnp.where(real, self.ts, 0)
        last = jnp.max(jnp.where(real, self.ts, -jnp.inf), axis=-1, keepdims=True)
        behind = (rows - jnp.asarray(self.length)[..., None] + 1).astype(ts.dtype)
        mask = self.mask & real[..., None]
        new = object.__new__(Series)
        for name, value in (
            ("ts", jnp.where(real, ts, last + behind)), ("xs", jnp.where(mask, self.xs, 0)),
            ("mask", mask), ("length", self.length),
        ):  # fmt: skip
            object.__setattr__(new, name, value)
        return new
