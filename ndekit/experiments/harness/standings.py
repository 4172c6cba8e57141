"""How far the jobs of a queue have come, and what is left of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...train.checkpoint import standing
from .compare import strength
from .queue import failure_of
from .registry import Job
from .row import read_rows
from .runs import folder_of


class JobStanding(NamedTuple):
    """How far a job has come.

    Attributes:
        state: `"done"`, `"failed"`, `"under way"` or `"missing"`.
        seconds: of training that are left, by what updates have taken so far; `None` if that is
            not known.
        guessed: whether by what those of other jobs have taken.
    """

    job: Job
    state: str
    update: int
    num_updates: int | None
    seconds: float | None
    guessed: bool


def standings(jobs: Sequence[Job], out: Path) -> list[JobStanding]:
    """How far each job has come, by the rows and the checkpoints in `out`.

    Raises:
        CheckpointError: if one is damaged.
    """
    rows = {row.job: row for row in read_rows(out)}
    # (updates done, of how many, their seconds)
    known: dict[Job, tuple[int, int | None, float]] = {
        job: (row.num_updates, row.num_updates, row.train_seconds) for job, row in rows.items()
    }
    for job in jobs:
        if job not in known and (kept := standing(folder_of(job, out) / "checkpoint.eqx")):
            known[job] = kept
    return [_standing_of(job, rows, known, out) for job in jobs]


def _standing_of(job: Job, rows: Any, known: Any, out: Path) -> JobStanding:
    update, num_updates, _ = known.get(job, (0, None, 0.0))
    if job in rows:
        return JobStanding(job, "done", update, num_updates, 0.0, False)
    if failure_of(job, out).exists():
        return JobStanding(job, "failed", update, num_updates, 0.0, False)
    guessed = not update
    alike = [job] if update else _alike(job, known)
    paces = [known[other][2] / known[other][0] for other in alike]
    num_updates = next((known[other][1] for other in alike), num_updates)
    seconds = None
    if paces and num_updates is not None:
        seconds = (num_updates - update) * sum(paces) / len(paces)
    state = "under way" if job in known else "missing"
    return JobStanding(job, state, update, num_updates, seconds, guessed)


def _alike(job: Job, known: Any) -> list[Job]:
    """Jobs with updates done that differ by the seed; if there are none, by regulariser too."""
    begun = [
        other for other, (update, *_) in known.items()
        if update and other[:2] == job[:2] and other.epochs == job.epochs
    ]  # fmt: skip
    return [other for other in begun if other[2:4] == job[2:4]] or begun


def standings_table(found: Sequence[JobStanding]) -> str:
    """A line for each job, and their sum."""
    lines = [f"{'row':<52}{'coefficient':>12}{'seed':>6}  {'state':<11}{'updates':>12}{'left':>10}"]
    for each in found:
        job = each.job
        name = f"{job.experiment} {job.preset} {job.regularizer}"
        updates = f"{each.update}/{each.num_updates or '?'}"
        lines.append(
            f"{name:<52}{strength(job.coefficient):>12}{job.seed:>6}  {each.state:<11}"
            f"{updates:>12}{_left(each):>10}"
        )
    count = lambda state: sum(each.state == state for each in found)
    unknown = sum(each.seconds is None for each in found)
    hours = sum(each.seconds or 0.0 for each in found) / 3600
    lines.append(
        f"{count('done')} of {len(found)} rows are done, {count('failed')} failed; about "
        f"{hours:.2g} h of training are left"
        + (f", and those of {unknown} rows of which no update was timed" if unknown else "")
    )
    return "\n".join(lines)


def _left(each: JobStanding) -> str:
    if each.state in ("done", "failed"):
        return ""
    if each.seconds is None:
        return "?"
    return f"{'~' if each.guessed else ''}{each.seconds / 60:.1f} min"
