"""Costs and coefficients as one penalty: against NumPy, and what each reduction looks at."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.close import assert_tree_close

import ndekit as nk

SAMPLES = arrays(np.float32, st.integers(1, 20), elements=st.floats(0, 2.0**60, width=32))


def test_a_penalty_is_the_sum_of_coefficient_times_cost():
    costs = {"steps": jnp.array([8.0, 20.0]), "error": jnp.array(0.5)}
    decay = nk.regularize.schedules.linear(4.0, 2.0, steps=10)
    for step, weight in ((0, 4.0), (5, 3.0), (50, 2.0)):
        added, parts = nk.penalty(costs, {"steps": 0.1, "error": decay}, step)
        assert_tree_close(added, jnp.array(0.1 * 14 + weight * 0.5), rtol=1e-6)
        assert_tree_close(
            parts, {"cost_steps": jnp.array(14.0), "cost_error": jnp.array(0.5)}, rtol=1e-6
        )


def test_no_costs_are_no_penalty():
    added, parts = nk.penalty({}, {})
    assert added == 0
    assert parts == {}


@given(SAMPLES)
def test_each_reduction_is_numpys(costs):
    found = {
        reduce: float(nk.penalty({"c": jnp.asarray(costs)}, {"c": 1.0}, reduce=reduce)[0])
        for reduce in ("mean", "max", "smooth_max")
    }
    wide = costs.astype(np.float64)
    truth = {
        "mean": wide.mean(),
        "max": wide.max(),
        "smooth_max": wide.max() * np.mean((wide / max(wide.max(), 1e-300)) ** 16) ** (1 / 16),
    }
    np.testing.assert_allclose(
        [found[name] for name in truth], list(truth.values()), rtol=1e-5, atol=1e-30
    )


@given(SAMPLES, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(costs, random):
    shuffled = np.array(random.sample(list(costs), len(costs)), np.float32)
    for reduce in ("mean", "max", "smooth_max"):
        one, other = (
            nk.penalty({"c": jnp.asarray(c)}, {"c": 1.0}, reduce=reduce)[0]
            for c in (costs, shuffled)
        )
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_the_smooth_maximum_pulls_at_the_slow_ones_and_is_finite_at_zero():
    of = lambda c: nk.penalty({"c": c}, {"c": 1.0}, reduce="smooth_max")[0]
    costs = jnp.array([10.0, 10.0, 20.0, 19.0])
    h = 1e-2
    differences = [(of(costs + h * e) - of(costs - h * e)) / (2 * h) for e in jnp.eye(4)]
    slope = jax.grad(of)(costs)
    np.testing.assert_allclose(slope, differences, rtol=2e-2, atol=2e-4)
    assert slope[2] > slope[3] > 1000 * slope[0]
    assert_tree_close(jax.grad(of)(jnp.zeros(3)), jnp.zeros(3), rtol=1e-6)


def test_lanes_with_polynomial_fields_draw_by_their_own_keys():
    """Such fields keep their lanes behind the state, the keys' axis too."""

    def cost(key, y0):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: y[::-1] * y - y), diffrax.Tsit5(), 0.0, 0.5, 0.1, y0,
            costs={"jacobian": nk.JacobianNorm()}, key=key,
        )  # fmt: skip
        return nk.penalty(sol.costs, {"jacobian": 1.0})[0]

    for keys in (jr.split(jr.key(0), 3), jr.split(jr.PRNGKey(0), 3)):
        y0s = jnp.array([[0.1, 0.2], [0.5, 0.4], [0.3, 0.9]])
        together = jax.vmap(cost)(keys, y0s)
        alone = jnp.stack([cost(key, y0) for key, y0 in zip(keys, y0s, strict=True)])
        assert_tree_close(together, alone, rtol=1e-5)


LANES = {
    "one solve": lambda solve: solve(1.0),
    "lanes": lambda solve: jax.vmap(solve)(jnp.array([1.0, 2.0])),
    "jit": lambda solve: jax.jit(solve)(1.0),
    "lanes of jit": lambda solve: jax.vmap(jax.jit(solve))(jnp.array([1.0, 2.0])),
}


@pytest.mark.parametrize("run", LANES.values(), ids=LANES)
def test_costs_along_a_solve_are_no_penalty(run):
    """Of 64 places three are filled: their mean is a wrong number."""

    def solve(rate):
        along = {"each": nk.EachStep(nk.StepCount()), "times": nk.AlongTimes(nk.StepCount())}
        return nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -rate * y), diffrax.Tsit5(), 0.0, 1.0, None,
            jnp.ones(2), stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4),
            costs={"steps": nk.StepCount(), **along}, max_steps=64,
            saveat=diffrax.SaveAt(ts=jnp.array([0.5, 1.0])),
        ).costs  # fmt: skip

    costs = run(solve)
    with pytest.raises(ValueError, match=r"\['each', 'times'\] have a number for each step"):
        nk.penalty(costs, dict.fromkeys(costs, 1.0))
    nk.penalty({"steps": costs["steps"]}, {"steps": 1.0})
    assert jax.tree.structure(costs) == jax.tree.structure(dict.fromkeys(costs, 0))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="same names"):
        nk.penalty({"steps": jnp.array(1.0)}, {"error": 1.0})
    with pytest.raises(ValueError, match="'mean', 'max' or 'smooth_max'"):
        nk.penalty({}, {}, reduce="sum")
