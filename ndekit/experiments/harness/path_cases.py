"""Cases with exact velocities, and the paths that papers choose for them."""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from ...models import GaussianMixture
from ...paths import (
    EDM,
    VE,
    VP,
    AbstractGaussianPath,
    CondOT,
    KineticOptimal,
    LearnedPath,
    LogVariance,
    SubVP,
    Trigonometric,
)
from ...paths.splines import places
from ...train import PathSolve, fit, fit_path

PINNED = (0.01, 20.0)  # noise at the end and at the start, of data with a mean square of 1
KNOTS = 12
FACTORS = (10.0, 3.0, 1.0, 0.3, 0.1)  # of a tolerance
SOLVERS: dict[str, tuple[Any, float]] = {
    "Heun 1e-2": (diffrax.Heun(), 1e-2),
    "Tsit5 1e-3": (diffrax.Tsit5(), 1e-3),
    "Tsit5 1e-5": (diffrax.Tsit5(), 1e-5),
}
NUM_STEPS = 8  # of fixed ones


class Sizes(NamedTuple):
    """How much is done: less in tests."""

    samples: int = 1000
    points: int = 512
    updates: int = 200
    batch: int = 16
    learning: int = 4000  # updates of a network
    learning_batch: int = 512
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


class Case(NamedTuple):
    """Data, points to start from at `sigma_max`, and where these end by a fine solve."""

    law: Any  # with a velocity for each path
    starts: Any
    fitted_on: Any
    ends: Any


def case_of(law: GaussianMixture, seed: int, number: int) -> Case:
    parts = []
    for key in jr.split(jr.key(seed), 2):
        data_key, noise_key = jr.split(key)
        x = law.sample((number,), key=data_key)
        parts.append(x + PINNED[1] * jr.normal(noise_key, x.shape))
    return Case(law, parts[0], parts[1], fine_ends(law, parts[0]))


def fine_ends(law: Any, x: Any) -> Any:
    """Where a fine solve carries points."""
    path = VE(*PINNED)
    fine = PathSolve(path, law.velocity(path), diffrax.Tsit5(), 1e-10, PINNED, max_steps=4096)
    return solved(fine, path, x)["ends"]


# Paths.


class Arctan(AbstractGaussianPath):
    r"""$a = 1$ and $\sigma = s \tan\theta$ with $\theta$ linear in time: the best grid of Euler's
    method in $\sigma$ for data $N(0, s^2)$ (Sabour et al. 2024, arXiv 2404.14507).
    """

    std: float
    pinned: tuple[float, float] = eqx.field(static=True)

    def a(self, t: Any) -> Any:
        return jnp.ones_like(jnp.asarray(t, float))

    def m(self, t: Any) -> Any:
        last, first = (math.atan(level / self.std) for level in self.pinned)
        return self.std * jnp.tan(first + (last - first) * t)


def known_paths(law: GaussianMixture, key: Any, pinned: tuple[float, float]) -> dict[str, Any]:
    x = law.sample((512,), key=key)
    x = x / jnp.sqrt(jnp.mean(x**2))
    return {
        "Cond-OT": CondOT(),
        "trigonometric": Trigonometric(),
        "VP": VP(),
        "sub-VP": SubVP(),
        "EDM": EDM(*pinned),
        "log sigma": VE(*pinned),
        "kinetic-optimal": KineticOptimal.fit(x, key=key, num_samples=1024),
        "log-variance": LogVariance(1.0 + 1e-6),
        "arctan": Arctan(1.0, pinned),
    }


def near(path: AbstractGaussianPath, pinned: tuple[float, float], levels: Any) -> LearnedPath:
    """A learned path with these levels of noise at equal times, and the scale of `path`."""
    made = LearnedPath(*pinned, num_knots=KNOTS)
    at = np.interp(places(KNOTS), np.linspace(0, 1, len(levels)), np.log(levels))
    steps = jnp.asarray(np.diff(at) / (at[-1] - at[0]))
    even = jnp.asarray(np.diff(places(KNOTS)))
    a = path.a(path.t_of_sigma(jnp.asarray(np.exp(at)).clip(*pinned)))
    scale = jnp.log(a) + 0.5 * jnp.log1p(jnp.exp(2 * jnp.asarray(at)))
    return eqx.tree_at(lambda p: (p.warp, p.log_scale), made, (jnp.log(steps / even), scale))


def equidistributed(solve: PathSolve, path: Any, x: Any) -> LearnedPath:
    """A path on which the steps that the controller took on `path` are equally long."""
    t0, t1 = solve.ends(path)

    def ends(x: Any) -> Any:
        sol = solve(path, x, saveat=diffrax.SaveAt(steps=True))
        return sol.ts

    ts = np.asarray(eqx.filter_jit(jax.vmap(ends))(x))
    pooled = np.sort(ts[np.isfinite(ts)])
    share = np.quantile(pooled, np.linspace(0, 1, 200)[1:-1])
    share = np.concatenate([[float(t0)], share, [float(t1)]])
    return near(path, (solve.sigma_min, solve.sigma_max), np.asarray(path.sigma(share)))


# Solves.


@eqx.filter_jit
def solved(solve: PathSolve, path: Any, x: Any) -> dict[str, Any]:
    sol = jax.vmap(lambda x: solve(path, x))(x)
    return {"ends": solve.end_of(path, sol), "stats": sol.stats}


def row_of(solve: PathSolve, path: Any, case: Case, /, **about: Any) -> dict[str, Any]:
    """What the solves of all samples cost and how far off they end, root mean square."""
    return about | told_of(solved(solve, path, case.starts), case)


def told_of(found: dict[str, Any], case: Case) -> dict[str, Any]:
    steps = np.asarray(found["stats"]["num_steps"])
    off = np.asarray(found["ends"] - case.ends)
    return {
        "steps": float(steps.mean()),
        "worst": int(steps.max()),
        "accepted": float(np.mean(found["stats"]["num_accepted_steps"])),
        "rejected": float(np.mean(found["stats"]["num_rejected_steps"])),
        "error": float(np.sqrt(np.mean(off**2))),
    }


def solver_along(path: Any, law: Any, solver: Any, *given: Any, **more: Any) -> Any:
    return PathSolve(path, law.velocity(path), solver, *given, max_steps=1024, **more)


def judged(
    case: Case, path: Any, solver: Any, tolerance: float, /, **about: Any
) -> Iterator[dict[str, Any]]:
    """At the tolerance, and at others: errors differ from path to path at the same one, so steps
    are to be compared where the errors are equal.
    """
    for factor in FACTORS:
        # An array: the same program for all.
        looser = jnp.asarray(factor * tolerance)
        solve = solver_along(path, case.law, solver, looser, PINNED)
        yield row_of(solve, path, case, tolerance=factor * tolerance, **about)


def ours(
    case: Case, seed: int, sizes: Sizes, solver: Any, size: int | None = None, **by: Any
) -> LearnedPath:
    """By the solver's error, from near the trigonometric path: squares first, then the count."""
    path0 = VE(*PINNED)
    start = LearnedPath.like(Trigonometric(), *PINNED, num_knots=KNOTS, size=size)
    fitted = partial(
        fit_path, path0, case.law.velocity(path0), solver, pinned=PINNED,
        starts=case.fitted_on, key=jr.key(seed), size=size, num_updates=sizes.updates,
        batch_size=sizes.batch, max_steps=1024, progress=False,
    )  # fmt: skip
    if "num_steps" in by:
        return fitted(start=start, **by).path
    # The sum of squares is smooth; the count, a sum of roots, is not, and begins where that ends.
    # More steps than knots: a path can hide its error from fewer.
    begun = fitted(start=start, num_steps=2 * NUM_STEPS).path
    return fitted(start=begun, **by).path


def bespoke(
    solve: PathSolve, case: Case, start: LearnedPath, key: Any, updates: int, size: int
) -> Any:
    """The path whose fixed steps end nearest to a fine solve (Shaul et al., arXiv 2310.19075, with
    the end point's error itself in place of their bound).
    """
    ends = fine_ends(case.law, case.fitted_on)

    def loss(path: Any, batch: Any, step: Any, *, key: Any) -> tuple[Any, Mapping]:
        x, end = batch
        sol = jax.vmap(lambda x: solve(path, x))(x)
        return jnp.log(jnp.mean((solve.end_of(path, sol) - end) ** 2)), {}

    def batch(step: int) -> Any:
        chosen = jr.choice(jr.fold_in(key, step), len(ends), (size,), replace=False)
        return case.fitted_on[chosen], ends[chosen]

    return fit(
        start, loss, batch, num_updates=updates, key=key, progress=False,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.1, updates)),
    ).model  # fmt: skip
