"""The row that a run leaves behind, and the file of rows."""

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import jax

from .config import Coefficient
from .registry import Job

FILE_NAME = "rows.jsonl"


class RowsError(ValueError):
    """A file of rows that cannot be read; the message says where."""


class Row(NamedTuple):
    """One trained model. Step counts are those of a batch solved as one state, without costs.

    Attributes:
        coefficient: a number, or the start and the end of an exponential schedule; 0 for none.
        metric: what is compared besides the cost, the task's.
        train_metric, validation_metric, test_metric: its values; `None` without such data.
        bias: relative error of the learnt dynamics, where the true ones are known.
        steps: accepted and rejected steps of a solve of test data, mean over batches.
        evals: evaluations of the vector field in it.
        train_seconds: updates only; compilation and evaluations are apart.
        predict_seconds: one batch of `predict_batch` test images, median of twenty, compiled.
        compile_seconds: of the training update; 0 where an earlier seed compiled it.
    """

    experiment: str
    preset: str
    regularizer: str
    coefficient: Coefficient
    seed: int
    epochs: int
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

    @property
    def job(self) -> Job:
        return Job(*(getattr(self, name) for name in Job._fields))


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
    temporary.write_bytes(whole + json.dumps(row._asdict()).encode() + b"\n")
    os.replace(temporary, path)


def _parse(path: Path, number: int, line: str) -> Row:
    try:
        fields: dict[str, Any] = json.loads(line)
        if isinstance(fields["coefficient"], list):
            fields["coefficient"] = tuple(fields["coefficient"])
        return Row(**fields)
    except (ValueError, TypeError, KeyError) as error:
        raise RowsError(
            f"Line {number} of `{path}` is no row of this version ({error}). Remove the line, or "
            "choose another `--out`."
        ) from error


def device_name() -> str:
    """What the numbers were measured on, as far as JAX and Python know."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return f"cpu ({os.cpu_count()} cores, {platform.machine()})"
    return f"{device.platform} ({device.device_kind})"


def commit_of(folder: Path) -> str | None:
    """The commit of the checkout that the package lies in, if it lies in one."""
    command = ["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str]:
    found = {}
    for name in ("ndekit", "jax", "diffrax", "equinox", "optax"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
