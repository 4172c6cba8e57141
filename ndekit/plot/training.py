"""Training curves: accuracy beside the steps that it takes."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..train import column
from .figure import add_legend, add_note, new_figure, save_figure, seeds_in_words, style_of

LABELS = {"steps": "solver steps a solve", "evals": "field evaluations a solve"}
UNITS = {"accuracy": (100.0, "%")}


def plot_training(
    histories: Mapping[str, Sequence[Sequence[dict[str, Any]]]],
    *,
    names: Sequence[str] = ("accuracy", "steps"),
    data: str = "",
    units: Mapping[str, tuple[float, str]] = UNITS,
    about: str = "",
    path: str | os.PathLike | None = None,
) -> Any:
    """Quantities of the evaluations over updates, one line for each entry, a band over seeds.

    Args:
        histories: for each name to show, the histories of its seeds ([`ndekit.train.FitResult`][]).
        names: the quantities, one panel each, as `evaluate` returned them.
        data: what `evaluate` looked at, for the labels: `"validation"`, say.
        units: by name, what a quantity is multiplied by to be shown, and what it is then in.
        about: a sentence for the note below: which experiment, say.
        path: where to save the picture, if anywhere.

    Returns:
        The matplotlib figure. Lines are means over the seeds; bands reach from least to largest.
        A note below says so.

    Raises:
        ValueError: if a history holds no evaluations of a quantity.
        ImportError: if matplotlib is not installed.

    Example:
        ```python
        import ndekit as nk

        history = [
            {"kind": "evaluate", "update": 10 * i, "accuracy": 1 - 0.5**i, "steps": 9 + i}
            for i in range(4)
        ]  # of `ndekit.train.fit`: `result.history`
        nk.plot.plot_training({"none": [history]}, data="validation", path="training.png")
        ```
    """
    figure, axes = new_figure(1, len(names), width=4.6 * len(names), height=3.6)
    for ax, name in zip(axes[0], names, strict=True):
        for index, (label, seeds) in enumerate(histories.items()):
            scale, _ = units.get(name, (1.0, ""))
            curves = [_curve(label, name, history) for history in seeds]
            _draw(ax, label, [(updates, scale * values) for updates, values in curves], index)
        ax.set_xlabel("updates")
        ax.set_ylabel(_label(name, data, units))
        if name in ("steps", "evals"):
            ax.set_ylim(bottom=0)
    add_legend(figure, axes[0, 0], histories)
    add_note(figure, [about, _drawn([len(seeds) for seeds in histories.values()])])
    save_figure(figure, path)
    return figure


def _label(name: str, data: str, units: Mapping[str, tuple[float, str]]) -> str:
    """`validation accuracy [%]`, `solver steps a solve (validation)`."""
    unit = f" [{units[name][1]}]" if name in units else ""
    if name in LABELS:
        return LABELS[name] + unit + (f" ({data})" if data else "")
    return f"{data} {name}{unit}".strip()


def _drawn(numbers: Sequence[int]) -> str:
    if max(numbers, default=0) <= 1:
        return "Each line is one seed."
    return f"Lines: means of {seeds_in_words(numbers)}. Bands: from the least to the largest seed."


def _curve(label: str, name: str, history: Sequence[dict[str, Any]]) -> tuple:
    updates, values = column(history, name, kind="evaluate")
    if not len(updates):
        raise ValueError(
            f"The history of {label!r} has no evaluation with {name!r}. Train with an `evaluate` "
            "that returns it, or leave it out of `names`."
        )
    return updates, values


def _draw(ax: Any, label: str, curves: list[tuple], index: int) -> None:
    # Seeds that stopped early, or were cut, share their first evaluations.
    length = min(len(updates) for updates, _ in curves)
    updates = curves[0][0][:length]
    values = np.stack([values[:length] for _, values in curves])
    style = style_of(index)
    ax.plot(updates, values.mean(axis=0), label=label, markersize=3.5, linewidth=1.4, **style)
    if len(curves) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        ax.fill_between(updates, low, high, color=style["color"], alpha=0.15, linewidth=0)
