"""Samplers as solvers of one field: the error of an end against the evaluations that it took."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from .. import samplers as s
from ..integrate import PNDM
from ..models import GaussianMixture
from ..paths import VP, AbstractGaussianPath, Cosine
from ..plot import plot_work
from ..samplers.variables import Variable
from .harness.digit_flow import digit_flow
from .harness.measured import Measurement, Piece, TableRow, Tables, file_name

LEVELS = (80.0, 0.01)  # of noise, at the start and at the end, of data with a mean square of 1
FINE = (1e-10, 1e-10)


class Sizes(NamedTuple):
    """How much is done: less in tests."""

    samples: int = 200
    seeds: int = 5
    evals: tuple[int, ...] = (12, 24, 48, 96, 192)
    updates: int = 4000


class Problem(NamedTuple):
    """A network, its path, and points of the path to start from, those of each seed together."""

    flow: s.ProbabilityFlow
    ends: tuple[Any, Any]
    starts: Array


def mixture(size: int, modes: int, spread: float) -> GaussianMixture:
    """Modes drawn from N(0, 1), with a mean square of 1 for each coordinate in all."""
    means = np.random.default_rng(size).normal(size=(modes, size))
    means = means - means.mean(axis=0)
    scale = math.sqrt(np.mean(means**2) + spread**2)
    return GaussianMixture(jnp.asarray(means / scale), spread / scale)


def exact(law: GaussianMixture, path: AbstractGaussianPath, sizes: Sizes) -> Problem:
    """The exact field of a law between `LEVELS`."""
    ends = path.t_of_sigma(LEVELS[0]), path.t_of_sigma(LEVELS[1])
    keys = jr.split(jr.key(0), sizes.seeds)
    starts = jnp.stack([law.along(path, ends[0]).sample((sizes.samples,), key=k) for k in keys])
    return Problem(s.ProbabilityFlow(law.network(path), path, "noise"), ends, starts)


def learnt(path: AbstractGaussianPath, sizes: Sizes) -> Problem:
    """The field of a network that has learnt handwritten digits in float32, solved in float64."""
    with jax.enable_x64(False):
        flow = digit_flow(path, LEVELS, updates=sizes.updates, key=jr.key(0))
    wide = lambda x: jnp.asarray(x, float) if eqx.is_inexact_array(x) else x
    flow = jax.tree.map(wide, flow)
    starts = flow.start((sizes.seeds, sizes.samples), key=jr.key(1))
    return Problem(flow.ode, (flow.t0, flow.t1), starts)


PROBLEMS: Mapping[str, Callable[[Sizes], Problem]] = {
    "2-D": lambda sizes: exact(mixture(2, 6, 0.15), VP(), sizes),
    "64-D": lambda sizes: exact(mixture(64, 10, 0.3), VP(), sizes),
    "64-D, cosine": lambda sizes: exact(mixture(64, 10, 0.3), Cosine(), sizes),
    "digits": lambda sizes: learnt(VP(), sizes),
}

# For each of the literature: how many steps so many evaluations are, and the sampler.
Made = tuple[Callable[[int], int], Callable[[int], s.Sampler]]
SAMPLERS: Mapping[str, Made] = {
    "DDIM": (lambda n: n, lambda k: s.ddim(k)),
    "DDIM, log sigma": (lambda n: n, lambda k: s.ddim(k, "log_sigma")),
    "DDIM, arctan": (lambda n: n, lambda k: s.ddim(k, "arctan")),
    "S-PNDM": (lambda n: n - 1, lambda k: s.plms(k, order=2)),
    "F-PNDM": (lambda n: n - 9, lambda k: s.plms(k)),
    "FON": (lambda n: n - 9, lambda k: s.Sampler(PNDM(4), "t", s.Grid(k))),
    "Adams 4 in sigma, t": (lambda n: n, lambda k: s.adams(k, "t")),
    "Adams 4 in sigma": (lambda n: n, lambda k: s.adams(k)),
    "DPM-Solver-2": (lambda n: n // 2, lambda k: s.dpm_solver_2(k)),
    "DPM-Solver-3": (lambda n: n // 3, lambda k: s.dpm_solver_3(k)),
    "DPM-Solver++(2M)": (lambda n: n - 1, lambda k: s.dpmpp_2m(k)),
    "DPM-Solver++(3M)": (lambda n: n, lambda k: s.dpmpp_3m(k)),
    "UniPC 2": (lambda n: n - 1, lambda k: s.unipc(k)),
    "UniPC 3": (lambda n: n - 1, lambda k: s.unipc(k, order=3)),
    "EDM's Heun": (lambda n: n // 2, lambda k: s.edm_heun(k, denoise=False)),
}
RUNGE_KUTTA: Mapping[str, diffrax.AbstractSolver] = {
    "Heun": diffrax.Heun(),
    "Bosh3": diffrax.Bosh3(),
    "Tsit5": diffrax.Tsit5(),
}
VARIABLES: tuple[Variable, ...] = get_args(Variable)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


def rows(name: str, sizes: Sizes) -> Iterator[TableRow]:
    """The errors of every sampler on a problem: one row for each and each number of steps.

    The error is the distance of the end, as x / a, to that of a fine solve from the same noise,
    root mean square over coordinates: the median over samples, and the root mean square over them,
    which rare samples that end in another mode decide; each as its mean over seeds, the second
    with its spread.
    """
    problem = PROBLEMS[name](sizes)
    fine = s.adaptive(*FINE, diffrax.Dopri8(), "log_sigma", max_steps=100_000)
    ends, _ = _solved(problem, fine, one_by_one=False)

    def row(by: s.Sampler, **about: Any) -> TableRow:
        found, evals = _solved(problem, by, one_by_one=by.steps is None)
        each = np.sqrt(np.mean((found - ends) ** 2, axis=2))
        off = np.sqrt(np.mean(each**2, axis=1))
        return {
            "problem": name, **about, "evals": float(np.mean(evals)), "worst": int(np.max(evals)),
            "median": float(np.mean(np.median(each, axis=1))), "error": float(np.mean(off)),
            "spread": float(np.std(off)),
        }  # fmt: skip

    for label, (steps_of, make) in SAMPLERS.items():
        for number in sizes.evals:
            if steps_of(number) > 0:
                yield row(make(steps_of(number)), sampler=label, variable="", steps="fixed")
    for label, solver in RUNGE_KUTTA.items():
        for variable in VARIABLES:
            about = dict(sampler=label, variable=variable)
            for number in sizes.evals if label == "Heun" else ():
                grid = s.Grid(number // 2, _natural(variable))
                yield row(s.Sampler(solver, variable, grid), **about, steps="fixed")
            for tolerance in TOLERANCES if label != "Heun" else ():
                sampler = s.adaptive(tolerance, tolerance, solver, variable)
                yield row(sampler, **about, steps=f"rtol {tolerance:g}")


def _natural(variable: Variable) -> s.grids.Spacing:
    """Equal steps of time in the one, of the logarithm of the noise in the others."""
    return "t" if variable == "t" else "log_sigma"


def _solved(
    problem: Problem, sampler: s.Sampler, one_by_one: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The ends of all samples, and evaluations: of each, or of them as one state."""
    flow, (t0, t1), starts = problem
    run = lambda x0: sampler(flow, x0, t0, t1, throw=False)
    each = jax.vmap(jax.vmap(run)) if one_by_one else run
    x, sol = eqx.filter_jit(each)(starts)
    evals = sol.stats["num_evals"]
    return np.asarray(x), np.asarray(evals)


def _draw(tables: Tables, out: Path) -> list[Path]:
    """For each problem: the samplers of the literature, and Runge-Kutta in every variable."""
    files = []
    for problem, table in tables.items():
        for kind, is_shown in (("samplers", _is_preset), ("runge_kutta", _is_adaptive)):
            shown = [row for row in table if is_shown(row)]
            curves = {}
            for row in shown:
                evals, errors = curves.setdefault(_label(row), ([], []))
                evals.append(row["evals"])
                errors.append(row["median"])
            files.append(out / f"{file_name(problem)}_{kind}.png")
            plot_work(
                curves, error="median error of x / a", path=files[-1],
                about=f"{problem}: from noise 80 to 0.01.",
            )  # fmt: skip
    return files


def _is_preset(row: TableRow) -> bool:
    return not row["variable"]


def _is_adaptive(row: TableRow) -> bool:
    return bool(row["variable"]) and row["steps"] != "fixed"


def _label(row: TableRow) -> str:
    return f"{row['sampler']} in {row['variable']}" if row["variable"] else row["sampler"]


def _whole(name: str, sizes: Sizes) -> Iterator[Piece]:
    """A problem is one piece: its seeds are solved together."""
    yield Piece("", sizes, lambda: rows(name, sizes))


MEASUREMENT = Measurement(
    about="error against evaluations of every sampler in every variable",
    parts={name: partial(_whole, name) for name in PROBLEMS},
    sizes=Sizes(),
    draw=_draw,
    float64=True,
)
