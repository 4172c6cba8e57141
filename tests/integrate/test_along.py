"""Costs kept step by step, or added up along the saved times."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ndekit as nk

PID = diffrax.PIDController(rtol=1e-4, atol=1e-6)
TS = (0.0, 0.1, 0.3, 0.3, 1.1, 2.5, 3.0)


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def solve(rate, costs, saveat=None, solver=diffrax.Tsit5(), **options):
    saveat = diffrax.SaveAt(ts=jnp.array(TS)) if saveat is None else saveat
    options = dict(max_steps=64) | options
    return nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, a: jnp.stack([y[1], -a * jnp.sin(y[0])])), solver,
        0.0, 3.0, 0.1, jnp.array([2.0, 0.0]), rate, stepsize_controller=PID, saveat=saveat,
        costs=costs, **options,
    )  # fmt: skip


def test_each_step_adds_up_to_the_sum():
    costs = {"sum": nk.StepError(), "each": nk.EachStep(nk.StepError())}
    sol = solve(9.0, costs)
    number = int(sol.stats["num_accepted_steps"])
    each = sol.costs["each"]
    assert each.shape == (64,) and np.all(each[:number] > 0) and np.all(each[number:] == 0)
    np.testing.assert_allclose(jnp.sum(each), sol.costs["sum"], rtol=1e-12)


def test_along_times_is_the_cumulative_sum_at_the_steps_that_hold_them():
    both = diffrax.SaveAt(
        subs={"ts": diffrax.SubSaveAt(ts=jnp.array(TS)), "steps": diffrax.SubSaveAt(steps=True)}
    )
    costs = {"along": nk.AlongTimes(nk.StepError()), "each": nk.EachStep(nk.StepError())}
    sol = solve(9.0, costs, both)
    ends, sums = np.asarray(sol.ts["steps"]), np.cumsum(sol.costs["each"])
    assert ends[0] == TS[1]
    # The step that holds t is the first that ends at t or later.
    wanted = [sums[np.searchsorted(ends, t)] for t in TS]
    np.testing.assert_allclose(sol.costs["along"], wanted, rtol=1e-12)


@pytest.mark.parametrize(
    "solver", [diffrax.Tsit5(), pytest.param(diffrax.Kvaerno5(), marks=pytest.mark.slow)]
)
def test_gradients_are_those_of_the_sum(solver):
    weights = jnp.linspace(0.5, 1.5, 64)

    def totals(rate):
        each, along = nk.EachStep(nk.StepError()), nk.AlongTimes(nk.StepError())
        sol = solve(
            rate, {"sum": nk.StepError(), "each": each, "along": along},
            solver=solver,
        )  # fmt: skip
        return jnp.stack([sol.costs["sum"], jnp.sum(sol.costs["each"]), sol.costs["along"][-1]])

    gradients = jax.jacrev(totals)(9.0)
    np.testing.assert_allclose(gradients, jnp.full(3, gradients[0]), rtol=1e-9)

    def weighted(rate):
        return weights @ solve(rate, {"each": nk.EachStep(nk.StepError())}).costs["each"]

    loop = jax.vmap(jax.grad(weighted))(jnp.array([9.0, 16.0]))
    np.testing.assert_allclose(loop[1], jax.grad(weighted)(16.0), rtol=1e-9)


def test_along_times_without_times_is_refused():
    with pytest.raises(ValueError, match="`AlongTimes` adds a cost up along"):
        solve(9.0, {"along": nk.AlongTimes(nk.StepError())}, diffrax.SaveAt(t1=True))


def test_each_step_without_a_bound_is_refused():
    with pytest.raises(ValueError, match="`EachStep` keeps a number for each step"):
        solve(9.0, {"each": nk.EachStep(nk.StepError())}, max_steps=None)


@pytest.mark.parametrize("placement", [nk.EachStep, nk.AlongTimes])
def test_not_a_cost(placement):
    with pytest.raises(Exception, match="takes a step cost|Type-check error"):
        placement("error")
