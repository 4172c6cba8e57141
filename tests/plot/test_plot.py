"""Pictures: what is drawn is what was given, legible, and absent matplotlib is one sentence."""

import sys

import numpy as np
import pytest

from ndekit.diagnose import StepTable
from ndekit.plot import plot_frontier, plot_solver_seen, plot_training


def history(accuracies, steps):
    rows = [{"kind": "train", "update": i, "loss": 1.0} for i in range(1, 41)]
    rows += [
        {"kind": "evaluate", "update": 10 * (i + 1), "accuracy": a, "steps": n}
        for i, (a, n) in enumerate(zip(accuracies, steps, strict=True))
    ]
    return rows


HISTORIES = {
    "none": [history([0.5, 0.9, 0.95], [6, 9, 12]), history([0.6, 0.8, 0.97], [6, 11, 14])],
    "steps": [history([0.5, 0.88, 0.96], [6, 6, 7])],
}


def table(n, *, rejected=(), stiff=True):
    edges = np.linspace(0, 1, n + 1)
    accepted = np.ones(n, bool)
    accepted[list(rejected)] = False
    error = np.where(accepted, 0.5, 2.0)
    stiffness = np.full(n, 3.0) if stiff else np.full(n, np.nan)
    return StepTable(edges[:-1], edges[1:], error, stiffness, accepted)


def lines_of(ax):
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def test_training_draws_the_mean_over_seeds():
    accuracy, steps = plot_training(HISTORIES).axes
    assert np.allclose(lines_of(accuracy)["none"], [[10, 55], [20, 85], [30, 96]])
    assert np.allclose(lines_of(steps)["none"], [[10, 6], [20, 10], [30, 13]])
    assert np.allclose(lines_of(steps)["steps"], [[10, 6], [20, 6], [30, 7]])
    assert len(steps.collections) == 1  # a band where there are two seeds, none for one


def note_of(figure):
    return figure.get_supxlabel().replace("\n", " ")


def test_training_says_which_data_seeds_units_and_bands():
    figure = plot_training(HISTORIES, data="validation", about="digits, 3 epochs.")
    accuracy, steps = figure.axes
    assert accuracy.get_ylabel() == "validation accuracy [%]"
    assert steps.get_ylabel() == "solver steps a solve (validation)"
    assert note_of(figure) == (
        "digits, 3 epochs. Lines: means of 1 to 2 seeds. Bands: from the least to the largest seed."
    )
    alone = plot_training({"steps": HISTORIES["steps"]})
    assert note_of(alone) == "Each line is one seed."
    assert alone.axes[0].get_ylabel() == "accuracy [%]"


def test_training_shows_quantities_in_their_units():
    figure = plot_training(HISTORIES, names=("accuracy",), units={"accuracy": (1000.0, "/1000")})
    (ax,) = figure.axes
    assert np.allclose(lines_of(ax)["steps"][0], [10, 500])
    assert ax.get_ylabel() == "accuracy [/1000]"


def test_solver_seen_and_frontier_say_what_they_show():
    seen = plot_solver_seen({"none": table(4)}, about="Seed 3, 250 test images.")
    assert note_of(seen).startswith("Seed 3, 250 test images. Each mark is a step;")
    points = (np.array([70.0, 80.0, 90.0]), np.array([97.0, 98.0, 99.0]))
    assert "mean and standard deviation of 3 seeds. Small marks: each seed." in note_of(
        plot_frontier({"a": points})
    )
    assert note_of(plot_frontier({"a": (np.ones(1), np.ones(1))})) == "Each mark is one seed."


def test_training_takes_seeds_that_stopped_early():
    short = history([0.5, 0.9], [6, 9])
    accuracy, _ = plot_training({"none": [HISTORIES["none"][0], short]}).axes
    assert lines_of(accuracy)["none"].shape == (2, 2)


def test_training_names_what_is_missing():
    with pytest.raises(ValueError, match="history of 'none' has no evaluation with 'evals'"):
        plot_training(HISTORIES, names=("evals",))


def marks_of(ax, marker):
    return sum(len(line.get_xdata()) for line in ax.get_lines() if line.get_marker() == marker)


def test_solver_seen_marks_accepted_and_rejected():
    figure = plot_solver_seen({"before": table(5, rejected=[2]), "after": table(3)})
    sizes, errors, stiffness = figure.axes
    for ax in (sizes, stiffness):
        assert marks_of(ax, "o") == 4 and marks_of(ax, "s") == 3 and marks_of(ax, "x") == 1
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "before: 4 accepted, 1 rejected",
        "after: 3 accepted, 0 rejected",
        "accepted below",
        "rejected",
    ]
    assert figure.axes[-1].get_xlabel() == "t"


def test_solver_seen_says_when_the_solver_cannot_tell():
    figure = plot_solver_seen({"heun": table(4, stiff=False)})
    assert [text.get_text() for text in figure.axes[2].texts] == ["this solver cannot tell"]


def test_equal_steps_are_a_straight_line_within_the_panel():
    """Steps of 0.2 differ by rounding, which no axis is to be about."""
    sizes, _, stiffness = plot_solver_seen({"equal": table(5)}).axes
    for ax, value in ((sizes, 0.2), (stiffness, 3.0)):
        low, high = ax.get_ylim()
        assert low < 0.7 * value and high > 1.5 * value


def test_frontier_shows_each_seed_and_the_mean():
    figure = plot_frontier({"none": (np.array([70.0, 80.0]), np.array([97.0, 98.0]))})
    (ax,) = figure.axes
    seeds, mean, *_ = [line.get_xydata() for line in ax.get_lines()]
    assert seeds.tolist() == [[70, 97], [80, 98]]
    assert mean.tolist() == [[75, 97.5]]


def test_frontier_refuses_unpaired_points():
    with pytest.raises(ValueError, match="has 2 and 1 of them"):
        plot_frontier({"none": (np.array([1.0, 2.0]), np.array([1.0]))})


LONG = "An experiment (with a preset of a long name), 40 epochs. In brackets: the coefficient."
PICTURES = {
    "training": lambda path: plot_training(HISTORIES, data="validation", about=LONG, path=path),
    "solver_seen": lambda path: plot_solver_seen(
        {name: table(5, rejected=[1]) for name in ("none", "steps", "error", "stiffness")},
        about=LONG,
        path=path,
    ),
    "frontier": lambda path: plot_frontier({"a": (np.ones(2), np.ones(2))}, about=LONG, path=path),
}


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_a_picture_is_written_where_asked(draw, tmp_path):
    path = tmp_path / "deep" / "picture.png"
    draw(path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def boxes_of(figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).draw()
    panels = [ax.get_tightbbox() for ax in figure.axes]
    return panels, [legend.get_window_extent() for legend in figure.legends]


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_nothing_overlaps_and_nothing_is_cut_off(draw):
    figure = draw(None)
    panels, legends = boxes_of(figure)
    boxes = [*panels, *legends, figure._supxlabel.get_window_extent()]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1


def test_absent_matplotlib_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="Pictures need matplotlib.*ndekit.experiments"):
        plot_frontier({})
