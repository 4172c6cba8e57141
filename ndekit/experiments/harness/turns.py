"""Trainings of several regularisers in turns in one process: seconds that may be compared.

Rows that are trained one after the other are compared across minutes, in which a machine changes
its speed more than a regulariser does.
"""

import contextlib
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .compare import strength, write_csv
from .measuring import measure, rows_of, time_predictions
from .provenance import commit_of, device_name
from .registry import Job
from .row import columns_of
from .runs import trainer_of
from .training import Trainer

FILE_NAME = "seconds.csv"
NUM_TURNS = 10


class Seconds(NamedTuple):
    """What a regulariser's training takes.

    Attributes:
        job: whose training it is.
        num_updates: the first so many of its training are what was timed.
        device, commit: where, and with which program.
        update_seconds: of one update, mean over them.
        predict_seconds: one batch of test data, by the model after these updates; median.
        evals: evaluations of the vector field in that solve.
        compile_seconds: of the update.
    """

    job: Job
    num_updates: int
    update_seconds: float
    predict_seconds: float
    evals: float
    compile_seconds: float
    device: str
    commit: str | None


def train_in_turns(
    jobs: Sequence[Job],
    num_updates: int,
    *,
    data_folder: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Seconds]:
    """The first updates of each job, in turns of a few, then predictions, in turns.

    Where a turn begins one call is made twice, and the second is timed.

    Args:
        jobs: of one experiment and preset.
        num_updates: how many of each, rounded up to compiled calls; at most the whole training.
        data_folder: as for [`run_jobs`][ndekit.experiments.harness.runs.run_jobs].
        say: is told, in a line, what happens.
    """
    datasets: dict[tuple[str, str], Any] = {}
    trainers = [trainer_of(job, datasets, data_folder) for job in jobs]
    with tempfile.TemporaryDirectory() as place:
        results = _all_in_turns(jobs, trainers, num_updates, Path(place), say)
    config, data = trainers[0].config, trainers[0].data
    first = slice(config.predict_batch)
    batch, targets = rows_of(data.test_x, first), rows_of(data.test_y, first)
    models = [result.model for result, _ in results]
    say("predictions")
    predictions = time_predictions(models, batch)
    return [
        Seconds(
            job=job,
            num_updates=result.num_updates,
            update_seconds=result.train_seconds / result.num_updates,
            predict_seconds=seconds,
            evals=measure(config.task, result.model, batch, targets, config.predict_batch).evals,
            compile_seconds=compile_seconds,
            device=device_name(),
            commit=commit_of(Path(__file__).parent),
        )
        for job, (result, compile_seconds), seconds in zip(jobs, results, predictions, strict=True)
    ]


def _all_in_turns(
    jobs: Sequence[Job],
    trainers: Sequence[Trainer],
    num_updates: int,
    place: Path,
    say: Callable[[str], None],
) -> list[tuple[Any, float]]:
    """The last result of each training, and what its first part says of compilation."""
    num_updates = min(num_updates, trainers[0].num_updates)
    calls = -(-num_updates // trainers[0].updates_per_call)
    turns = min(NUM_TURNS, calls)
    results: list[Any] = [None] * len(jobs)
    compilations: list[float] = []
    for turn in range(1, turns + 1):
        until = trainers[0].updates_per_call * -(-calls * turn // turns)
        say(f"turn {turn} of {turns}, up to {until} updates")
        for i, (job, trainer) in enumerate(zip(jobs, trainers, strict=True)):
            folder = place / str(i)
            with _unsaid():
                results[i] = trainer.go_on(job.seed, folder, until, progress=False)
            if turn == 1:  # later parts compile nothing
                compilations.append(results[i].compile_seconds)
    return list(zip(results, compilations, strict=True))


@contextlib.contextmanager
def _unsaid() -> Iterator[None]:
    """Without `fit`'s word, at each turn, that it goes on and what half a training lacks."""
    logger = logging.getLogger("ndekit.train")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def seconds_table(rows: Sequence[Seconds]) -> str:
    """Behind the bar, each relative to the first."""
    first, job = rows[0], rows[0].job
    lines = [
        f"{job.experiment} ({job.preset}), first {first.num_updates} updates in turns, seed "
        f"{job.seed}, {first.device}",
        f"{'regularizer':<22}{'coefficient':>12}{'update [ms]':>13}{'predict [ms]':>14}"
        f"{'evals':>9}{'compile [s]':>13}  |  update predict  evals compile, beside "
        f"{job.regularizer}",
    ]
    for row in rows:
        cells = (
            f"{row.job.regularizer:<22}{strength(row.job.coefficient):>12}"
            f"{1000 * row.update_seconds:>13.1f}{1000 * row.predict_seconds:>14.2f}"
            f"{row.evals:>9.1f}{row.compile_seconds:>13.1f}"
        )
        ratios = [
            getattr(row, name) / (getattr(first, name) or math.nan)
            for name in ("update_seconds", "predict_seconds", "evals", "compile_seconds")
        ]
        beside = "".join(f"{f'x{ratio:.2f}':>8}" for ratio in ratios)
        lines.append(cells if row is first else f"{cells}  |{beside}")
    return "\n".join(lines)


def write_seconds(out: Path, rows: Sequence[Seconds]) -> Path:
    """The rows as `out/seconds.csv`, overwritten."""
    out.mkdir(parents=True, exist_ok=True)
    return write_csv(out / FILE_NAME, [columns_of(row) for row in rows])
