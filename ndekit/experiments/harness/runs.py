"""Jobs done one after the other, each leaving a row; what is done already is not done again."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ...diagnose import StepTable
from ...train import FitResult
from .config import Config
from .errors import SettingError
from .measuring import measure, rows_of, time_predictions
from .provenance import commit_of, device_name, versions
from .registry import Job, find_config, find_regularizer
from .row import Row, append_row, read_rows
from .training import Trainer

STEPS_FILE = "steps.npz"


def run_jobs(
    jobs: Iterable[Job],
    out: Path,
    *,
    data_folder: str | None = None,
    progress: bool = True,
    fresh: bool = False,
    needs_validation: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Do the jobs whose row is not yet in `out/rows.jsonl`; the rows of all of them, in order.

    A job that was cut off goes on from its checkpoint. Jobs that differ by their seed alone should
    stand together: they share a compiled program.

    Args:
        jobs: what to do.
        out: the folder for rows, logs and checkpoints.
        data_folder: where the data lie, for experiments that read a folder.
        progress: whether to show progress bars.
        fresh: whether to do a job again although its row or checkpoint is there.
        needs_validation: whether data without a validation part are refused.
        say: is told, in a line, what happens.

    Raises:
        SettingError: for data without a validation part if that is needed.
        OSError: if `out` cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    done = {} if fresh else {row.job: row for row in read_rows(out)}
    datasets: dict[tuple[str, str], Any] = {}
    trainers: dict[Job, Trainer] = {}
    rows = []
    for job in jobs:
        if job in done:
            say(f"{job.name}: already in {out}")
            rows.append(done[job])
            continue
        say(f"{job.name}: training")
        family = job._replace(seed=0)
        if family not in trainers:
            trainers = {family: trainer_of(job, datasets, data_folder)}
        if needs_validation and not len(trainers[family].data.validation_x):
            raise SettingError(
                f"A coefficient is chosen on validation data, but the preset `{job.preset}` of "
                f"`{job.experiment}` holds none out. Choose another preset (`ndekit list`)."
            )
        row = run_job(job, trainers[family], out, progress=progress, fresh=fresh)
        append_row(out, row)
        rows.append(row)
    return rows


def run_job(job: Job, trainer: Trainer, out: Path, *, progress: bool, fresh: bool) -> Row:
    """Train, measure, and keep the steps of the solve for the picture."""
    folder = folder_of(job, out)
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    return row_of(job, trainer, trainer.train(job.seed, folder, progress=progress), out)


def row_of(job: Job, trainer: Trainer, result: FitResult, out: Path) -> Row:
    """Measure a trained model, and keep the steps of its solve."""
    config = trainer.config
    batch = rows_of(trainer.data.test_x, slice(config.predict_batch))
    table = config.task.see_solver(result.model, config.max_steps, batch)
    np.savez(folder_of(job, out) / STEPS_FILE, **table._asdict())
    return _row(job, trainer, result)


def folder_of(job: Job, out: Path) -> Path:
    """Where a job keeps its log, its checkpoint (with the trained model) and its steps."""
    return out / "runs" / job.name


def read_steps(job: Job, out: Path) -> StepTable:
    """The steps of one solve by the model that the job trained."""
    with np.load(folder_of(job, out) / STEPS_FILE) as arrays:
        return StepTable(**arrays)


def trainer_of(job: Job, datasets: dict[tuple[str, str], Any], data_folder: str | None) -> Trainer:
    """What trains a job and those that differ from it by their seed; `datasets` keeps the data."""
    _, config = find_config(job.experiment, job.preset)
    place = (job.experiment, job.preset)
    if config.float64:
        jax.config.update("jax_enable_x64", True)
    settings: Any = jax.config
    if jax.default_backend() != "cpu" and settings.jax_default_matmul_precision is None:
        # Of products that are rounded to a few bits an error estimate sees little but rounding.
        jax.config.update("jax_default_matmul_precision", "highest")
    if place not in datasets:
        datasets[place] = _in_precision(config, config.load(data_folder))
    regularizer = find_regularizer(job.regularizer)
    return Trainer(config, regularizer, job.coefficient, datasets[place], job.epochs)


def _in_precision(config: Config, data: Any) -> Any:
    """The data set, its real numbers in the precision of the experiment."""
    if not config.float64:
        return data
    wide = lambda x: x.astype(np.float64) if getattr(x, "dtype", None) == np.float32 else x
    return jax.tree.map(wide, data)


def _row(job: Job, trainer: Trainer, result: FitResult) -> Row:
    data, config, model = trainer.data, trainer.config, result.model
    task, size = config.task, config.predict_batch
    train_x, train_y = rows_of((data.train_x, data.train_y), slice(task.measured))
    train = measure(task, model, train_x, train_y, size)
    test = measure(task, model, data.test_x, data.test_y, size)
    validation = None
    if len(data.validation_x):
        validation = measure(task, model, data.validation_x, data.validation_y, size).metric
    return Row(
        job=job,
        num_updates=result.num_updates,
        metric=task.metric.name,
        train_metric=train.metric,
        validation_metric=validation,
        test_metric=test.metric,
        test_loss=test.loss,
        bias=task.bias(model, data),
        steps=test.steps,
        evals=test.evals,
        train_seconds=result.train_seconds,
        predict_seconds=time_predictions([model], rows_of(data.test_x, slice(size)))[0],
        predict_batch=min(size, len(data.test_x)),
        compile_seconds=result.compile_seconds,
        device=device_name(),
        commit=commit_of(Path(__file__).parent),
        versions=versions(),
        most_steps=test.most_steps,
        yardsticks=getattr(data, "yardsticks", {}),
    )
