"""The solver seen: how large its steps are along t, and why."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..diagnose import StepTable
from .figure import add_legend, add_note, new_figure, save_figure, style_of

PANELS = {
    "h": "step size h (in t)",
    "scaled_error": "scaled error",
    "stiffness": "stiffness (1/t)",
}


def plot_solver_seen(
    tables: Mapping[str, StepTable], *, about: str = "", path: str | os.PathLike | None = None
) -> Any:
    """Step size, scaled error and stiffness of each attempted step, over the time that it spans.

    Args:
        tables: a [`ndekit.diagnose.StepTable`][] for each model to compare, for example before and
            after regularisation.
        about: a sentence for the note below: which seed, and which data were solved.
        path: where to save the picture, if anywhere.

    Returns:
        The matplotlib figure. Accepted steps are filled marks on the stretch that they cover,
        rejected attempts crosses. Values that are zero or not known are left out.

    Raises:
        ImportError: if matplotlib is not installed.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        term, solver = diffrax.ODETerm(lambda t, y, args: -(t**2) * y), diffrax.Tsit5()
        table = nk.diagnose.record_steps(
            term, solver, 0.0, 3.0, None, jnp.ones(2),
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4),
        )
        nk.plot.plot_solver_seen(
            {"untrained": table}, about="One test image, seed 0.", path="solver_seen.png"
        )
        ```
    """
    figure, axes = new_figure(len(PANELS), 1, width=6.4, height=7.2, sharex=True)
    for ax, (name, label) in zip(axes[:, 0], PANELS.items(), strict=True):
        for index, (model, table) in enumerate(tables.items()):
            _draw(ax, table, getattr(table, name), _legend_name(model, table), index)
        ax.set_ylabel(label)
        if ax.has_data():
            ax.set_yscale("log")
            _show_at_least(ax, 2.0, [getattr(table, name) for table in tables.values()])
        else:
            ax.text(0.5, 0.5, "this solver cannot tell", transform=ax.transAxes, ha="center")
    if np.isfinite([value for table in tables.values() for value in table.scaled_error]).any():
        axes[1, 0].axhline(1.0, color="0.4", linewidth=0.9, linestyle="--", label="accepted below")
    if any(not table.accepted.all() for table in tables.values()):
        axes[1, 0].plot([], [], "x", color="0.4", label="rejected")
    axes[-1, 0].set_xlabel("t")
    models = [_legend_name(model, table) for model, table in tables.items()]
    _merge_legends(figure, axes, [*models, "accepted below", "rejected"])
    add_note(figure, [about, "Each mark is a step; the line through it is the time that it spans."])
    save_figure(figure, path)
    return figure


def _legend_name(model: str, table: StepTable) -> str:
    rejected = int((~table.accepted).sum())
    return f"{model}: {int(table.accepted.sum())} accepted, {rejected} rejected"


def _draw(ax: Any, table: StepTable, values: np.ndarray, label: str, index: int) -> None:
    shown = np.isfinite(values) & (values > 0)
    if not shown.any():
        return
    style = style_of(index)
    middle = (table.t0 + table.t1) / 2
    kept, lost = shown & table.accepted, shown & ~table.accepted
    ax.hlines(values[kept], table.t0[kept], table.t1[kept], color=style["color"], linewidth=1.6)
    ax.plot(middle[kept], values[kept], linestyle="none", markersize=5, label=label, **style)
    ax.plot(middle[lost], values[lost], "x", color=style["color"], markersize=7)


def _show_at_least(ax: Any, ratio: float, columns: list[np.ndarray]) -> None:
    """Of values that are all but equal more than their rounding."""
    values = np.concatenate(columns)
    values = values[np.isfinite(values) & (values > 0)]
    if len(values) and values.max() < ratio * values.min():
        middle = np.sqrt(values.max() * values.min())
        ax.set_ylim(middle / ratio, middle * ratio)


def _merge_legends(figure: Any, axes: Any, names: list[str]) -> None:
    """Put the entries of the panel of step sizes and of the panel of errors into one legend."""
    ax = axes[1, 0] if axes[1, 0].has_data() else axes[0, 0]
    add_legend(figure, ax, names, columns=2)
