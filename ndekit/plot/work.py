"""The work-precision diagram: the error of a solve against what it costs."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .figure import add_legend, add_note, new_figure, save_figure, style_of

Curve = tuple[Sequence[int | float], Sequence[int | float]]


def plot_work(
    curves: Mapping[str, Curve],
    *,
    error: str = "error",
    about: str = "",
    path: str | os.PathLike | None = None,
) -> Any:
    """Errors against evaluations of the vector field, both by their logarithms; a line for each
    solver.

    Args:
        curves: for each name, evaluations and errors, in the order in which they are joined.
        error: what the error is called, with its unit.
        about: a sentence for the note below.
        path: where to save the picture, if anywhere.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: if evaluations and errors of a name differ in number.
        ImportError: if matplotlib is not installed.

    Example:
        ```python
        import ndekit as nk

        nk.plot.plot_work({"Euler": ([10, 20], [0.1, 0.05]), "Heun": ([10, 20], [0.02, 0.005])})
        ```
    """
    figure, axes = new_figure(1, 1, width=7.6, height=5.4)
    ax = axes[0, 0]
    for index, (name, (evals, errors)) in enumerate(curves.items()):
        if len(evals) != len(errors):
            raise ValueError(
                f"`curves[{name!r}]` must pair evaluations with errors, but has {len(evals)} and "
                f"{len(errors)} of them."
            )
        ax.loglog(evals, errors, label=name, markersize=4, linewidth=1.2, **style_of(index))
    ax.set_xlabel("field evaluations a solve")
    ax.set_ylabel(error)
    add_legend(figure, ax, curves, columns=4)
    add_note(figure, [about])
    save_figure(figure, path)
    return figure
