"""The choice of a coefficient, on validation data alone."""

from collections.abc import Sequence

from .compare import (
    budgets_not_kept,
    group_rows,
    heading,
    mean_of,
    metric_of,
    strength,
)
from .config import Coefficient
from .errors import SettingError
from .row import Row


def choose(rows: Sequence[Row], baseline: Sequence[Row], allowed: float) -> Coefficient:
    """The coefficient with the fewest evaluations whose mean validation metric is worse than the
    baseline's by at most `allowed` (in the task's own unit); if none is, the best by that metric.

    Raises:
        SettingError: without validation data.
    """
    if any(row.validation_metric is None for row in [*rows, *baseline]):
        raise SettingError("A coefficient is chosen on validation data, but this preset has none.")
    sign = 1 if metric_of(rows).larger_is_better else -1
    groups = group_rows(rows, "coefficient")
    worth = {c: sign * mean_of(group, "validation_metric") for c, group in groups.items()}
    evals = {c: mean_of(group, "evals") for c, group in groups.items()}
    least = sign * mean_of(baseline, "validation_metric") - allowed
    # Seven digits: what float32 rounds is no difference.
    good = [c for c in worth if round(worth[c] - least, 7) >= 0]
    if not good:
        return max(worth, key=lambda c: worth[c])
    return min(good, key=lambda c: (evals[c], -worth[c]))


def search_table(rows: Sequence[Row], baseline: Sequence[Row], allowed: float) -> str:
    """Validation metric and evaluations of each coefficient, and which one is chosen."""
    metric, chosen = metric_of(rows), choose(rows, baseline, allowed)
    lines = [
        f"{heading(rows[0])}: {rows[0].job.regularizer}",
        f"{'coefficient':>12}{f'validation {metric.name} {metric.unit_name}':>28}{'evals':>10}",
    ]
    for coefficient, group in [(0.0, list(baseline)), *group_rows(rows, "coefficient").items()]:
        shown = metric.unit * mean_of(group, "validation_metric")
        mark = "  <-" if coefficient == chosen else ""
        lines.append(
            f"{strength(coefficient):>12}{shown:>28.2f}{mean_of(group, 'evals'):>10.1f}{mark}"
        )
    return "\n".join([*lines, *budgets_not_kept(rows)])
