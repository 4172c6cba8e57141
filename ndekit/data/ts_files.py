"""The `.ts` format: a header of `@key value` lines, then a line for each series."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .dataset import DataError
from .series import Series


class TsFile(NamedTuple):
    """What a file holds."""

    series: list[Series]
    labels: np.ndarray
    classes: tuple[str, ...]

    @property
    def num_channels(self) -> int:
        return self.series[0].num_channels


def read_ts(path: Path) -> TsFile:
    """The series and labels of a file.

    Raises:
        DataError: if it is no such file, has no classes, or a line is not as the header says; the
            message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="strict").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"`{path}` should be a text file in the `.ts` format, but could not be read ({error}). "
            "Fetch the file again."
        ) from error
    header, start = _header(path, lines)
    classes = _classes(path, header)
    has_times = header.get("timestamps", "false").lower() == "true"
    series, labels = [], []
    for number, line in enumerate(lines[start:], start + 1):
        if not line.strip() or line.startswith(("#", "%")):
            continue
        try:
            one, label = _case(line.strip(), has_times)
            labels.append(classes.index(label) if label in classes else _refuse_class(label))
            if series and one.num_channels != series[0].num_channels:
                raise ValueError(
                    f"it has {one.num_channels} channels, where the first series has "
                    f"{series[0].num_channels}"
                )
        except ValueError as error:
            said = str(error).rstrip(".")
            raise DataError(
                f"Line {number} of `{path}` is not a series that can be read: {said}."
            ) from error
        series.append(one)
    if not series:
        raise DataError(f"`{path}` should hold series after `@data`, but there is none.")
    _check_channels(path, header, series[0].num_channels)
    return TsFile(series, np.array(labels, np.int32), classes)


def _header(path: Path, lines: list[str]) -> tuple[dict[str, str], int]:
    """What the header says, by lower-case key, and where the data begin."""
    header = {}
    for number, line in enumerate(lines):
        if line.startswith("@"):
            key, _, value = line[1:].strip().partition(" ")
            if key.lower() == "data":
                return header, number + 1
            header[key.lower()] = value.strip()
        elif line.strip() and not line.startswith(("#", "%")):
            break
    raise DataError(
        f"`{path}` should be in the `.ts` format, whose header ends in a line `@data`, but there "
        "is none before other lines. Is it another kind of file?"
    )


def _classes(path: Path, header: dict[str, str]) -> tuple[str, ...]:
    there, *classes = header.get("classlabel", "false").split()
    if there.lower() != "true" or not classes:
        raise DataError(
            f"`{path}` should name its classes (`@classLabel true a b ...`), but does not. Data "
            "sets for regression are not read."
        )
    return tuple(classes)


def _check_channels(path: Path, header: dict[str, str], found: int) -> None:
    said = header.get("dimensions") or header.get("dimension")
    if said is not None and said != str(found):
        raise DataError(
            f"The series of `{path}` should have {said} channels as its header says, but have "
            f"{found}. Fetch the file again."
        )


def _refuse_class(label: str) -> int:
    raise ValueError(f"its class {label[:40]!r} is not in the header")


def _case(line: str, has_times: bool) -> tuple[Series, str]:
    """A line: channels and then the class, separated by colons."""
    *channels, label = re.split(r":(?![^(]*\))", line)  # not at colons inside of parentheses
    if not channels:
        raise ValueError("there is no colon in it")
    if has_times:
        return _timed(channels), label.strip()
    columns = [_numbers(channel) for channel in channels]
    xs = np.full((max(map(len, columns)), len(columns)), np.nan)
    for i, column in enumerate(columns):
        xs[: len(column), i] = column
    return Series(np.arange(len(xs)), xs), label.strip()


def _numbers(text: str) -> np.ndarray:
    return np.array([_number(word) for word in text.split(",")])


def _number(word: str) -> float:
    return np.nan if word.strip() in ("?", "") else float(word)


def _time(word: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise ValueError(f"its time {word[:40]!r} is not a number") from error


def _timed(channels: list[str]) -> Series:
    """Channels of `(time,value)` pairs, each with its own times."""
    pairs = []
    for channel in channels:
        found = re.findall(r"\(([^,()]*),([^()]*)\)", channel)
        if re.sub(r"\([^()]*\)", "", channel).strip(" ,") or not found:
            raise ValueError(f"{channel[:40]!r} is no list of pairs `(time,value)`")
        pairs.append([(_time(time), _number(value)) for time, value in found])
    ts = np.unique([time for channel in pairs for time, _ in channel])
    xs = np.full((len(ts), len(pairs)), np.nan)
    for i, channel in enumerate(pairs):
        times = [time for time, _ in channel]
        if len(set(times)) != len(times):
            raise ValueError(f"a time comes twice in channel {i}")
        xs[np.searchsorted(ts, times), i] = [value for _, value in channel]
    return Series(ts, xs)
