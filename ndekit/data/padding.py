"""Series of different lengths as one batch."""

from collections.abc import Sequence

import numpy as np

from ..numbers import count
from .series import Series


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
        ValueError: if there is no series, channels differ, or a series is longer than `to`.

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
    parts = trimmed(series)
    lengths = np.array([len(part.ts) for part in parts], np.int32)
    size = int(lengths.max()) if to is None else count("to", to)
    if lengths.max() > size:
        place = int(np.argmax(lengths > size))
        raise ValueError(
            f"`to` must be at least the {lengths.max()} rows of the longest series, got {size}; "
            f"series {place} has {lengths[place]}."
        )
    ts = np.zeros((len(parts), size), np.result_type(*{part.ts.dtype for part in parts}))
    xs = np.zeros((len(parts), size, parts[0].num_channels), ts.dtype)
    mask = np.zeros(xs.shape, bool)
    for i, (part, length) in enumerate(zip(parts, lengths, strict=True)):
        ts[i, :length], xs[i, :length], mask[i, :length] = part.ts, part.xs, part.mask
    return Series(ts, xs, mask, length=lengths)


def trimmed(series: Sequence[Series] | Series) -> list[Series]:
    """Each series without its padding, on the host; an error unless they go into one batch."""
    if isinstance(series, Series) and len(series.batch_shape) != 1:
        raise ValueError(
            "`series` must be single series in a list, or a batch with one leading axis, got one "
            f"with the leading axes {series.batch_shape}."
        )
    parts = list(series)
    if not parts:
        raise ValueError("`series` must hold at least one series, got none.")
    for i, part in enumerate(parts):
        if not isinstance(part, Series) or part.batch_shape:
            got = f"a batch of shape {part.batch_shape}" if isinstance(part, Series) else repr(part)
            raise ValueError(f"`series` must hold single series, but `series[{i}]` is {got}.")
        if part.num_channels != parts[0].num_channels:
            raise ValueError(
                f"All series must have the same channels, but `series[{i}]` has "
                f"{part.num_channels} and `series[0]` has {parts[0].num_channels}."
            )
    return [part.trim() for part in parts]
