"""From readings to a path: linear, rectilinear and Hermite interpolation of what was read."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from ..data import Series
from ..data.series import single
from ..numbers import count
from .filling import gaps, of_rows
from .paths import HermitePath, LinearPath, RectilinearPath


def linear(series: Series, *, start: Any = None) -> LinearPath:
    r"""$x_j + (t - t_j)\,(x_{j+1} - x_j) / (t_{j+1} - t_j)$, channel by channel.

    Each channel goes straight from one reading of its own to the next, however many rows lie
    between, and rests behind its last one. The path reads *one reading ahead*: with nothing
    missing its values up to a row depend on no later row (it is discretely causal); across a gap
    they depend on the reading that ends the gap. Take [`ndekit.controls.rectilinear`][] for
    predictions on the way.

    Args:
        series: a single one; `jax.vmap(linear)(series)` for a batch.
        start: what a channel has at the first row if it was not read there, one number or one a
            channel; by default its first reading. A channel that is never read rests at it, or
            at 0.

    Returns:
        A `diffrax.AbstractPath`, at rest behind `series.length`, time channel included.

    Raises:
        ValueError: if `series` is no single series, or `start` does not fit it.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        series = nk.data.Series(jnp.array([0.0, 1.0, 4.0]), jnp.array([[2.0], [jnp.nan], [6.0]]))
        path = nk.controls.linear(series)
        assert path.evaluate(1.0) == 3.0 and path.derivative(2.0) == 1.0
        ```
    """
    series = single(series, "linear")
    found = gaps(series, start)
    ts = jnp.asarray(series.ts)
    xs = of_rows(found.xs, found.before) + found.since * found.slope
    return LinearPath(ts, ts, xs, found.slope, jnp.asarray(series.length))


def hermite(series: Series, *, start: Any = None) -> HermitePath:
    r"""$x_j + b s + (2 e / h) s^2 - (e / h^2) s^3$: cubics by backward differences.

    Here $s = t - t_j$, $h$ is the gap to the channel's next reading, $b$ the slope of the gap
    before (of this one where it is the first) and $e$ this gap's slope less $b$. The derivative is
    continuous up to a channel's last reading, so adaptive steps go across the knots: the default
    for whole series. Like [`ndekit.controls.linear`][] it reads one reading ahead.

    Args:
        series: a single one; `jax.vmap(hermite)(series)` for a batch.
        start: as of [`ndekit.controls.linear`][].

    Returns:
        A `diffrax.AbstractPath`, at rest behind `series.length`, time channel included.

    Raises:
        ValueError: if `series` is no single series, or `start` does not fit it.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        series = nk.data.Series(jnp.array([0.0, 1.0, 2.0]), jnp.array([[0.0], [1.0], [1.0]]))
        path = nk.controls.hermite(series)
        assert path.derivative(1.0) == 1.0 and path.derivative(2.0) == 0.0
        ```

    Reference: Morrill, Kidger, Yang and Lyons (2021), "Neural controlled differential equations
    for online prediction tasks", arXiv 2106.11028, section 3.
    """
    series = single(series, "hermite")
    found = gaps(series, start)
    # The slope of the gap that ends at the last reading; the first gap has its own.
    previous = of_rows(found.slope, jnp.maximum(found.before - 1, 0))
    b = jnp.where(found.goes_on, previous, 0)
    e = jnp.where(found.goes_on, found.slope - b, 0)
    c, d = 2 * e / found.width, -e / found.width**2
    # Expanded anew around each row of the gap.
    s = found.since
    pieces = [
        of_rows(found.xs, found.before) + s * (b + s * (c + s * d)),
        b + s * (2 * c + s * (3 * d)),
        c + 3 * s * d,
        d,
    ]
    ts = jnp.asarray(series.ts)
    return HermitePath(ts, ts, jnp.stack(pieces, axis=1), jnp.asarray(series.length))


def rectilinear(series: Series, *, start: Any = 0.0, time: int | None = 0) -> RectilinearPath:
    r"""$(t_0, x_0), (t_1, x_0), (t_1, x_1), (t_2, x_1), \dots$: causal, for predictions on the way.

    First time moves with the values at rest, then the values move to the new reading with time at
    rest: what has been seen by time $t$ is all that the path up to $t$ knows. A channel keeps its
    last reading through a gap.

    The path has an axis of its own, from 0 to twice the number of the last row. `path.parameter(t)`
    is the place of a time on it, behind the reading at `t` if there is one (with `left=True`
    before it), and `path.time(s)` the time of a place.

    Args:
        series: a single one whose channel `time` is its time, as [`ndekit.controls.channels`][]
            makes it; `jax.vmap(rectilinear)(series)` for a batch.
        start: what a channel has at the first row if it was not read there, one number or one a
            channel. `None` takes its first reading, which is not causal.
        time: number of the channel that is the time; `None` if none is. Then all channels rest on
            every other piece.

    Returns:
        A `diffrax.AbstractPath`, at rest behind `series.length`, time channel included.

    Raises:
        ValueError: if `series` is no single series, `start` does not fit it, or its channel `time`
            does not hold its times (of traced values nothing is known).

    Example:
        ```python
        import jax, jax.numpy as jnp, ndekit as nk

        series = nk.data.Series(jnp.array([0.0, 1.0, 4.0]), jnp.array([[2.0], [3.0], [6.0]]))
        path = nk.controls.rectilinear(nk.controls.channels(series))
        assert path.t1 == 4.0 and path.parameter(2.5) == 2.5
        assert jnp.allclose(path.evaluate(path.parameter(4.0, left=True)), jnp.array([4.0, 3.0]))
        ```
    """
    series = single(series, "rectilinear")
    _check_time(series, time)
    found = gaps(series, start)
    held = of_rows(found.xs, found.before)
    # Rows 0, 0, 1, 1, ..., and of the channel that leads 0, 1, 1, 2, ...
    xs = jnp.repeat(held, 2, axis=0)[:-1]
    if time is not None:
        xs = xs.at[:, time].set(jnp.repeat(held[:, time], 2)[1:])
    ts = jnp.asarray(series.ts)
    knots = jnp.arange(len(xs), dtype=ts.dtype)
    return RectilinearPath(ts, knots, xs, differences(xs), jnp.asarray(series.length))


def differences(xs: Float[Array, "knots channel"]) -> Float[Array, "knots channel"]:
    """From each row to the next; 0 behind the last."""
    return jnp.concatenate([xs[1:] - xs[:-1], jnp.zeros_like(xs[:1])])


def _check_time(series: Series, time: int | None) -> None:
    if time is None:
        return
    num_channels = series.xs.shape[-1]
    if count("time", time, 0) >= num_channels:
        raise ValueError(
            f"`time` must be one of the {num_channels} channels, from 0, got {time}. "
            "Put the time among them with `nk.controls.channels(series)`."
        )
    if any(isinstance(x, Tracer) for x in (series.ts, series.xs, series.length)):
        return
    ts, found = np.asarray(series.ts), np.asarray(series.xs[:, time])
    real = np.asarray(series.is_real)
    wrong = real & (ts.astype(found.dtype) != found)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Channel {time} of `rectilinear` must be the time, but row {row} holds "
            f"{found[row]:g} at time {ts[row]:g}. Pass `nk.controls.channels(series)`, or name "
            "the channel with `time=`."
        )
