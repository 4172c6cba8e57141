"""What the arrays of a series must be, said by series, row and channel."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.dtypes import canonicalize_dtype
from jaxtyping import Array

# Of the mean gap between times, how much of it a rounded time may be off.
_LARGEST_ROUNDING = 0.1


def arrays_of(ts: Any, xs: Any, mask: Any, length: Any) -> tuple[Any, Any, Any, Any]:
    """The four as arrays of shapes that fit, with NaN missing and `ts` for each series.

    Raises:
        ValueError: if a shape or a dtype does not fit, or rounding would spoil the times.
    """
    given_ts, xs = _numbers("ts", ts), _numbers("xs", xs)
    _check_shapes(given_ts.shape, xs.shape)
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.promote_types(_float_of(given_ts), _float_of(xs))
    ts, xs = given_ts.astype(dtype), xs.astype(dtype)
    if not isinstance(ts, Tracer):
        _check_rounding(np.asarray(given_ts), np.asarray(ts))
    known = ~(np if isinstance(xs, np.ndarray) else jnp).isnan(xs)
    if mask is not None:
        mask = _array(mask)
        if mask.dtype != bool:
            raise ValueError(
                f"`mask` must be an array of booleans, True where a number was read, got "
                f"{mask.dtype}. Write `mask > 0`."
            )
        if mask.shape != xs.shape:
            raise ValueError(
                f"`mask` must have the shape of `xs`, {xs.shape}, got {mask.shape}. For whole rows "
                "write `np.broadcast_to(rows[..., None], xs.shape)`."
            )
        known = mask & known
    if ts.shape != xs.shape[:-1]:
        ts = (np if isinstance(ts, np.ndarray) else jnp).broadcast_to(ts, xs.shape[:-1])
    return ts, xs, known, _length_of(length, xs.shape)


def check_times(ts: Any, length: Any) -> None:
    """Pass over times that are finite and increase, as far as they are no padding."""
    ts, real = np.asarray(ts), np.arange(ts.shape[-1]) < np.asarray(length)[..., None]
    place = _first(real & ~np.isfinite(ts))
    if place is not None:
        raise ValueError(
            f"`ts` must be finite, but {_at('ts', place)} is {ts[place]}. Leave that row out."
        )
    place = _first(real[..., 1:] & ~(ts[..., 1:] > ts[..., :-1]))
    if place is not None:
        after = (*place[:-1], place[-1] + 1)
        raise ValueError(
            f"`ts` must increase, but {_at('ts', after)} ({ts[after]!s}) is not after "
            f"{_at('ts', place)} ({ts[place]!s}), in {ts.dtype}. Sort the rows by time and merge "
            "those of one time; `ndekit.data.from_long` does both."
        )


def check_readings(xs: Any, mask: Any, length: Any) -> None:
    """Pass over readings that are finite, at least one in a series."""
    xs, mask = np.asarray(xs), np.asarray(mask)
    real = np.arange(xs.shape[-2]) < np.asarray(length)[..., None]
    read = mask & real[..., None]
    place = _first(read & ~np.isfinite(xs))
    if place is not None:
        *series, row, channel = place
        raise ValueError(
            f"Readings must be finite, but {_at('xs', place)} (row {row}, channel {channel}"
            f"{_in_series(series)}) is {xs[place]}. Write NaN for a reading that is missing."
        )
    place = _first(~read.any(axis=(-2, -1)))
    if place is not None:
        raise ValueError(
            f"There must be at least one reading, but there is none{_in_series(list(place))}. "
            "Leave that series out."
        )


def check_padding(ts: np.ndarray) -> None:
    """Pass over times that increase through the padding."""
    if not (np.isfinite(ts).all() and (np.diff(ts, axis=-1) > 0).all()):
        raise ValueError(
            f"Times of dtype {ts.dtype} do not reach far enough for {ts.shape[-1]} rows with "
            "padding. Give `ts` in float32, or pad less."
        )


def _array(x: Any) -> Any:
    return x if isinstance(x, Array) else np.asarray(x)


def _numbers(name: str, x: Any) -> Any:
    """`x` as an array of floats, integers or booleans."""
    try:
        x = _array(x)
    except ValueError as error:  # rows of unequal lengths
        raise ValueError(f"`{name}` is no array of numbers: {error}.") from error
    if x.dtype.kind in "mM":
        raise ValueError(
            f"`{name}` must be numbers, got {x.dtype}. Take a start off and divide by a unit: "
            f'`({name} - start) / np.timedelta64(1, "D")`.'
        )
    if not (jnp.issubdtype(x.dtype, jnp.floating) or x.dtype.kind in "iub"):
        raise ValueError(f"`{name}` must be real numbers, got {x.dtype}.")
    return x


def _float_of(x: Any) -> Any:
    """The dtype of `x` if it is a float that JAX has as things are set, else JAX's own."""
    return canonicalize_dtype(x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else float)


def _check_shapes(ts: tuple[int, ...], xs: tuple[int, ...]) -> None:
    if len(xs) < 2:
        raise ValueError(
            f"`xs` must have the shape (*batch, time, channel), got {xs}. For a single channel "
            "write `xs[..., None]`."
        )
    if 0 in xs:
        raise ValueError(
            f"`xs` must have at least one row and one channel, got the shape {xs}. Leave empty "
            "series out."
        )
    if ts not in (xs[:-1], xs[-2:-1]):
        raise ValueError(
            f"`ts` must have a time for each row of `xs`, {xs[:-1]}, or {xs[-2:-1]} where all "
            f"share their times, got {ts}."
        )


def _check_rounding(given: np.ndarray, ts: np.ndarray) -> None:
    """Times that are large beside their gaps lose them in float32: a year in seconds, say."""
    if given.dtype == ts.dtype or not given.size or ts.shape[-1] < 2:
        return
    exact = given.astype(np.float64)
    known = np.isfinite(exact)
    if not known.any(axis=-1).all():
        return
    span = np.max(exact, axis=-1, where=known, initial=-np.inf) - np.min(
        exact, axis=-1, where=known, initial=np.inf
    )
    off = np.where(known, np.abs(ts.astype(np.float64) - np.where(known, exact, 0)), 0.0)
    gap = (span / (ts.shape[-1] - 1))[..., None]
    place = _first((gap > 0) & (off > _LARGEST_ROUNDING * gap))
    if place is not None:
        raise ValueError(
            f"`ts` must keep its gaps in {ts.dtype}, but {_at('ts', place)} ({given[place]!s}) "
            f"would be off by {off[place]:.3g}, where times are {gap[(*place[:-1], 0)]:.3g} apart. "
            "Take a start off all times."
        )


def _length_of(length: Any, xs: tuple[int, ...]) -> Any:
    """`(*batch,)` int32, from 1 to the number of rows."""
    *batch, size, _ = xs
    if length is None:
        return np.full(batch, size, np.int32)
    length = _array(length)
    if length.dtype.kind not in "iu" or length.shape != tuple(batch):
        raise ValueError(
            f"`length` must be whole numbers of shape {tuple(batch)}, one for each series, got "
            f"{length.dtype} of shape {length.shape}."
        )
    if not isinstance(length, Tracer):
        given = np.asarray(length)
        place = _first((given < 1) | (given > size))
        if place is not None:
            raise ValueError(
                f"`length` must lie from 1 to the {size} rows there are, but is "
                f"{given[place]}{_in_series(list(place))}."
            )
    return length.astype(np.int32)


def _first(wrong: Any) -> tuple[int, ...] | None:
    """Where the first True stands."""
    wrong = np.asarray(wrong)
    if not wrong.any():
        return None
    return tuple(int(i) for i in np.unravel_index(np.argmax(wrong), wrong.shape))


def _at(name: str, place: tuple[int, ...]) -> str:
    return f"`{name}[{', '.join(map(str, place))}]`"


def _in_series(place: list[int]) -> str:
    return f" in series {', '.join(map(str, place))}" if place else ""
