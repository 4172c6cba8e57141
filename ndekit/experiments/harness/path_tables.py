"""What the rows of the experiment on paths come to: over seeds, and at equal error."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...plot.frontier import spread
from .measured import TableRow, Tables, table_of
from .path_cases import SOLVERS

ERRORS = (0.1, 0.05, 0.03, 0.01, 0.005, 0.002)  # at which steps are compared
NUMBERS = ("steps", "worst", "rejected", "error", "w2", "nll", "off", "energy", "at_once_error")
Groups = dict[tuple[Any, ...], list[TableRow]]


def summary(tables: Tables) -> str:
    """A table for each data set of each part: means over seeds, with their deviation."""
    said = []
    for part, rows in tables.items():
        for name, same in grouped(rows, "data").items():
            about = f"{part}: {name[0]}" if name[0] else part
            said.append(f"{about}\n\n{table_of(of_paths(same))}")
    return "\n\n".join(said)


def grouped(rows: Sequence[TableRow], *names: str) -> Groups:
    """Rows that agree in these columns, in the order in which they come."""
    groups: Groups = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name, "") for name in names), []).append(row)
    return groups


def of_paths(rows: Sequence[TableRow]) -> list[TableRow]:
    """A row for each path: at the tolerance of the fit, and beside other tolerances what the part
    has: steps at an equal error, or the distance of the samples.
    """
    found = []
    for same in grouped(rows, "trained", "path", "solver").values():
        first = same[0]
        solver = first.get("solver", "")
        fitted = SOLVERS[solver][1] if solver in SOLVERS else None
        there = [row for row in same if row.get("tolerance", fitted) == fitted]
        row: TableRow = {k: first[k] for k in ("trained", "path", "solver") if k in first}
        row["seeds"] = len({row["seed"] for row in same})
        row |= {k: told([r[k] for r in there]) for k in NUMBERS if k in first}
        found.append(row | _at_tolerances(same))
    return found


def _at_tolerances(rows: Sequence[TableRow]) -> TableRow:
    if "tolerance" not in rows[0]:
        return {}
    if "w2" in rows[0]:
        by_tolerance = grouped(rows, "tolerance")
        return {
            f"steps, W2 at {tolerance[0]:g}": ", ".join(
                told([row[name] for row in same]) for name in ("steps", "w2")
            )
            for tolerance, same in by_tolerance.items()
        }
    by_seed = list(grouped(rows, "seed").values())
    return {
        f"steps at error {error:g}": told([steps_at(same, error) for same in by_seed])
        for error in ERRORS
    }


def told(values: Sequence[Any]) -> str:
    """Mean and standard deviation, or what the infinities of `steps_at` say."""
    numbers = np.asarray([value for value in values if value != ""], float)
    if not numbers.size:
        return ""
    if np.all(numbers == -np.inf):
        return "below"
    if not np.isfinite(numbers).all():
        reached = int(np.isfinite(numbers).sum())
        return f"reached by {reached} of {numbers.size}" if reached else "not reached"
    # Three digits of the mean, and the deviation to the same place.
    mean = float(numbers.mean())
    places = max(0, 2 - math.floor(math.log10(abs(mean)))) if mean else 0
    said = f"{mean:.{places}f}"
    return said if numbers.size == 1 else f"{said} ± {spread(numbers):.{places}f}"


def steps_at(rows: Sequence[Mapping[str, Any]], error: float) -> float:
    """The steps at which a path has this error at its end, from rows at several tolerances: between
    the nearest two by a straight line of logarithms. Infinite if all errors are larger, minus
    infinity if all are below.
    """
    points = sorted((math.log(row["error"]), math.log(row["steps"])) for row in rows)
    errors, steps = zip(*points, strict=True)
    if not errors[0] <= math.log(error) <= errors[-1]:
        return math.inf if errors[0] > math.log(error) else -math.inf
    return math.exp(np.interp(math.log(error), errors, steps))
