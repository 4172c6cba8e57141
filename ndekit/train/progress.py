"""A progress bar that shows the metrics one wants to watch, where the loss returns them."""

import sys

from tqdm import tqdm

from .update import Row

SHOWN = {"loss": "{:.4g}", "accuracy": "{:.4f}", "steps": "{:.4g}"}


class ProgressBar:
    """tqdm over updates, with loss, accuracy, steps and evaluations a second if they are known."""

    def __init__(self, total: int, done: int, *, show: bool):
        self._bar = tqdm(
            total=total, initial=done, unit="update", disable=not show, file=sys.stderr, ncols=100
        )

    def update(self, rows: list[Row], seconds: float) -> None:
        """Move on by these rows, which took this long."""
        self._bar.set_postfix(describe(rows, seconds), refresh=False)
        self._bar.update(len(rows))

    def close(self) -> None:
        self._bar.close()


def describe(rows: list[Row], seconds: float) -> dict[str, str]:
    """What the bar says: the last of these rows, and their vector-field evaluations a second."""
    last = rows[-1]
    shown = {name: form.format(last[name]) for name, form in SHOWN.items() if name in last}
    if "evals" in last and seconds > 0:
        shown["evals/s"] = f"{sum(row['evals'] for row in rows) / seconds:.3g}"
    return shown
