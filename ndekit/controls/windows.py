"""Consecutive windows of a series: by number of readings, by duration, or between given times."""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from ..data import Series
from ..numbers import count, real


class Windows(eqx.Module):
    """Where a series is cut. Each window begins where the one before it ends.

    Make one with `Windows.every`, `Windows.of` or `Windows.at`. A window's end belongs to it: the
    reading at that time is the last one that it knows of. A cut between two readings splits the
    straight line between them.
    """

    @abc.abstractmethod
    def edges(self, series: Series) -> Float[Array, " edges"]:
        """The times of the cuts of a single series, one more than there are windows."""

    @property
    @abc.abstractmethod
    def most_steps(self) -> int | None:
        """How many steps from reading to reading a window can have, where that is known."""

    @staticmethod
    def every(count: int) -> "Windows":
        """As many steps from reading to reading in each window, fewer in the last.

        Each series has windows of its own. Their number depends on the padded length alone; those
        behind the last reading have no duration and leave everything as it is.

        Args:
            count: steps in a window, from 1; padding aside, windows meet at rows `0`, `count`,
                `2 * count`, ...

        Raises:
            ValueError: if `count` is no whole number from 1.
        """
        return EveryCount(count)

    @staticmethod
    def of(duration: float, *, num: int | None = None, start: Any = None) -> "Windows":
        """Windows that last equally long.

        Args:
            duration: in the unit of `ts`, positive.
            num: how many; by default as many as reach the series' last time, which traced data do
                not tell.
            start: where the first begins; by default at the series' first time. Give it to cut all
                series at the same times.

        Raises:
            ValueError: if `duration` is not positive, or `num` no whole number from 1.
        """
        return EveryDuration(duration, num, start)

    @staticmethod
    def at(edges: Any) -> "Windows":
        """Windows between times.

        Args:
            edges: `(edges,)` strictly increasing times, at least two. What the series does outside
                of them is left out.

        Raises:
            ValueError: for fewer, or if they do not increase (of traced edges nothing is known).
        """
        return AtEdges(edges)


class EveryCount(Windows):
    """`count` steps from reading to reading each."""

    count: int = eqx.field(static=True)

    def __check_init__(self):
        count("count", self.count)

    @property
    def most_steps(self) -> int | None:
        return self.count

    def edges(self, series: Series) -> Float[Array, " edges"]:
        num = max(1, math.ceil((series.ts.shape[-1] - 1) / self.count))
        last = jnp.maximum(jnp.asarray(series.length) - 1, 0)
        rows = self.count * jnp.arange(num + 1, dtype=last.dtype)
        return jnp.asarray(series.ts)[jnp.minimum(rows, last)]


class EveryDuration(Windows):
    """Equally long."""

    duration: Any
    num: int | None = eqx.field(static=True)
    start: Any

    def __check_init__(self):
        real("duration", self.duration, above=0.0)
        if self.num is not None:
            count("num", self.num)
        if self.start is not None:
            real("start", self.start)

    @property
    def most_steps(self) -> int | None:
        return None

    def edges(self, series: Series) -> Float[Array, " edges"]:
        ts = jnp.asarray(series.ts)
        start = ts[0] if self.start is None else jnp.asarray(self.start, ts.dtype)
        steps = jnp.arange(1 + self._number(series, start), dtype=ts.dtype)
        return start + jnp.asarray(self.duration, ts.dtype) * steps

    def _number(self, series: Series, start: Array) -> int:
        if self.num is not None:
            return self.num
        if any(isinstance(x, Tracer) for x in (series.ts, series.length, start, self.duration)):
            raise ValueError(
                "How many windows `Windows.of` makes depends on the data, which are traced here. "
                "Say it: `Windows.of(duration, num=...)`."
            )
        last = np.asarray(series.ts)[max(int(series.length) - 1, 0)]
        number = float(last - start) / float(self.duration)
        # A quotient that is whole but for rounding makes no window more.
        return max(1, math.ceil(number * (1 - 4 * float(jnp.finfo(series.ts.dtype).eps))))


class AtEdges(Windows):
    """Between given times."""

    times: Float[Array | np.ndarray, " edges"]

    def __init__(self, edges: Any):
        if np.ndim(edges) != 1 or np.shape(edges)[0] < 2:
            raise ValueError(
                f"`edges` must be at least two times in a row, got shape {np.shape(edges)}."
            )
        if not isinstance(edges, Tracer):
            given = np.asarray(edges, float)
            if not (np.all(np.isfinite(given)) and np.all(np.diff(given) > 0)):
                raise ValueError(
                    f"`edges` must be finite and increase, got {given.tolist()}. Sort them, and "
                    "leave out repeats."
                )
        # On the host they keep all digits until the dtype of a series is known.
        self.times = edges if isinstance(edges, jax.Array) else np.asarray(edges, float)

    @property
    def most_steps(self) -> int | None:
        return None

    def edges(self, series: Series) -> Float[Array, " edges"]:
        return jnp.asarray(self.times).astype(series.ts.dtype)
