"""Experiments in which nothing is trained, or many small things are: tables, part by part."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from .errors import RowsError, SettingError

TableRow = dict[str, Any]
Tables = Mapping[str, Sequence[TableRow]]


class Piece(NamedTuple):
    """Rows that are made at once: what an interruption loses at most.

    Attributes:
        name: distinguishes it within its part; empty if it is the whole part.
        sizes: what its rows depend on: a file that was made with other sizes is not taken for it.
    """

    name: str
    sizes: Any
    rows: Callable[[], Iterator[TableRow]]


class Measurement(NamedTuple):
    """An experiment that is its tables.

    Attributes:
        about: one line for `ndekit list`.
        parts: the pieces of each table, by its name, for `sizes`; all rows have the same columns.
        sizes: how much is done, numbers and tuples of numbers: a `NamedTuple` with defaults.
        draw: makes pictures in a folder of the tables that are there, and returns their files.
        summary: what is told of the tables in place of themselves.
        float64: whether everything is in float64 (JAX's x64 mode is switched on for the while).
    """

    about: str
    parts: Mapping[str, Callable[[Any], Iterator[Piece]]]
    sizes: Any
    draw: Callable[[Tables, Path], list[Path]] | None = None
    summary: Callable[[Tables], str] | None = None
    float64: bool = False


def measure(
    measurement: Measurement,
    parts: Sequence[str],
    out: Path,
    *,
    sizes: Any = None,
    fresh: bool = False,
    say: Callable[[str], None] = print,
) -> str:
    """The tables of some parts, in Markdown, and pictures of them.

    A piece of a part that is done is in `out` as a file, and is read from there unless `fresh`; one
    that was interrupted is done again.

    Raises:
        RowsError: if a file is one of other sizes.
    """
    out.mkdir(parents=True, exist_ok=True)
    sizes, tables = measurement.sizes if sizes is None else sizes, {}
    with jax.enable_x64(measurement.float64):
        for part in parts:
            tables[part] = [
                row
                for piece in measurement.parts[part](sizes)
                for row in _rows_of(piece, out / f"{file_name(part, piece.name)}.jsonl", fresh, say)
            ]
    drawn = [] if measurement.draw is None else measurement.draw(tables, out)
    tell = told if measurement.summary is None else measurement.summary
    pictures = ", ".join(map(str, drawn)) or "none"
    return f"{tell(tables)}\n\ntables: {out}\npictures: {pictures}"


def told(tables: Tables) -> str:
    """Every table as it is."""
    return "\n\n".join(f"{part}\n\n{table_of(rows)}" for part, rows in tables.items())


def with_sizes(measurement: Measurement, replaced: Sequence[str]) -> Any:
    """The sizes of a measurement, some of them replaced: `["points=256", "seeds=0,1"]`.

    Raises:
        SettingError: if it has no such size, or it is no whole number.
    """
    sizes = measurement.sizes
    for setting in replaced:
        name, _, text = setting.partition("=")
        if name not in sizes._fields:
            raise SettingError(f"There is no size `{name}`. There are: {settings(measurement)}.")
        several = isinstance(getattr(sizes, name), tuple)
        words = text.split(",") if several else [text]
        least = int(not (several and name == "seeds"))
        right = all(word.isdecimal() and int(word) >= least for word in words)
        if not right or len(set(words)) < len(words):
            wanted = "whole numbers with commas, each once" if several else "a whole number"
            raise SettingError(f"`{name}` is {wanted}, from {least}, got `{text}`.")
        numbers = tuple(map(int, words))
        sizes = sizes._replace(**{name: numbers if several else numbers[0]})
    return sizes


def settings(measurement: Measurement) -> str:
    """The sizes of a measurement as they are typed."""
    typed = lambda v: ",".join(map(str, v)) if isinstance(v, tuple) else str(v)
    return " ".join(f"{name}={typed(v)}" for name, v in measurement.sizes._asdict().items())


def _rows_of(
    piece: Piece, path: Path, fresh: bool, say: Callable[[str], None]
) -> Sequence[TableRow]:
    """The rows in a piece's file, which is made if it is not there. Its first line is the sizes."""
    about = json.loads(json.dumps({"sizes": piece.sizes._asdict()}))
    if fresh or not path.exists():
        temporary = path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(about) + "\n")
            for row in piece.rows():
                say("  ".join(map(_cell, row.values())))
                file.write(json.dumps(row) + "\n")
                file.flush()
        os.replace(temporary, path)
    found, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if found != about:
        told = found.get("sizes")
        what = f"of other sizes: {told}. Say these by `--set`" if told else "of another version"
        raise RowsError(f"`{path}` is {what}. Choose another `--out`, or do it again by `--fresh`.")
    return rows


def file_name(*words: str) -> str:
    """Of a part and its piece, without spaces and commas."""
    return "_".join(filter(None, words)).replace(" ", "_").replace(",", "")


def table_of(rows: Sequence[TableRow]) -> str:
    """Rows as a table in Markdown."""
    if not rows:
        return "(no rows)"
    lines = [list(rows[0]), *[[_cell(x) for x in row.values()] for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    said = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([said[0], rule, *said[1:]])


def _cell(x: Any) -> str:
    return f"{x:.3g}" if isinstance(x, float) else str(x)
