"""Series brought to common times."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from .padding import pad
from .series import Series


def to_grid(
    series: Sequence[Series] | Series, ts: Any, *, how: Literal["nearest", "mean"] = "nearest"
) -> Series:
    """Readings at common times: each reading goes to the grid point that it is nearest to.

    What falls half a gap or more outside the grid is left out; half way between two points goes to
    the later one. A point that no reading is nearest to has none: nothing is filled in.

    Args:
        series: a single series, or several in a list or a batch with one leading axis.
        ts: `(grid,)`, increasing, in the unit of the series' times; at least two.
        how: of several readings of one channel at a point, the `"nearest"` in time (of two equally
            near ones the earlier) or their `"mean"`.

    Returns:
        A [`ndekit.data.Series`][] with `grid` rows, as NumPy arrays.

    Raises:
        ValueError: if `ts` does not increase, or a series has no reading on the grid.

    Example:
        ```python
        import numpy as np
        import ndekit as nk

        xs = np.array([[1.0], [3.0], [7.0]])
        series = nk.data.Series([0.1, 0.3, 2.2], xs)
        on_grid = nk.data.to_grid(series, [0.0, 1.0, 2.0], how="mean")
        assert on_grid.xs[:, 0].tolist() == [2.0, 0.0, 7.0]
        assert on_grid.mask[:, 0].tolist() == [True, False, True]
        ```
    """
    if how not in ("nearest", "mean"):
        raise ValueError(f'`how` must be "nearest" or "mean", got {how!r}.')
    grid = np.asarray(ts, np.float64)
    if grid.ndim != 1 or len(grid) < 2 or not np.all(np.diff(grid) > 0):
        raise ValueError("`ts` must be at least two times that increase.")
    if isinstance(series, Series) and not series.batch_shape:
        return to_grid([series], ts, how=how)[0]
    batch = pad(series)
    number, row, channel = np.nonzero(batch.mask)
    times = batch.ts[number, row].astype(np.float64)
    halves = 0.5 * np.diff(grid)
    edges = np.concatenate([[grid[0] - halves[0]], grid[:-1] + halves, [grid[-1] + halves[-1]]])
    point = np.searchsorted(edges, times, side="right") - 1
    inside = (point >= 0) & (point < len(grid))
    number, row, channel, point = (a[inside] for a in (number, row, channel, point))
    values, times = batch.xs[number, row, channel], times[inside]
    shape = (len(batch), len(grid), batch.num_channels)
    place = (number, point, channel)
    xs = np.full(shape, np.nan, batch.xs.dtype)
    if how == "mean":
        total, found = np.zeros(shape), np.zeros(shape)
        np.add.at(total, place, values)
        np.add.at(found, place, 1.0)
        np.divide(total, found, out=total, where=found > 0)
        xs = np.where(found > 0, total, np.nan).astype(batch.xs.dtype)
    else:
        # Written from the furthest to the nearest; of equally near ones the earlier comes last.
        order = np.lexsort((-times, -np.abs(times - grid[point])))
        xs[tuple(index[order] for index in place)] = values[order]
    return Series(grid.astype(batch.ts.dtype), xs)
