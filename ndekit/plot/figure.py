"""Figures with one look: colours that colour-blind readers tell apart, and a way to save them."""

import math
import os
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# Okabe and Ito (2008), darkest first; the markers tell lines apart in grey print too.
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def new_figure(rows: int, columns: int, *, width: float, height: float, **options: Any) -> tuple:
    """A figure of `width` by `height` inches and its axes, without pyplot's global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib, which is not installed. "
            "Run `pip install ndekit[experiments]`."
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
    return figure, axes


def style_of(index: int) -> dict[str, str]:
    """The colour and the marker of line number `index`: 49 pairs before one comes again."""
    turn, color = divmod(index, len(COLORS))
    return {"color": COLORS[color], "marker": MARKERS[(color + turn) % len(MARKERS)]}


def add_legend(figure: Any, ax: Any, names: Iterable[str], *, columns: int = 4) -> None:
    """One legend above all panels, where it covers nothing: in as many columns as there is room
    for, and the figure grows by its rows.
    """
    known = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    names = [name for name in names if name in known]
    longest = max((len(name) for name in names), default=0)
    # At matplotlib's size of letters, with a mark of some six before each name.
    fitting = int(11 * figure.get_figwidth() / (longest + 6))
    columns = max(1, min(len(names), columns, fitting))
    rows = math.ceil(len(names) / columns)
    figure.set_figheight(figure.get_figheight() + 0.22 * max(0, rows - 1))
    figure.legend(
        [known[name] for name in names], names, loc="outside upper center", ncols=columns,
        frameon=False,
    )  # fmt: skip


def add_note(figure: Any, sentences: Iterable[str]) -> None:
    """Below all panels: what a reader needs to know of the data and of how they are drawn."""
    note = " ".join(filter(None, sentences))
    letters = round(15 * figure.get_figwidth())
    figure.supxlabel("\n".join(textwrap.wrap(note, letters)), fontsize="small", color="0.3")


def seeds_in_words(numbers: Sequence[int]) -> str:
    """How many seeds the entries of a picture have: `3 seeds`, `2 to 3 seeds`."""
    least, most = min(numbers, default=0), max(numbers, default=0)
    if least == most:
        return "one seed" if most == 1 else f"{most} seeds"
    return f"{least} to {most} seeds"


def save_figure(figure: Any, path: str | os.PathLike | None) -> None:
    """Write the figure if a path is given, with its folders."""
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
