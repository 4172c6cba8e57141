"""A comparison of regularisers: the table beside the unregularised model, and the pictures."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...plot import plot_frontier, plot_solver_seen, plot_training
from ...plot.frontier import spread
from .config import Coefficient
from .registry import Job, find_config, find_regularizer
from .row import Row
from .runs import folder_of, read_steps
from .task import Metric


def group_rows(rows: Sequence[Row], by: str = "regularizer") -> dict[Any, list[Row]]:
    """Rows by one of their job's fields, in the order in which its values first come."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(getattr(row.job, by), []).append(row)
    return groups


def table(rows: Sequence[Row]) -> str:
    """Mean and standard deviation over seeds; behind the bar, each relative to `none`."""
    groups = group_rows(rows)
    first, metric = rows[0], metric_of(rows)
    batch, biased = first.predict_batch, first.bias is not None
    lines = [
        f"{heading(first)}, seeds {', '.join(map(str, sorted({row.job.seed for row in rows})))}, "
        f"{first.device}; mean ± standard deviation",
        f"{'regularizer':<22}{'coefficient':>12}{f'test {metric.name} {metric.unit_name}':>18}"
        + (f"{'bias %':>16}" if biased else "")
        + f"{'evals':>15}{'steps':>14}{f'predict {batch} [ms]':>18}{'train [s]':>14}{'compile':>9}"
        + (f"  | {metric.name}   evals  predict  train" if "none" in groups else ""),
    ]
    baseline = groups.get("none")
    lines += [_line(name, group, baseline) for name, group in groups.items()]
    return "\n".join([*lines, *budgets_not_kept(rows)])


def budgets_not_kept(rows: Sequence[Row]) -> list[str]:
    """A sentence for each budget that the trained models exceed by more than a tenth."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        if find_regularizer(row.job.regularizer).means == "budget":
            groups.setdefault((row.job.regularizer, row.job.coefficient), []).append(row)
    return [
        f"{name} {strength(allowed)} is not kept: {mean_of(group, 'steps'):.1f} steps a solve of "
        "test data. Train longer (`--epochs`), or allow more."
        for (name, allowed), group in groups.items()
        if round(mean_of(group, "steps") / allowed, 3) > 1.1
    ]


def heading(row: Row) -> str:
    """The experiment, its preset and how long it was trained, as tables and pictures say it."""
    job = row.job
    return f"{job.experiment} ({job.preset}), {job.epochs} epoch{'s' if job.epochs > 1 else ''}"


def metric_of(rows: Sequence[Row]) -> Metric:
    _, config = find_config(rows[0].job.experiment, rows[0].job.preset)
    return config.task.metric


def _line(name: str, group: list[Row], baseline: list[Row] | None) -> str:
    unit = metric_of(group).unit
    cells = [
        f"{name:<22}{strength(group[0].job.coefficient):>12}",
        f"{_cell(group, 'test_metric', unit, 2):>18}",
        f"{_cell(group, 'bias', 100.0, 2):>16}" if group[0].bias is not None else "",
        f"{_cell(group, 'evals', 1.0, 1):>15}",
        f"{_cell(group, 'steps', 1.0, 1):>14}",
        f"{_cell(group, 'predict_seconds', 1000.0, 2):>18}",
        f"{_cell(group, 'train_seconds', 1.0, 1):>14}",
        # Later seeds compile nothing.
        f"{max(_values(group, 'compile_seconds')):>9.1f}",
    ]
    if baseline is not None and name != "none":
        gain = unit * (mean_of(group, "test_metric") - mean_of(baseline, "test_metric"))
        ratios = [
            mean_of(group, column) / mean_of(baseline, column)
            for column in ("evals", "predict_seconds", "train_seconds")
        ]
        evals, predict, train = [f"x{ratio:.2f}" for ratio in ratios]
        cells.append(f"  | {gain:+8.2f}{evals:>8}{predict:>9}{train:>7}")
    return "".join(cells).rstrip()


def strength(coefficient: Coefficient) -> str:
    """A coefficient as tables show it."""
    if isinstance(coefficient, tuple):
        return f"{coefficient[0]:g} to {coefficient[1]:g}"
    return f"{coefficient:g}" if coefficient else "-"


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Columns of jobs and what was found of each as a CSV file, overwritten in one move."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {"coefficient": strength(row["coefficient"])})
    os.replace(temporary, path)
    return path


def _values(group: Sequence[Row], column: str) -> np.ndarray:
    return np.array([getattr(row, column) for row in group], dtype=float)


def mean_of(group: Sequence[Row], column: str) -> float:
    return float(_values(group, column).mean())


def _cell(group: Sequence[Row], column: str, unit: float, digits: int) -> str:
    values = unit * _values(group, column)
    mean = f"{values.mean():.{digits}f}"
    return f"{mean} ± {spread(values):.{digits}f}" if len(values) > 1 else mean


def draw_pictures(rows: Sequence[Row], out: Path) -> list[Path]:
    """Training curves, the solver seen (first seed), and the frontier, as files in `out`."""
    metric, first = metric_of(rows), rows[0]
    groups = {_label(group[0]): group for group in group_rows(rows).values()}
    about = heading(first)
    brackets = " In brackets: the coefficient." if any(row.job.coefficient for row in rows) else ""
    paths = [out / name for name in ("training.png", "solver_seen.png", "frontier.png")]
    histories = {
        name: [_read_history(row.job, out) for row in group] for name, group in groups.items()
    }
    plot_training(
        histories, names=(metric.name, "steps"),
        units={metric.name: (metric.unit, metric.unit_name)},
        # As `Trainer.evaluate` has it.
        data="test" if first.validation_metric is None else "validation",
        about=f"{about}.{brackets}", path=paths[0],
    )  # fmt: skip
    plot_solver_seen(
        {name: read_steps(group[0].job, out) for name, group in groups.items()},
        about=f"{about}, {_first_seeds(groups)}: the solve of the first {first.predict_batch} test "
        f"samples as one state.{brackets}",
        path=paths[1],
    )
    points = {
        name: (_values(group, "evals"), metric.unit * _values(group, "test_metric"))
        for name, group in groups.items()
    }
    axis = f"test {metric.name} [{metric.unit_name}]"
    plot_frontier(points, metric=axis, about=f"{about}.{brackets}", path=paths[2])
    return paths


def _label(row: Row) -> str:
    """What a legend says: the regulariser and its coefficient."""
    job = row.job
    return f"{job.regularizer} ({strength(job.coefficient)})" if job.coefficient else "none"


def _first_seeds(groups: dict[str, list[Row]]) -> str:
    seeds = {name: group[0].job.seed for name, group in groups.items()}
    if len(set(seeds.values())) == 1:
        return f"seed {next(iter(seeds.values()))}"
    return "seeds " + ", ".join(f"{seed} of {name}" for name, seed in seeds.items())


def _read_history(job: Job, out: Path) -> list[dict]:
    lines = (folder_of(job, out) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
