"""Data with exact velocities, and the paths that papers choose for them."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from sklearn.datasets import load_digits

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
from ...train import PathSolve, fit
from ..cnf_toys import checkerboard, eight_gaussians

PINNED = (0.01, 20.0)  # noise at the end and at the start, of data with a mean square of 1
SAMPLES = 1000
NOISE_LEFT = 0.02  # the spread that points of data are given
KNOTS = 12


class Sizes(NamedTuple):
    """How much is done: less in tests."""

    samples: int = SAMPLES
    points: int = 512
    updates: int = 300
    batch: int = 32


class Case(NamedTuple):
    """Data, points to start from at `sigma_max`, and where these end by a fine solve."""

    law: GaussianMixture
    starts: Any
    fitted_on: Any
    ends: Any


# Data. All are centred, with a mean square of 1 for each coordinate.


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
    x = load_digits().data
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


def case_of(name: str, seed: int, sizes: Sizes, pinned: tuple[float, float] = PINNED) -> Case:
    law = DATA[name](seed, sizes)
    parts = []
    for key in jr.split(jr.key(seed), 2):
        data_key, noise_key = jr.split(key)
        x = law.sample((sizes.samples,), key=data_key)
        parts.append(x + pinned[1] * jr.normal(noise_key, x.shape))
    path = LearnedPath(*pinned)
    fine = PathSolve(path, law.velocity(path), diffrax.Dopri8(), 1e-10, pinned, max_steps=4096)
    return Case(law, parts[0], parts[1], solved(fine, path, parts[0])["ends"])


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
def _solved(solve: PathSolve, path: Any, x: Any) -> dict[str, Any]:
    sol = jax.vmap(lambda x: solve(path, x))(x)
    return {"ends": solve.end_of(path, sol), "stats": sol.stats}


def solved(solve: PathSolve, path: Any, x: Any) -> dict[str, Any]:
    return _solved(solve, path, x)


def row_of(solve: PathSolve, path: Any, case: Case, /, **about: Any) -> dict[str, Any]:
    """What the solves of all samples cost and how far off they end, root mean square."""
    found = solved(solve, path, case.starts)
    steps = np.asarray(found["stats"]["num_steps"])
    off = np.asarray(found["ends"] - case.ends)
    return about | {
        "steps": float(steps.mean()),
        "worst": int(steps.max()),
        "accepted": float(np.mean(found["stats"]["num_accepted_steps"])),
        "rejected": float(np.mean(found["stats"]["num_rejected_steps"])),
        "error": float(np.sqrt(np.mean(off**2))),
    }


def solver_along(path: Any, law: GaussianMixture, solver: Any, *given: Any, **more: Any) -> Any:
    return PathSolve(path, law.velocity(path), solver, *given, max_steps=1024, **more)


def bespoke(solve: PathSolve, case: Case, sizes: Sizes, key: Any, start: LearnedPath) -> Any:
    """The path whose fixed steps end nearest to a fine solve (Shaul et al., arXiv 2310.19075, with
    the end point's error itself in place of their bound).
    """
    path = LearnedPath(*PINNED)
    fine = PathSolve(path, case.law.velocity(path), diffrax.Dopri8(), 1e-8, PINNED, max_steps=4096)
    ends = solved(fine, path, case.fitted_on)["ends"]

    def loss(path: Any, batch: Any, step: Any, *, key: Any) -> tuple[Any, Mapping]:
        x, end = batch
        sol = jax.vmap(lambda x: solve(path, x))(x)
        return jnp.log(jnp.mean((solve.end_of(path, sol) - end) ** 2)), {}

    def batch(step: int) -> Any:
        chosen = jr.choice(jr.fold_in(key, step), len(ends), (sizes.batch,), replace=False)
        return case.fitted_on[chosen], ends[chosen]

    return fit(
        start, loss, batch, num_updates=sizes.updates, key=key, progress=False,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.1, sizes.updates)),
    ).model  # fmt: skip
