"""What a solve gives back is what diffrax gives back: saved values, padding, failures."""

import functools
import itertools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffrax import RESULTS
from support.close import assert_tree_close
from support.problems import PID, PROBLEMS, SOLVERS

import ndekit as nk

COUNTS = ("num_steps", "num_accepted_steps", "num_rejected_steps", "max_steps")
SOLVES = {"nk": nk.diffeqsolve, "diffrax": diffrax.diffeqsolve}


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def assert_same_solution(ours, theirs):
    assert bool(ours.result == theirs.result)
    assert {k: int(ours.stats[k]) for k in COUNTS} == {k: int(theirs.stats[k]) for k in COUNTS}
    # Infinities must stand in the same places.
    assert_tree_close((ours.ts, ours.ys), (theirs.ts, theirs.ys), rtol=1e-10, atol=1e-10)
    assert_tree_close((ours.t0, ours.t1), (theirs.t0, theirs.t1), rtol=0)


COMBINATIONS = {
    "+".join(names): names
    for number in (1, 2, 3)
    for names in itertools.combinations(("t0", "t1", "ts"), number)
}
SPANS = {"whole": (0.0, 0.8), "cut_off": (0.0, 4.0), "backward": (0.8, 0.2)}
PLACES = np.array([0.0, 0.01, 0.2, 0.2, 0.31, 0.5, 0.62, 0.7, 0.71, 0.9, 1.0])


@functools.cache
def saving_solve(combination, which):
    problem = PROBLEMS["lotka_volterra"]

    @jax.jit
    def run(t0, t1):
        save = {name: True for name in combination}
        if "ts" in combination:
            save["ts"] = jnp.where(PLACES == 1, t1, t0 + (t1 - t0) * PLACES)
        return SOLVES[which](
            diffrax.ODETerm(problem.field), SOLVERS["Tsit5"], t0, t1, None, problem.state(),
            problem.parameters(), saveat=diffrax.SaveAt(**save), stepsize_controller=PID(),
            max_steps=20, throw=False,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_saved_values_are_the_same(combination, span):
    given = tuple(jnp.asarray(t) for t in SPANS[span])
    ours, theirs = [saving_solve(COMBINATIONS[combination], which)(*given) for which in SOLVES]
    cut_off = theirs.result == RESULTS.max_steps_reached
    assert bool(cut_off) is (span == "cut_off")
    assert_same_solution(ours, theirs)


@pytest.mark.parametrize("max_steps", [1, 7])
def test_a_solve_cut_off_early_has_come_as_far(max_steps):
    problem = PROBLEMS["van_der_pol"]
    ours, theirs = [
        solve(
            diffrax.ODETerm(problem.field), SOLVERS["Bosh3"], 0.0, 1.5, 0.05, problem.state(),
            problem.parameters(), stepsize_controller=PID(), max_steps=max_steps, throw=False,
        )
        for solve in SOLVES.values()
    ]  # fmt: skip
    assert theirs.result == RESULTS.max_steps_reached
    assert float(theirs.ts[-1]) < 1.5
    assert_same_solution(ours, theirs)


def test_reaching_dtmin_ends_the_solve_as_in_diffrax():
    # Stability asks for ever shorter steps, in the middle of the span for shorter ones than dtmin.
    field = lambda t, y, args: -100 * t * (y - jnp.cos(t))
    ours, theirs = [
        solve(
            diffrax.ODETerm(field), SOLVERS["Tsit5"], 0.0, 1.5, 0.05, jnp.zeros(2),
            stepsize_controller=PID(dtmin=0.03, force_dtmin=False), throw=False,
            saveat=diffrax.SaveAt(t0=True, t1=True, ts=jnp.linspace(0.0, 1.5, 7)),
        )
        for solve in SOLVES.values()
    ]  # fmt: skip
    assert theirs.result == RESULTS.dt_min_reached
    assert int(theirs.stats["num_accepted_steps"]) > 0
    assert_same_solution(ours, theirs)


@pytest.mark.parametrize("which", SOLVES)
def test_a_failed_solve_raises_unless_asked_not_to(which):
    with pytest.raises(RuntimeError, match="maximum number of solver steps was reached"):
        SOLVES[which](
            diffrax.ODETerm(lambda t, y, args: -y), SOLVERS["Heun"], 0.0, 1.0, 0.01, jnp.ones(1),
            max_steps=10,
        )  # fmt: skip


def test_integers_are_promoted_as_in_diffrax():
    ours, theirs = [
        solve(
            diffrax.ODETerm(lambda t, y, args: jax.tree.map(jnp.negative, y)), SOLVERS["Heun"],
            0, 1, 0.1, {"a": jnp.arange(3.0, dtype=jnp.float32), "b": 2},
        )
        for solve in SOLVES.values()
    ]  # fmt: skip
    dtypes = [jax.tree.map(lambda y: y.dtype, sol.ys) for sol in (ours, theirs)]
    assert dtypes[0] == dtypes[1]
    assert ours.ts.dtype == theirs.ts.dtype
    assert_same_solution(ours, theirs)


def test_step_to_beyond_max_steps_is_cut_off_as_in_diffrax():
    controller = diffrax.StepTo(jnp.linspace(0.0, 1.0, 11))
    ours, theirs = [
        solve(
            diffrax.ODETerm(lambda t, y, args: -y), SOLVERS["Heun"], 0.0, 1.0, None, jnp.ones(1),
            stepsize_controller=controller, max_steps=4, throw=False,
        )
        for solve in SOLVES.values()
    ]  # fmt: skip
    assert_same_solution(ours, theirs)


def test_a_solve_without_bound_on_its_steps_is_the_same():
    ours, theirs = [
        solve(
            diffrax.ODETerm(lambda t, y, args: -args * y), SOLVERS["Dopri5"], 0.0, 1.0, 0.1,
            jnp.ones(2), 3.0, stepsize_controller=PID(), max_steps=None,
        )
        for solve in SOLVES.values()
    ]  # fmt: skip
    counts = COUNTS[:3]
    assert {k: int(ours.stats[k]) for k in counts} == {k: int(theirs.stats[k]) for k in counts}
    assert_tree_close(ours.ys, theirs.ys, rtol=1e-10)
