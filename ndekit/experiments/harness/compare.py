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
from .errors import SettingError
from .registry import Job, find_config, find_regularizer
from .row import Row
from .runs import folder_of, read_steps
from .task import Metric


def group_models(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by their regulariser, or by preset and regulariser where there are several presets."""
    several = len({row.job.preset for row in rows}) > 1
    groups: dict[str, list[Row]] = {}
    for row in rows:
        job = row.job
        name = job.regularizer
        if several:
            name = job.preset if name == "none" else f"{job.preset} {name}"
        groups.setdefault(name, []).append(row)
    return groups


def group_rows(rows: Sequence[Row], by: str = "regularizer") -> dict[Any, list[Row]]:
    """Rows by one of their job's fields, in the order in which its values first come."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(getattr(row.job, by), []).append(row)
    return groups


def table(rows: Sequence[Row]) -> str:
    """Mean and standard deviation over seeds; behind the bar, each relative to `none`, or to the
    first of several presets. What needs no training stands first.
    """
    groups = group_models(rows)
    first, metric = rows[0], metric_of(rows)
    alone = len({row.job.preset for row in rows}) > 1
    against = next((name for name in groups if alone or name == "none"), None)
    width = max(22, *(len(name) + 2 for name in groups))
    batch, biased, told = first.predict_batch, first.bias is not None, first.yardsticks
    apart = any((row.most_steps or 0) > row.steps for row in rows)
    lines = [
        f"{heading(*rows)}, seeds {', '.join(map(str, sorted({row.job.seed for row in rows})))}, "
        f"{first.device}; mean ± standard deviation",
        *(f"{name:<{width}}{'':>12}{metric.unit * value:>18.2f}" for name, value in told.items()),
        f"{'preset' if alone else 'regularizer':<{width}}{'coefficient':>12}"
        f"{f'test {metric.name} {metric.unit_name}':>18}"
        + (f"{'bias %':>16}" if biased else "")
        + f"{'evals':>15}{'steps':>14}"
        + (f"{'most':>6}" if apart else "")
        + f"{f'predict {batch} [ms]':>18}{'train [s]':>14}{'compile':>9}"
        + (f"  | {metric.name}   evals  predict  train" if against else ""),
    ]
    baseline = groups.get(against or "")
    lines += [
        _line(f"{name:<{width}}", group, None if name == against else baseline, apart)
        for name, group in groups.items()
    ]
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


def heading(*rows: Row) -> str:
    """The experiment, its preset and how long it was trained, as tables and pictures say it."""
    jobs = [row.job for row in rows]
    presets = ", ".join(dict.fromkeys(job.preset for job in jobs))
    epochs = " or ".join(dict.fromkeys(str(job.epochs) for job in jobs))
    return f"{jobs[0].experiment} ({presets}), {epochs} epoch{'' if epochs == '1' else 's'}"


def metric_of(rows: Sequence[Row]) -> Metric:
    """What the rows' models are compared by."""
    return metric_of_jobs([row.job for row in rows])


def metric_of_jobs(jobs: Sequence[Job]) -> Metric:
    """What the models of some jobs are compared by.

    Raises:
        SettingError: if that is not the same for all of them.
    """
    places = dict.fromkeys((job.experiment, job.preset) for job in jobs)
    metrics = {preset: find_config(name, preset)[1].task.metric for name, preset in places}
    if len(set(metrics.values())) > 1:
        told = ", ".join(f"`{preset}` by {metric.name}" for preset, metric in metrics.items())
        raise SettingError(f"These presets are not compared by the same: {told}.")
    return next(iter(metrics.values()))


def _line(name: str, group: list[Row], baseline: list[Row] | None, apart: bool) -> str:
    unit = metric_of(group).unit
    cells = [
        f"{name}{strength(group[0].job.coefficient):>12}",
        f"{_cell(group, 'test_metric', unit, 2):>18}",
        f"{_cell(group, 'bias', 100.0, 2):>16}" if group[0].bias is not None else "",
        f"{_cell(group, 'evals', 1.0, 1):>15}",
        f"{_cell(group, 'steps', 1.0, 1):>14}",
        f"{max(_values(group, 'most_steps')):>6.0f}" if apart else "",
        f"{_cell(group, 'predict_seconds', 1000.0, 2):>18}",
        f"{_cell(group, 'train_seconds', 1.0, 1):>14}",
        # Later seeds compile nothing.
        f"{max(_values(group, 'compile_seconds')):>9.1f}",
    ]
    if baseline is not None:
        gain = unit * (mean_of(group, "test_metric") - mean_of(baseline, "test_metric"))
        ratios = [
            mean_of(group, column) / (mean_of(baseline, column) or np.nan)
            for column in ("evals", "predict_seconds", "train_seconds")
        ]
        evals, predict, train = ["-" if np.isnan(r) else f"x{r:.2f}" for r in ratios]
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
    groups = {_label(name, group[0]): group for name, group in group_models(rows).items()}
    about = heading(*rows)
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
        about=f"{about}, {_first_seeds(groups)}: the solve of {_whose(first)}.{brackets}",
        path=paths[1],
    )
    points = {
        name: (_values(group, "evals"), metric.unit * _values(group, "test_metric"))
        for name, group in groups.items()
    }
    axis = f"test {metric.name} [{metric.unit_name}]"
    plot_frontier(points, metric=axis, about=f"{about}.{brackets}", path=paths[2])
    return paths


def _label(name: str, row: Row) -> str:
    """What a legend says: the model or the regulariser, and its coefficient."""
    coefficient = row.job.coefficient
    return f"{name} ({strength(coefficient)})" if coefficient else name


def _whose(row: Row) -> str:
    """What `see_solver` is shown of the solves."""
    _, config = find_config(row.job.experiment, row.job.preset)
    if config.task.one_by_one:
        return "the first test sample"
    return f"the first {row.predict_batch} test samples as one state"


def _first_seeds(groups: dict[str, list[Row]]) -> str:
    seeds = {name: group[0].job.seed for name, group in groups.items()}
    if len(set(seeds.values())) == 1:
        return f"seed {next(iter(seeds.values()))}"
    return "seeds " + ", ".join(f"{seed} of {name}" for name, seed in seeds.items())


def _read_history(job: Job, out: Path) -> list[dict]:
    lines = (folder_of(job, out) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
