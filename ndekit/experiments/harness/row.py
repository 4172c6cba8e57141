"""The row that a run leaves behind in a file."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from .errors import RowsError
from .registry import Job

FILE_NAME = "rows.jsonl"


class Row(NamedTuple):
    """One trained model. Step counts are those of a batch solved as one state, or of a sample
    where each is solved for itself, without costs.

    Attributes:
        job: what was trained.
        metric: what is compared besides the cost, the task's.
        train_metric, validation_metric, test_metric: its values; `None` without such data.
        bias: relative error of the learnt dynamics, where the true ones are known.
        steps: accepted and rejected steps of a solve of test data, mean over solves.
        evals: evaluations of the vector field in it.
        train_seconds: updates only; compilation and evaluations are apart.
        predict_seconds: one batch of `predict_batch` test images, median of twenty, compiled.
        compile_seconds: of the training update; 0 where an earlier seed compiled it.
        most_steps: of a solve of test data; `None` in rows of older versions.
        yardsticks: the metric on test data of rules that learn nothing, and of the best that can
            be, by name; as the data have them.
    """

    job: Job
    num_updates: int
    metric: str
    train_metric: float
    validation_metric: float | None
    test_metric: float
    test_loss: float
    bias: float | None
    steps: float
    evals: float
    train_seconds: float
    predict_seconds: float
    predict_batch: int
    compile_seconds: float
    device: str
    commit: str | None
    versions: dict[str, str]
    most_steps: float | None = None
    yardsticks: dict[str, float] = {}


def columns_of(record: Any) -> dict[str, Any]:
    """A record of a job as files have it: the job's own columns, then the others."""
    columns = record._asdict()
    return {**columns.pop("job")._asdict(), **columns}


def read_rows(out: Path) -> list[Row]:
    """The rows in `out/rows.jsonl`, none if there is no such file.

    A last line that was cut off in the middle is passed over; its run is done again.

    Raises:
        RowsError: if another line is no row.
    """
    path = out / FILE_NAME
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [_parse(path, number, line) for number, line in enumerate(lines, 1)]


def append_row(out: Path, row: Row) -> None:
    """Add a row to `out/rows.jsonl`, in place of a last line that was cut off."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / FILE_NAME
    whole = path.read_bytes() if path.exists() else b""
    whole = whole[: whole.rfind(b"\n") + 1]
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(whole + json.dumps(columns_of(row)).encode() + b"\n")
    os.replace(temporary, path)


def _parse(path: Path, number: int, line: str) -> Row:
    try:
        columns: dict[str, Any] = json.loads(line)
        if isinstance(columns["coefficient"], list):
            columns["coefficient"] = tuple(columns["coefficient"])
        job = Job(**{name: columns.pop(name) for name in Job._fields})
        return Row(job, **columns)
    except (ValueError, TypeError, KeyError) as error:
        raise RowsError(
            f"Line {number} of `{path}` is no row of this version ({error}). Remove the line, or "
            "choose another `--out`."
        ) from error
