"""Paths found by the solver's error: against closed forms, and what is refused."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from support.close import assert_tree_close

import ndekit as nk
from ndekit.models import GaussianMixture
from ndekit.paths import VE, CondOT, LearnedPath
from ndekit.train import PathSolve, fit_path
from ndekit.train.fit_path import distance

PINNED = (0.01, 20.0)
STD = 0.5
LAW = lambda: GaussianMixture(jnp.zeros((1, 1)), STD)


def starts(number=32, size=1):
    return PINNED[1] * jr.normal(jr.key(1), (number, size))


def fitted(solver, tolerance=None, **options):
    path0 = options.pop("path0", None) or VE(*PINNED)
    given = dict(starts=starts(), key=jr.key(2), data_std=STD, progress=False) | options
    return fit_path(path0, LAW().velocity(path0), solver, tolerance, PINNED, **given)


def off_arctan(path, num_steps):
    angles = np.arctan(np.asarray(path.sigma(jnp.linspace(0, 1, num_steps + 1))) / STD)
    even = np.linspace(angles[0], angles[-1], num_steps + 1)
    return np.abs(angles - even).max() / (angles[0] - angles[-1])


def euler_grid(num_steps, **options):
    return fitted(diffrax.Euler(), num_steps=num_steps, in_sigma=True, **options)


def test_the_grid_of_eulers_method_goes_towards_the_arctangent():
    """Of data N(0, s^2) the local error is as sin^2 of the step in arctan(sigma / s)."""
    found = euler_grid(4, num_updates=80, num_knots=6)
    assert off_arctan(found.path, 4) < 0.05 < 0.15 < off_arctan(LearnedPath(*PINNED), 4)
    assert found.after["error"] < 0.5 * found.before["error"]
    again = euler_grid(4, num_updates=80, num_knots=6)
    assert np.array_equal(again.path.warp, found.path.warp)
    # Of a path that is the best one nothing is better, and the start comes back.
    best = fitted(
        diffrax.Euler(), num_steps=4, in_sigma=True, start=found.path, num_updates=1,
        optimizer=optax.sgd(1e3),
    )  # fmt: skip
    assert np.array_equal(best.path.warp, found.path.warp)


@pytest.mark.parametrize(
    ("num_steps", "says"), [(4, True), pytest.param(7, False, marks=pytest.mark.slow)]
)
def test_fewer_steps_than_knots_are_remarked_on(num_steps, says):
    """Found: a path of 12 knots that hid its errors from 8 steps, and ended elsewhere."""
    found = fitted(diffrax.Heun(), num_steps=num_steps, num_knots=6, num_updates=1)
    assert [("hide its errors" in remark) for remark in found.remarks] == [True] * says


@pytest.mark.slow
def test_the_grid_of_eulers_method_is_the_arctangent():
    found = euler_grid(8, num_updates=400, num_knots=12)
    assert off_arctan(found.path, 8) < 1e-2


def test_the_local_errors_are_those_of_the_closed_form():
    """sin^2 of the step in the angle, over two, times the start over its spread."""
    path, x = LearnedPath(*PINNED), starts(3)
    solve = PathSolve(
        VE(*PINNED), LAW().velocity(VE(*PINNED)), diffrax.Euler(), None, PINNED, num_steps=6,
        in_sigma=True, data_std=STD,
    )  # fmt: skip
    sol = jax.vmap(lambda x: solve(path, x))(x)
    angles = np.arctan(np.asarray(path.sigma(jnp.linspace(0, 1, 7)), np.float64) / STD)
    steps = angles[:-1] - angles[1:]
    # The state falls by the cosines, relative to the true solution.
    lost = np.cumprod(np.concatenate([[1.0], np.cos(steps[:-1])]))
    share = np.asarray(x[:, 0], np.float64) / np.hypot(STD, PINNED[1])
    expected = share**2 * np.sum((lost * np.sin(steps) ** 2 / 2) ** 2)
    assert_tree_close(sol.costs["error"], expected, rtol=1e-3)
    ends = share * np.hypot(STD, PINNED[0]) * np.prod(np.cos(steps))
    assert_tree_close(solve.end_of(path, sol)[:, 0], ends, rtol=1e-3)


def test_the_distance_of_paths_is_that_of_their_logarithms():
    moved = eqx.tree_at(lambda p: p.log_scale, LearnedPath(*PINNED), jnp.full(8, 0.5))
    assert_tree_close(distance(moved, LearnedPath(*PINNED)), 0.25, rtol=1e-4)
    assert distance(moved, moved) == 0


BAD = {
    "order": (dict(pinned=(20.0, 0.01)), r"\(sigma_min, sigma_max\) in this order, got \(20, 0.0"),
    "outside": (dict(pinned=(0.001, 20.0)), "within the noise of `path0`, which falls from 20 to"),
    "above": (dict(pinned=(0.01, 30.0)), "within the noise of `path0`"),
    "pair": (dict(pinned=0.1), "`pinned` must be the pair"),
    "negative": (dict(pinned=(-1.0, 2.0)), "`pinned: sigma_min` must be positive"),
    "no estimate": (dict(solver=diffrax.Euler()), "`Euler` has no error estimate"),
    "both": (dict(num_steps=3), "and not both"),
    "neither": (dict(tolerance=None), "and not both"),
    "sigma": (dict(in_sigma=True), "`in_sigma` is for fixed steps"),
    "size": (dict(size=2), r"`size` must be the number of coordinates of the points, \(1,\), got"),
    "starts": (dict(starts=jnp.ones(3)), "`starts` must be floating points of shape"),
    "learn": (dict(learn="noise"), "`learn` must be 'both', 'warp'"),
    "start": (dict(start=LearnedPath(0.1, 20.0)), "`start` must have the pinned levels"),
    "tolerance": (dict(tolerance=-1.0), "`tolerance` must be positive"),
}


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(("given", "said"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused_by_name(given, said):
    path0 = VE(*PINNED)
    known = dict(
        solver=diffrax.Heun(), tolerance=1e-2, pinned=PINNED, starts=starts(), key=jr.key(0)
    )
    with pytest.raises(ValueError, match=said):
        fit_path(path0, LAW().velocity(path0), **{**known, **given})


@pytest.mark.usefixtures("types_unchecked")
def test_a_budget_of_fixed_steps_is_refused():
    with pytest.raises(ValueError, match="A `budget` is of adaptive steps"):
        euler_grid(3, budget=nk.StepBudget(4.0))


@pytest.mark.slow
def test_steps_of_a_mixture_become_fewer_and_a_budget_leaves_the_path_nearer():
    """From Cond-OT, on samples that the fit has not seen; the end stays where it was."""
    law = GaussianMixture(jnp.array([[1.0, 0.5], [-1.0, 0.0], [0.3, -1.0]]), 0.1)
    path0 = CondOT()
    x = law.sample((192,), key=jr.key(0)) + PINNED[1] * jr.normal(jr.key(1), (192, 2))
    common = dict(starts=x[:128], key=jr.key(2), progress=False, batch_size=16)
    given = path0, law.velocity(path0), diffrax.Heun(), 1e-2, PINNED
    found = fit_path(*given, num_updates=120, **common)
    solve = PathSolve(*given)
    ends, steps = [], []
    for path in (path0, found.path):
        sol = jax.vmap(lambda x, path=path: solve(path, x))(x[128:])
        ends.append(np.asarray(solve.end_of(path, sol)))
        steps.append(float(np.mean(sol.stats["num_steps"])))
    assert found.after["steps"] < 0.92 * found.before["steps"]
    assert steps[1] < 0.92 * steps[0]
    assert found.after["off"] <= max(1e-2, found.before["off"])
    # Both are within the tolerance of each other.
    assert np.sqrt(np.mean((ends[0] - ends[1]) ** 2)) < 0.1
    budget = nk.StepBudget(0.5 * (found.before["steps"] + found.after["steps"]))
    kept = fit_path(*given, num_updates=120, budget=budget, **common)
    assert kept.after["steps"] < 1.1 * budget.target_steps
    start = LearnedPath.like(path0, *PINNED)
    assert distance(kept.path, start) < distance(found.path, start)


def test_a_path_that_hides_its_errors_is_passed_over():
    """Found: of an eighth of the time a scale made the estimate of Heun's method see nothing, and
    samples ended elsewhere; the path with the fewest steps was returned.
    """
    law = GaussianMixture(jnp.array([[1.0, 0.5], [-1.0, 0.0], [0.3, -1.0]]), 0.1)
    path0 = CondOT()
    x = law.sample((48,), key=jr.key(0)) + PINNED[1] * jr.normal(jr.key(1), (48, 2))
    given = path0, law.velocity(path0), diffrax.Heun(), 0.3, PINNED
    found = fit_path(
        *given, starts=x, key=jr.key(2), progress=False, batch_size=8, num_updates=20,
        optimizer=optax.adam(0.5),
    )  # fmt: skip
    # As told, by a solve of one's own.
    fine = PathSolve(*given[:3], 1e-5, PINNED, max_steps=4096)
    ends = [
        solve.end_of(path, jax.vmap(lambda x, s=solve, p=path: s(p, x))(x))
        for solve, path in ((fine, path0), (PathSolve(*given), found.path))
    ]
    off = float(np.sqrt(np.mean((np.asarray(ends[0]) - np.asarray(ends[1])) ** 2)))
    np.testing.assert_allclose(found.after["off"], off, rtol=0.02, atol=1e-3)
    assert off <= max(0.3, found.before["off"])
    assert any("were passed over" in remark for remark in found.remarks)
