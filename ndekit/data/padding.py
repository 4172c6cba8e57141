"""Series of different lengths as one batch."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from ..numbers import count
from .series import Series, real_rows


def pad(series: Sequence[Series] | Series, to: int | None = None) -> Series:
    """A batch of single series, each padded to the same number of rows.

    The padding says nothing: no reading is there, and its times go on increasing. Padding that the
    series come with is taken off first.

    Args:
        series: single series with the same channels, or a batch with one leading axis.
        to: rows of the result; by default those of the longest series.

    Returns:
        A [`ndekit.data.Series`][] of shape `(series, to, channel)`, as NumPy arrays.

    Raises:
        ValueError: if there is no series, channels or dtypes differ, or one is longer than `to`.

    Example:
        ```python
        import numpy as np
        import ndekit as nk

        short = nk.data.Series([0.0, 1.0], np.ones((2, 1)))
        long = nk.data.Series([0.0, 0.1, 0.7], np.ones((3, 1)))
        batch = nk.data.pad([short, long])
        assert batch.xs.shape == (2, 3, 1) and list(batch.length) == [2, 3]
        ```
    """
    rows = rows_of(series)
    longest = max(len(one.ts) for one in rows)
    size = longest if to is None else count("to", to)
    if longest > size:
        place = next(i for i, one in enumerate(rows) if len(one.ts) > size)
        raise ValueError(
            f"`to` must be at least the {longest} rows of the longest series, got {size}; series "
            f"{place} has {len(rows[place].ts)}."
        )
    return stack(rows, size)


class Rows(NamedTuple):
    """The rows of a single series on the host, none of them padding."""

    ts: np.ndarray
    xs: np.ndarray
    mask: np.ndarray


def stack(rows: Sequence[Rows], size: int) -> Series:
    """A batch of series of `size` rows each."""
    lengths = np.array([len(one.ts) for one in rows], np.int32)
    first = rows[0].xs
    ts = np.zeros((len(rows), size), first.dtype)
    xs = np.zeros((len(rows), size, first.shape[-1]), first.dtype)
    mask = np.zeros(xs.shape, bool)
    for i, (one, length) in enumerate(zip(rows, lengths, strict=True)):
        ts[i, :length], xs[i, :length], mask[i, :length] = one
    return Series(ts, xs, mask, length=lengths)


def rows_of(series: Sequence[Series] | Series) -> list[Rows]:
    """The rows of each series; an error unless they go into one batch."""
    if isinstance(series, Series):
        if len(series.batch_shape) != 1:
            raise ValueError(
                "`series` must be single series in a list, or a batch with one leading axis, got "
                f"one with the leading axes {series.batch_shape}."
            )
        series = jax.tree.map(np.asarray, series)  # from the device once, not series by series
    parts = list(series)
    if not parts:
        raise ValueError("`series` must hold at least one series, got none.")
    for i, part in enumerate(parts):
        if not isinstance(part, Series) or part.ts.ndim != 1:
            got = f"a batch of shape {part.batch_shape}" if isinstance(part, Series) else repr(part)
            raise ValueError(f"`series` must hold single series, but `series[{i}]` is {got}.")
    first = parts[0].xs
    for i, part in enumerate(parts):
        xs = part.xs
        if xs.shape[-1] != first.shape[-1] or xs.dtype != first.dtype:
            raise ValueError(
                "All series must have the same channels and dtype, but `series[0]` has "
                f"{first.shape[-1]} of {first.dtype} and `series[{i}]` has {xs.shape[-1]} of "
                f"{xs.dtype}."
            )
    return [Rows(*real_rows(part)) for part in parts]
