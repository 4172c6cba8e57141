"""Series from a table with one reading to a line."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from .series import Series


class Panel(NamedTuple):
    """Series of many individuals, as NumPy arrays on the host.

    Attributes:
        series: one for each individual; they differ in times and lengths.
        ids: of each series, increasing.
        channels: their names, in the order of the last axis of `xs`.
        others: arrays with a row for each series (age, outcome, ...), by name.
    """

    series: list[Series]
    ids: np.ndarray
    channels: tuple[Any, ...]
    others: Mapping[str, np.ndarray]

    def rows(self, index: Any) -> "Panel":
        """The panel of some of its individuals: indices or a mask, say a part of `split`."""
        index = np.arange(len(self.series))[index]
        others = {name: array[index] for name, array in self.others.items()}
        return self._replace(
            series=[self.series[i] for i in index], ids=self.ids[index], others=others
        )


def from_long(
    ids: Any,
    times: Any,
    channels: Any,
    values: Any,
    *,
    repeats: Literal["mean", "refuse"] = "refuse",
    names: Sequence[Hashable] | None = None,
) -> Panel:
    """Series of a table whose lines are (individual, time, channel, value), in any order.

    Lines of one individual and time become one row. Lines whose value is NaN are left out, and with
    them the rows and individuals that have no other.

    Args:
        ids: whose reading it is: numbers or strings.
        times: when, as numbers in any unit.
        channels: what was read: numbers or strings.
        values: the readings.
        repeats: what becomes of several values of one individual, time and channel: their `"mean"`,
            or an error.
        names: the channels in the order wanted; by default all of the table, sorted.

    Returns:
        A [`ndekit.data.Panel`][], sorted by individual.

    Raises:
        ValueError: if columns differ in length, a time is no finite number, a value is infinite, a
            channel is not among `names`, or a value is repeated and `repeats` is `"refuse"`; the
            message names the line.

    Example:
        ```python
        import ndekit as nk

        panel = nk.data.from_long(
            ids=["b", "a", "a", "a"],
            times=[0.0, 3.0, 1.0, 3.0],
            channels=["pulse", "pulse", "pulse", "weight"],
            values=[61.0, 70.0, 72.0, 80.5],
        )
        assert list(panel.ids) == ["a", "b"] and panel.channels == ("pulse", "weight")
        assert panel.series[0].xs.tolist() == [[72.0, 0.0], [70.0, 80.5]]
        ```
    """
    if repeats not in ("mean", "refuse"):
        raise ValueError(f'`repeats` must be "mean" or "refuse", got {repeats!r}.')
    ids, times, channels, values = _columns(ids, times, channels, values)
    _check_numbers(times, values)
    place, names = _channel_numbers(channels, names)
    there = ~np.isnan(values)
    lines = np.flatnonzero(there)
    if not lines.size:
        raise ValueError("The table must hold at least one value that is not NaN, got none.")
    owners, owner = np.unique(ids[lines], return_inverse=True)
    order = np.lexsort((place[lines], times[lines], owner))
    lines, owner = lines[order], owner[order]
    lines, owner, means = _merged(lines, owner, ids, times, place, values, names, repeats)
    # A row begins with another individual or another time.
    begins = np.flatnonzero(_changes(owner, times[lines]))
    row = np.cumsum(_changes(owner, times[lines])) - 1
    xs = np.full((len(begins), len(names)), np.nan)
    xs[row, place[lines]] = means
    cuts = np.flatnonzero(_changes(owner[begins]))[1:]
    parts = zip(np.split(times[lines][begins], cuts), np.split(xs, cuts), strict=True)
    return Panel([Series(ts, rows) for ts, rows in parts], owners, names, {})


def _columns(*columns: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    ids, times, channels, values = (np.asarray(column) for column in columns)
    shapes = {c.shape for c in (ids, times, channels, values)}
    if len(shapes) != 1 or ids.ndim != 1:
        raise ValueError(
            "`ids`, `times`, `channels` and `values` must be columns of one length, got the shapes "
            f"{ids.shape}, {times.shape}, {channels.shape}, {values.shape}."
        )
    for name, column in (("times", times), ("values", values)):
        if column.dtype.kind not in "fiub":
            raise ValueError(
                f"`{name}` must be numbers, got {column.dtype}."
                + (
                    ' Write `(times - start) / np.timedelta64(1, "D")` for days.'
                    if column.dtype.kind in "mM"
                    else ""
                )
            )
    for name, column in (("ids", ids), ("channels", channels)):
        unnamed = [entry is None or entry != entry for entry in _distinct(name, column)]
        if any(unnamed):
            raise ValueError(f"`{name}` must be numbers or strings, but one is NaN.")
    return ids, times.astype(np.float64), channels, values.astype(np.float64)


def _distinct(name: str, column: np.ndarray) -> list:
    try:
        return np.unique(column).tolist()
    except TypeError as error:
        raise ValueError(f"`{name}` must be all numbers or all strings ({error}).") from error


def _check_numbers(times: np.ndarray, values: np.ndarray) -> None:
    wrong = ~np.isfinite(times)
    if wrong.any():
        line = int(np.argmax(wrong))
        raise ValueError(f"`times` must be finite, but `times[{line}]` is {times[line]}.")
    if np.isinf(values).any():
        line = int(np.argmax(np.isinf(values)))
        raise ValueError(
            f"`values` must be finite, but `values[{line}]` is {values[line]}. Write NaN for a "
            "value that is missing."
        )


def _channel_numbers(
    channels: np.ndarray, names: Sequence[Hashable] | None
) -> tuple[np.ndarray, tuple]:
    """Of each line the number of its channel, and the names of the channels."""
    found, number = np.unique(channels, return_inverse=True)
    if names is None:
        return number, tuple(found.tolist())
    places = {name: i for i, name in enumerate(names)}
    if len(places) != len(names):
        raise ValueError(f"`names` must differ, got {list(names)}.")
    unknown = [name for name in found.tolist() if name not in places]
    if unknown:
        line = int(np.argmax(channels == unknown[0]))
        raise ValueError(
            f"`channels` must be among `names`, but `channels[{line}]` is {unknown[0]!r}. Add it, "
            "or leave those lines out."
        )
    return np.array([places[name] for name in found.tolist()])[number], tuple(names)


def _merged(
    lines: np.ndarray, owner: np.ndarray, ids: np.ndarray, times: np.ndarray, place: np.ndarray,
    values: np.ndarray, names: tuple, repeats: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """The first line of each individual, time and channel, and the mean of all of them."""
    new = _changes(owner, times[lines], place[lines])
    if repeats == "refuse" and not new.all():
        second = int(np.argmax(~new))
        first, line = sorted(int(i) for i in lines[second - 1 : second + 1])
        raise ValueError(
            f"Lines {first} and {line} both give channel {names[place[line]]!r} of "
            f"{ids[line : line + 1].tolist()[0]!r} at time {times[line]:g}. Write "
            '`repeats="mean"` to average them, or leave one out.'
        )
    starts = np.flatnonzero(new)
    counts = np.diff(np.append(starts, len(lines)))
    return lines[starts], owner[starts], np.add.reduceat(values[lines], starts) / counts


def _changes(*columns: np.ndarray) -> np.ndarray:
    """Where a line differs from the one before it; the first does."""
    differs = np.zeros(len(columns[0]), bool)
    differs[0] = True
    for column in columns:
        differs[1:] |= column[1:] != column[:-1]
    return differs
