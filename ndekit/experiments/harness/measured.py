"""Experiments in which nothing is trained, or many small things are: tables, part by part."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

TableRow = dict[str, Any]


class Measurement(NamedTuple):
    """An experiment that is its tables.

    Attributes:
        about: one line for `ndekit list`.
        parts: what makes the rows of each table, by its name; all rows have the same columns.
        draw: makes pictures in a folder of the tables that are there, and returns their files.
        float64: whether everything is in float64 (JAX's x64 mode is switched on for the while).
    """

    about: str
    parts: Mapping[str, Callable[[], Iterator[TableRow]]]
    draw: Callable[[Mapping[str, Sequence[TableRow]], Path], list[Path]] | None = None
    float64: bool = False


def measure(
    measurement: Measurement,
    parts: Sequence[str],
    out: Path,
    *,
    fresh: bool = False,
    say: Callable[[str], None] = print,
) -> str:
    """The tables of some parts, in Markdown, and pictures of them.

    A part that is done is in `out` as a file, and is read from there unless `fresh`; one that was
    interrupted is done again.
    """
    out.mkdir(parents=True, exist_ok=True)
    tables = {}
    with jax.enable_x64(measurement.float64):
        for part in parts:
            path = out / f"{file_name(part)}.jsonl"
            if fresh or not path.exists():
                _write(path, measurement.parts[part](), say)
            lines = path.read_text(encoding="utf-8").splitlines()
            tables[part] = [json.loads(line) for line in lines]
    drawn = [] if measurement.draw is None else measurement.draw(tables, out)
    said = [f"{part}\n\n{table_of(rows)}\n" for part, rows in tables.items()]
    return "\n".join([*said, f"tables: {out}", f"pictures: {', '.join(map(str, drawn)) or 'none'}"])


def _write(path: Path, rows: Iterator[TableRow], say: Callable[[str], None]) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            say("  ".join(map(_cell, row.values())))
            file.write(json.dumps(row) + "\n")
            file.flush()
    os.replace(temporary, path)


def file_name(part: str) -> str:
    """Of a part, without spaces and commas."""
    return part.replace(" ", "_").replace(",", "")


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
