"""The path chosen by the solver's error, beside the paths that are chosen otherwise."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from ..data import digits
from ..models import GaussianMixture
from ..paths import VE, VP, CondOT, KineticOptimal, LearnedPath, Trigonometric
from ..paths.posterior import posterior_variance
from ..plot import plot_work
from ..train import PathSolve, fit_path
from .cnf_toys import checkerboard
from .harness.learned_paths import rows_of
from .harness.measured import Measurement, Piece, TableRow, Tables
from .harness.path_cases import (
    KNOTS,
    NUM_STEPS,
    PINNED,
    SOLVERS,
    Case,
    Sizes,
    bespoke,
    case_of,
    equidistributed,
    judged,
    known_paths,
    ours,
    row_of,
    solver_along,
)
from .harness.path_tables import summary

NOISE_LEFT = 0.02  # the spread that points of data are given


# Data: all are centred, with a mean square of 1 for each coordinate.


def normalised(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=0)
    return x / np.sqrt(np.mean(x**2))


def _points(make: Callable, seed: int, sizes: Sizes) -> GaussianMixture:
    x = normalised(make(np.random.default_rng(seed), sizes.points))
    return GaussianMixture(jnp.asarray(x), NOISE_LEFT)


def _eight(seed: int, sizes: Sizes) -> GaussianMixture:
    """The eight Gaussians themselves; seeds differ in samples alone."""
    angles = np.arange(8) * math.pi / 4
    means, std = 4 * np.stack([np.cos(angles), np.sin(angles)], axis=1), 0.5
    size = math.sqrt(np.mean(means**2) + std**2)
    return GaussianMixture(jnp.asarray(means / size), std / size)


def _anisotropic(seed: int, sizes: Sizes) -> GaussianMixture:
    """Six modes whose variances are as 100 to 1, along either axis."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(6, 2))
    stds = np.where(rng.uniform(size=(6, 1)) < 0.5, [[0.3, 0.03]], [[0.03, 0.3]])
    means = means - means.mean(axis=0)
    size = math.sqrt(np.mean(means**2 + stds**2))
    return GaussianMixture(jnp.asarray(means / size), stds / size)


def _digits(seed: int, sizes: Sizes) -> GaussianMixture:
    """So many digits in the basis of their first 16 principal components, each a narrow Gaussian:
    the exact score of smoothed points, not of a fitted Gaussian.
    """
    x = digits().train_x.astype(float)
    x = (x - x.mean(axis=0)) @ np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][:16].T
    chosen = np.random.default_rng(seed).permutation(len(x))[: sizes.points]
    return GaussianMixture(jnp.asarray(normalised(x[chosen])), NOISE_LEFT)


DATA: dict[str, Callable[[int, Sizes], GaussianMixture]] = {
    "gaussian": lambda seed, sizes: GaussianMixture(jnp.zeros((1, 1)), 0.5),
    "8gaussians": _eight,
    "checkerboard": partial(_points, checkerboard),
    "anisotropic": _anisotropic,
    "thin": lambda seed, sizes: GaussianMixture(jnp.zeros((1, 2)), jnp.array([[1.0, 0.01]])),
    "digits": _digits,
}


def energies(seed: int, sizes: Sizes, data: str) -> Iterator[TableRow]:
    """Kinetic energies of 3000 points, for each coordinate."""
    x = DATA[data](seed, sizes._replace(points=3000)).means
    key = jr.key(seed)
    mmse = jax.jit(posterior_variance(x, key=key, num=4 * sizes.samples))
    best = KineticOptimal.fit(x, key=key, num_samples=4 * sizes.samples)
    yield dict(path="kinetic-optimal, 2 - 2 cos Phi", energy=float(best.energy))
    ts = (jnp.arange(200.0) + 0.5) / 200
    named = [("kinetic-optimal", best), ("Cond-OT", CondOT()), ("trigonometric", Trigonometric())]
    for name, path in [*named, ("VP", VP())]:
        a, m, dadt, dmdt = path.a(ts), path.m(ts), path.dadt(ts), path.dmdt(ts)
        # E |x_1' a' + x_0 m'|^2 less what averaging given x_t takes away.
        lost = (dadt - a * dmdt / m) ** 2 * jax.lax.map(mmse, a / m)
        yield dict(path=name, energy=float(jnp.mean(dadt**2 + dmdt**2 - lost)))


def closed_form(
    seed: int, sizes: Sizes, data: str, names: tuple[str, ...] = ("Heun 1e-2", "Tsit5 1e-3")
) -> Iterator[TableRow]:
    """Stage A: data N(0, s^2) in one dimension."""
    case, std, path0 = case_of(DATA[data](seed, sizes), seed, sizes.samples), 0.5, VE(*PINNED)
    field, common = case.law.velocity(path0), dict(starts=case.fitted_on, key=jr.key(seed))
    common |= dict(progress=False, batch_size=sizes.batch, data_std=std)
    found = fit_path(
        path0, field, diffrax.Euler(), None, PINNED, num_steps=NUM_STEPS, in_sigma=True,
        num_knots=KNOTS, num_updates=sizes.updates, **common,
    )  # fmt: skip
    off = _grid_off(found.path, std)
    nothing = dict.fromkeys(("steps", "worst", "accepted", "rejected", "error"), "")
    grid: TableRow = dict(solver="Euler in sigma", path="grid, 8 steps") | nothing
    yield grid | dict(off=off, at_once="", at_once_error="", passed=off < 1e-2)
    for name in names:
        solver, tolerance = SOLVERS[name]
        fitted = partial(
            fit_path, path0, field, solver, pinned=PINNED, learn="scale", **common,
            num_updates=sizes.updates,
        )  # fmt: skip
        start = LearnedPath(*PINNED, num_knots=KNOTS)
        squares = fitted(num_steps=2 * NUM_STEPS, start=start).path
        paths = {
            "scale, by squared errors": squares,
            "scale, then by count": fitted(tolerance=tolerance, start=squares).path,
            "scale, by count alone": fitted(tolerance=tolerance, start=start).path,
        }
        known = {"Cond-OT": CondOT(), "trigonometric": Trigonometric()}
        for about, path in (paths | known).items():
            by = partial(solver_along, path, case.law, solver, tolerance, PINNED, data_std=std)
            row = row_of(by(), path, case, solver=name, path=about)
            yield row | _at_once(by(first_step=1.0), path, case, 10 * tolerance, about in paths)


def _at_once(solve: PathSolve, path: Any, case: Case, most: float, is_learned: bool) -> TableRow:
    """Whether one step over the whole path is accepted, and ends where it should: an error estimate
    may be blind to a long step.
    """
    if not is_learned:
        return dict(off="", at_once="", at_once_error="", passed="")
    once = row_of(solve, path, case)
    passed = once["worst"] == 1 and once["error"] < most
    told = dict(at_once=once["steps"], at_once_error=once["error"], passed=passed)
    return dict(off=_scale_off(path, float(solve.data_std))) | told


def _grid_off(path: LearnedPath, std: float) -> float:
    """How far the levels at equal times are from equal steps of arctan(sigma / std)."""
    angles = np.arctan(np.asarray(path.sigma(jnp.linspace(0, 1, NUM_STEPS + 1))) / std)
    even = np.linspace(angles[0], angles[-1], NUM_STEPS + 1)
    return float(np.abs(angles - even).max() / (angles[0] - angles[-1]))


def _scale_off(path: LearnedPath, std: float) -> float:
    """How far the spread of the points is from the nearest straight line in time, as a share of its
    mean: on a line every Runge-Kutta step is exact.
    """
    ts = np.linspace(0.0, 1.0, 101)
    spread = np.asarray(path.a(ts) * jnp.sqrt(std**2 + path.sigma(ts) ** 2))
    line = np.polyval(np.polyfit(ts, spread, 1), ts)
    return float(np.max(np.abs(spread - line)) / np.mean(spread))


def exact_fields(seed: int, sizes: Sizes, data: str, by: str) -> Iterator[TableRow]:
    """Stage B: exact velocities in two dimensions, adaptive steps."""
    case = case_of(DATA[data](seed, sizes), seed, sizes.samples)
    solver, tolerance = SOLVERS[by]
    paths = known_paths(case.law, jr.key(seed), PINNED)
    base = paths["log sigma"]
    first = solver_along(base, case.law, solver, tolerance, PINNED)
    paths["equidistributed"] = equidistributed(first, base, case.fitted_on)
    paths["ours"] = ours(case, seed, sizes, solver, tolerance=tolerance)
    for name, path in paths.items():
        yield from judged(case, path, solver, tolerance, path=name, data=data, solver=by)


def fixed_steps(seed: int, sizes: Sizes, data: str) -> Iterator[TableRow]:
    """Stage B at eight steps of Heun's method, where only the error at the end tells."""
    case, solver = case_of(DATA[data](seed, sizes), seed, sizes.samples), diffrax.Heun()
    along = partial(
        solver_along, law=case.law, solver=solver, tolerance=None, pinned=PINNED,
        num_steps=NUM_STEPS,
    )  # fmt: skip
    paths = known_paths(case.law, jr.key(seed), PINNED)
    paths["ours"] = ours(case, seed, sizes, solver, num_steps=NUM_STEPS)
    start = LearnedPath.like(Trigonometric(), *PINNED, num_knots=KNOTS)
    solve = along(paths["log sigma"])
    paths["Bespoke"] = bespoke(solve, case, start, jr.key(seed), sizes.updates, sizes.batch)
    for name, path in paths.items():
        yield row_of(along(path), path, case, path=name, data=data, solver="Heun, 8 steps")


def diagonal(seed: int, sizes: Sizes, data: str, by: str) -> Iterator[TableRow]:
    """Stage D: a scale for each coordinate against one for all."""
    case = case_of(DATA[data](seed, sizes), seed, sizes.samples)
    solver, tolerance = SOLVERS[by]
    size = case.starts.shape[1]
    paths: dict[str, Any] = {"Cond-OT": CondOT(), "trigonometric": Trigonometric()}
    for name, sizes_of in (("scalar", None), ("diagonal", size)):
        paths[name] = ours(case, seed, sizes, solver, size=sizes_of, tolerance=tolerance)
    for name, path in paths.items():
        yield from judged(case, path, solver, tolerance, path=name, data=data, solver=by)


def learned(seed: int, sizes: Sizes, data: str, by: str) -> Iterator[TableRow]:
    """Stage C: what a network has learnt, along a path that is found afterwards or before."""
    yield from rows_of(DATA[data](seed, sizes), seed, sizes, by, data=data)


FIELDS = ("8gaussians", "checkerboard", "anisotropic")
# What makes the rows of a seed and a data set, and of which data sets.
PARTS: dict[str, tuple[Callable[[int, Sizes, str], Iterator[TableRow]], tuple[str, ...]]] = {
    "energies": (energies, ("checkerboard",)),
    "closed form": (closed_form, ("gaussian",)),
    **{f"exact fields, {by}": (partial(exact_fields, by=by), FIELDS) for by in SOLVERS},
    "exact fields, 8 steps": (fixed_steps, FIELDS),
    "learned": (partial(learned, by="Heun 1e-2"), FIELDS[:2]),
    "diagonal": (partial(diagonal, by="Heun 1e-2"), ("thin", "digits")),
}


def pieces(part: str, sizes: Sizes) -> Iterator[Piece]:
    """Each data set of each seed: the first seed of all before the second."""
    make, names = PARTS[part]
    for seed in sizes.seeds:
        for data in names:
            rows = lambda seed=seed, data=data: (
                dict(seed=seed) | row for row in make(seed, sizes, data)
            )
            yield Piece(f"{data} {seed}", sizes._replace(seeds=(seed,)), rows)


def _draw(tables: Tables, out: Path) -> list[Path]:
    """Of each data set, for the first seed: the error of exact fields against evaluations, and how
    far the samples of learnt ones are from the data.
    """
    rows = [row for table in tables.values() for row in table if "tolerance" in row]
    # The solver is in the names only where there are several.
    told = ["trained", "path", *(["solver"] if len({row["solver"] for row in rows}) > 1 else [])]
    curves: dict[tuple[str, str], dict[str, tuple[list, list]]] = {}
    for row in rows:
        if row["seed"] != min(row["seed"] for row in rows):
            continue
        measure = "w2" if "w2" in row else "error"
        by_name = curves.setdefault((row["data"], measure), {})
        name = ", ".join(row[about] for about in told if about in row)
        evals, errors = by_name.setdefault(name, ([], []))
        evals.append(row["steps"] * (2 if "Heun" in row["solver"] else 6))
        errors.append(row[measure])
    files = []
    for (data, measure), by_name in curves.items():
        if measure == "error":
            label, about, name = "error of x / a", f"{data}.", data
        else:
            label, name = "W2 to the data", f"{data}_learned"
            about = f"{data}. Names: how the field was learnt, and the path that it is solved on."
        files.append(out / f"{name}.png")
        plot_work(by_name, error=label, about=about, path=files[-1])
    return files


MEASUREMENT = Measurement(
    about="steps of solvers along the path chosen by their own error, and along others",
    draw=_draw,
    summary=summary,
    parts={name: partial(pieces, name) for name in PARTS},
    sizes=Sizes(),
    float64=True,
)
