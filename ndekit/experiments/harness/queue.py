"""Jobs done in order of worth for as long as there is time; what is cut off goes on next time."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx

from ...train import NonFiniteLossError
from .compare import write_csv
from .registry import Job
from .row import Row, append_row, columns_of, read_rows
from .runs import folder_of, row_of, trainer_of
from .training import Trainer

FILE_NAME = "rows.csv"
FAILURE_FILE = "failure.txt"
# Of a visit, and at most: for the checkpoint, and for measuring a model that is ready.
RESERVE_SHARE, RESERVE_SECONDS = 0.1, 60.0


class Visit:
    """The time that a machine can be had for, and what is seen to take how much of it.

    Args:
        seconds: how long, in all.
        clock: seconds from anywhere.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._clock, self._begun = clock, clock()
        self._end, self._last = self._begun + seconds, self._begun
        self._reserve = min(RESERVE_SECONDS, RESERVE_SHARE * seconds)
        self.asked = 0
        # Until a training's first call is done (compilation), and the longest time between two
        # calls after that: of an update, and an evaluation if there was one.
        self.starting = self.longest_pause = 0.0

    def left(self) -> float:
        return self._end - self._clock()

    def begin_job(self) -> None:
        self._begun = self._last = self._clock()
        self.asked = 0

    def is_over(self) -> bool:
        """Whether training must end, asked between any two of its calls."""
        now = self._clock()
        if self.asked <= 1:
            self.starting = max(self.starting, now - self._begun)
        else:
            self.longest_pause = max(self.longest_pause, now - self._last)
        self._last, self.asked = now, self.asked + 1
        return self._end - now <= self._reserve

    def has_time_to_begin(self) -> bool:
        """Whether another training would come to its second call."""
        return self.left() - self._reserve > self.starting

    def has_time_to_measure(self, evaluations: float) -> bool:
        """Whether so many evaluations, and what is compiled for them, fit in."""
        return self.left() > self.starting + evaluations * self.longest_pause


def work(
    jobs: Sequence[Job],
    out: Path,
    visit: Visit,
    *,
    data_folder: str | None = None,
    progress: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Do the jobs that have no row in `out/rows.jsonl`, until the time is over; the new rows.

    The job that is under way then keeps a checkpoint, from which the next visit goes on, to the
    row that it would have had without a break. Every row is written to `out/rows.csv`, too. A job
    whose training fails is noted (`failure.txt` in its folder) and passed over from then on.

    Args:
        jobs: what to do, the first first.
        out: the folder for rows, logs and checkpoints.
        visit: its time; begins when it is made.
        data_folder: as for [`run_jobs`][ndekit.experiments.harness.runs.run_jobs].
        progress: whether to show progress bars.
        say: is told, in a line, what happens.

    Raises:
        CheckpointError: if a checkpoint is damaged, or belongs to another training.
        OSError: if `out` cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    done = {row.job for row in read_rows(out)}
    datasets: dict[tuple[str, str], Any] = {}
    rows: list[Row] = []
    for job in jobs:
        if job in done or failure_of(job, out).exists():
            continue
        if not visit.has_time_to_begin():
            break
        try:
            visit.begin_job()
            row = _train_for_a_while(job, out, visit, datasets, data_folder, progress, say)
        except (NonFiniteLossError, eqx.EquinoxRuntimeError) as error:
            failure_of(job, out).write_text(reason_of(error) + "\n", encoding="utf-8")
            say(f"{job.name}: failed. {reason_of(error)}")
            continue
        if row is None:  # cut off, or left to be measured: then there may be time for another
            continue
        append_row(out, row)
        _write_rows(out)
        rows.append(row)
    return rows


def _train_for_a_while(
    job: Job,
    out: Path,
    visit: Visit,
    datasets: dict[tuple[str, str], Any],
    data_folder: str | None,
    progress: bool,
    say: Callable[[str], None],
) -> Row | None:
    """The job's row, or `None` if the time was over before."""
    trainer = trainer_of(job, datasets, data_folder)
    say(f"{job.name}: training")
    result = trainer.train(job.seed, folder_of(job, out), progress=progress, stop=visit.is_over)
    if result.num_updates < trainer.num_updates:
        say(f"{job.name}: the time is over at update {result.num_updates} of {trainer.num_updates}")
        return None
    trained = visit.asked > 0
    visit.is_over()  # the last pause counts
    # A visit that has trained nothing measures in any case, or it would never be done.
    if trained and not visit.has_time_to_measure(_evaluations(trainer)):
        say(f"{job.name}: trained; to measure it there is too little time")
        return None
    return row_of(job, trainer, result, out)


def _evaluations(trainer: Trainer) -> float:
    """What a row measures, in evaluations of the training: all data, and predictions timed."""
    data = trainer.data
    sizes = [len(data.train_x), len(data.validation_x), len(data.test_x)]
    return sum(sizes) / (sizes[1] or sizes[2]) + 2


def reason_of(error: Exception) -> str:
    """What a solver says itself, out of Equinox's account of where it said so."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line.split("EquinoxRuntimeError: ", 1)[1] for line in lines if "RuntimeError: " in line]
    return (said or lines)[0]


def failure_of(job: Job, out: Path) -> Path:
    """Where it is noted that a job's training fails."""
    return folder_of(job, out) / FAILURE_FILE


def _write_rows(out: Path) -> None:
    """All rows as a table for other programs, made anew from what they are read back from."""
    write_csv(
        out / FILE_NAME,
        [
            columns_of(row) | {"versions": ", ".join(f"{n} {v}" for n, v in row.versions.items())}
            for row in read_rows(out)
        ],
    )
