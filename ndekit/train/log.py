"""The history of a training run as rows, and as a file of JSON lines."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from .update import Row


class JsonLines:
    """A file with one JSON object a line, each on the disk before training goes on.

    It always equals the run's history: `rows` are written when it opens, over what was there.
    """

    def __init__(self, path: str | os.PathLike, rows: Iterable[Row]):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        self.append(rows)

    def append(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def column(
    history: Sequence[Row], name: str, *, kind: Literal["train", "evaluate"] = "train"
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """One quantity of a history, as (number of updates done, value), where it was recorded.

    Args:
        history: `FitResult.history`, or the objects read back from its log.
        name: a name of `loss_fn`'s metrics or of `evaluate`'s, or "loss".
        kind: whether the rows of the updates or those of the evaluations.

    Example:
        ```python
        import ndekit as nk

        history = [
            {"kind": "train", "update": 1, "loss": 0.7},
            {"kind": "evaluate", "update": 1, "accuracy": 0.5},
        ]  # of `ndekit.train.fit`: `result.history`
        updates, accuracies = nk.train.column(history, "accuracy", kind="evaluate")
        ```
    """
    rows = [row for row in history if row["kind"] == kind and name in row]
    updates = np.array([row["update"] for row in rows], dtype=float)
    return updates, np.array([row[name] for row in rows], dtype=float)
