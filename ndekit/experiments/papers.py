"""The rows that the published tables lack at their full length, in order of worth."""

from pathlib import Path

from .harness.compare import table
from .harness.registry import Job, make_job
from .harness.row import read_rows
from .harness.standings import standings, standings_table

SEEDS = 3
# (experiment, preset, regulariser, coefficient). `None` is the preset's own, which is the paper's
# where it has one. The others were chosen in short trainings, on validation data: the papers' data
# sets hold none out. First what makes a comparison whole: two rows beside the three of the SDE that
# are printed already, then each paper's method beside `none`, then what either is compared with.
ORDER: tuple[tuple[str, str, str, float | None], ...] = (
    ("mnist_sde", "paper_a", "none", None),
    ("mnist_sde", "paper_a", "stiffness", None),
    ("mnist_sde", "paper_a", "local_time", 5.0),
    ("mnist_sde", "paper_a", "error", None),
    ("mnist_sde", "paper_a", "steps", 0.01),
    ("mnist_ode", "paper_a", "none", None),
    ("mnist_ode", "paper_a", "error", None),
    ("mnist_ode", "paper_b", "none", None),
    ("mnist_ode", "paper_b", "local_time_published", None),
    ("mnist_ode", "paper_a", "steps", 0.01),
    ("mnist_ode", "paper_b", "local_time", 0.3),
    ("mnist_ode", "paper_a", "stiffness", None),
    ("mnist_ode", "paper_b", "local_step_published", None),
    ("mnist_ode", "paper_b", "steps", 0.01),
    ("mnist_ode", "paper_a", "local_time", 0.3),
    ("mnist_ode", "paper_b", "error", None),
    ("mnist_ode", "paper_a", "local_time_published", None),
    ("mnist_ode", "paper_b", "stiffness", None),
)
# docs/papers/neural_sdes.md has these at full length.
PRINTED = (
    make_job("mnist_sde", "none", 0, preset="paper_a"),
    make_job("mnist_sde", "error", 0, preset="paper_a"),
    make_job("mnist_sde", "steps", 0, preset="paper_a", coefficient=0.01),
)


def missing() -> list[Job]:
    """What is to be trained: the first seed of all before the second."""
    jobs = [
        make_job(experiment, regularizer, seed, preset=preset, coefficient=coefficient)
        for seed in range(SEEDS)
        for experiment, preset, regularizer, coefficient in ORDER
    ]
    return [job for job in jobs if job not in PRINTED]


def report(jobs: list[Job], out: Path) -> str:
    """What is done and what is missing, and the tables so far."""
    rows = [row for row in read_rows(out) if row.job in jobs]
    comparisons: dict[tuple[str, str], list] = {}
    for row in rows:
        comparisons.setdefault((row.job.experiment, row.job.preset), []).append(row)
    tables = [table(same) for same in comparisons.values()]
    return "\n\n".join([standings_table(standings(jobs, out)), *tables])
