"""The frontier: what a model is worth against what it costs to solve."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from .figure import add_legend, add_note, new_figure, save_figure, seeds_in_words, style_of

Points = tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]


def plot_frontier(
    points: Mapping[str, Points],
    *,
    metric: str = "test accuracy [%]",
    about: str = "",
    path: str | os.PathLike | None = None,
) -> Any:
    """A metric against evaluations of the vector field, one mark a seed, the mean with its spread.

    Args:
        points: for each name, the evaluations and the metric of its seeds.
        metric: what the metric is called, with its unit.
        about: a sentence for the note below: which experiment, say.
        path: where to save the picture, if anywhere.

    Returns:
        The matplotlib figure. Bars are one standard deviation over the seeds. A note below says so.

    Raises:
        ValueError: if evaluations and metric of a name differ in number.
        ImportError: if matplotlib is not installed.

    Example:
        ```python
        import numpy as np, ndekit as nk

        nk.plot.plot_frontier(
            {"none": (np.array([73.0, 79.0]), np.array([97.6, 98.0]))}, path="frontier.png"
        )
        ```
    """
    many = len(points) > 8
    figure, axes = new_figure(1, 1, width=7.6 if many else 5.6, height=5.4 if many else 4.2)
    ax = axes[0, 0]
    for index, (name, (evals, values)) in enumerate(points.items()):
        if len(evals) != len(values):
            raise ValueError(
                f"`points[{name!r}]` must pair evaluations with metrics, but has {len(evals)} and "
                f"{len(values)} of them."
            )
        style = style_of(index)
        ax.plot(evals, values, linestyle="none", markersize=4, alpha=0.45, **style)
        ax.errorbar(
            np.mean(evals), np.mean(values), xerr=spread(evals), yerr=spread(values), label=name,
            markersize=9, capsize=3, linestyle="none", **style,
        )  # fmt: skip
    ax.set_xlabel("field evaluations a solve")
    ax.set_ylabel(metric)
    ax.margins(0.12)
    add_legend(figure, ax, points, columns=3 if many else 4)
    numbers = [len(evals) for evals, _ in points.values()]
    drawn = "Each mark is one seed."
    if max(numbers, default=0) > 1:
        drawn = (
            f"Large marks with bars: mean and standard deviation of {seeds_in_words(numbers)}. "
            "Small marks: each seed."
        )
    add_note(figure, [about, drawn])
    save_figure(figure, path)
    return figure


def spread(values: Float[np.ndarray, " seeds"]) -> float:
    """The standard deviation of a sample; zero for a single value, which has none."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
