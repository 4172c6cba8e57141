"""Which noise goes with which data."""

import importlib.util

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.optimize
from support.close import assert_tree_close

import ndekit as nk

needs_ott = pytest.mark.skipif(importlib.util.find_spec("ott") is None, reason="needs ott-jax")
# jaxopt, which ott-jax imports.
old_jaxopt = pytest.mark.filterwarnings("ignore:JAXopt is no longer maintained:DeprecationWarning")


def batches(seed, n, shape=(3,)):
    draw = np.random.default_rng(seed)
    x0, x1 = draw.normal(size=(2, n, *shape)).astype(np.float32)
    return jnp.asarray(x0), jnp.asarray(2 * x1 + 5)


def best(costs):
    rows, columns = scipy.optimize.linear_sum_assignment(np.asarray(costs, np.float64))
    return costs[rows, columns].sum()


def costs_of(x0, x1):
    x0, x1 = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (x0, x1))
    return ((x0[:, None] - x1[None]) ** 2).sum(2)


pair = jax.jit(lambda x0, x1: nk.couplings.ExactOT()(x0, x1))


@pytest.mark.parametrize("seed", range(5))
def test_exact_pairs_are_a_permutation_at_the_least_cost_that_scipy_finds(seed):
    x0, x1 = batches(seed, 24)
    found, same = pair(x0, x1)
    assert np.all(same == x1)
    assert np.all(np.sort(np.asarray(found)[:, 0]) == np.sort(np.asarray(x0)[:, 0]))
    cost = ((np.asarray(found, np.float64) - np.asarray(x1, np.float64)) ** 2).sum()
    assert_tree_close(cost, best(costs_of(x0, x1)), 1e-6)
    assert cost < 0.95 * np.trace(costs_of(x0, x1))


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.sampled_from([1, 2, 7, 24]), st.integers(0, 10_000))
def test_pairs_on_the_host_are_those_inside_of_jit(n, seed):
    x0, x1 = batches(seed, n)
    assert np.all(np.asarray(nk.couplings.ExactOT()(x0, x1)[0]) == np.asarray(pair(x0, x1)[0]))


def test_distances_of_half_precision_do_not_overflow():
    x0 = jnp.array([[300.0], [-300.0]], jnp.float16)
    found, _ = nk.couplings.ExactOT()(x0, -x0)
    assert np.all(found == -x0)


def test_a_batch_of_images_is_paired_by_all_pixels():
    x0, x1 = batches(0, 8, (4, 4))
    found, _ = pair(x0, x1)
    cost = ((np.asarray(found, np.float64) - np.asarray(x1, np.float64)) ** 2).sum()
    assert_tree_close(cost, best(costs_of(x0, x1)), 1e-6)


@pytest.mark.parametrize("real", [False, True])
def test_a_heavy_condition_is_kept_and_a_light_one_is_not(real):
    x0, x1 = batches(1, 12)
    labels = np.arange(12) % 3
    condition = jnp.asarray(labels, float if real else int)
    marked = jnp.concatenate([x0, jnp.asarray(labels, jnp.float32)[:, None]], axis=1)
    along = jnp.concatenate([x1, jnp.zeros((12, 1))], axis=1)
    heavy, _ = nk.couplings.ExactOT(1e4)(marked, along, condition=condition)
    assert np.all(np.asarray(heavy)[:, 3] == labels)
    inside = sum(best(costs_of(x0[labels == k], x1[labels == k])) for k in range(3))
    assert_tree_close(((np.asarray(heavy[:, :3]) - np.asarray(x1)) ** 2).sum(), inside, 1e-5)
    free, _ = nk.couplings.ExactOT(0.0)(x0, x1, condition=condition)
    assert np.all(free == pair(x0, x1)[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_does_not_hang_and_has_no_say_in_the_rest(bad):
    x0, x1 = batches(2, 8)
    found, _ = pair(x0.at[2, 0].set(bad), x1)
    finite = np.isfinite(np.asarray(found)[:, 0])
    assert np.sum(~finite) == 1
    costs = costs_of(x0, x1)
    costs[2] = 0
    apart = np.asarray(found, np.float64) - np.asarray(x1, np.float64)
    assert_tree_close((apart[finite] ** 2).sum(), best(costs), 1e-6)


def test_independent_pairs_are_all_of_them_in_an_order_that_the_key_draws():
    x0, x1 = batches(3, 200)
    found, same = nk.couplings.Independent()(x0, x1, key=jr.key(0))
    assert np.all(same == x1) and not np.all(found == x0)
    assert np.all(np.sort(np.asarray(found)[:, 0]) == np.sort(np.asarray(x0)[:, 0]))
    other, _ = nk.couplings.Independent()(x0, x1, key=jr.key(1))
    assert not np.all(found == other)


def test_reflow_pairs_are_noise_and_its_sample_and_carry_no_gradient():
    x0, x1 = batches(4, 5)
    made = nk.couplings.Reflow(lambda x: 2 * x + 1)(x0, x1, key=jr.key(0))
    assert_tree_close(np.asarray(made[1]), 2 * np.asarray(x0) + 1, 1e-6)
    total = lambda w: jnp.sum(nk.couplings.Reflow(lambda x: w * x)(x0)[1])
    assert jax.grad(total)(2.0) == 0
    with pytest.raises(ValueError, match=r"`sample` must make one .* \(3,\), got \(\)"):
        nk.couplings.Reflow(jnp.sum)(x0)


def test_batches_of_different_shapes_are_refused():
    x0, x1 = batches(5, 4)
    for coupling in (nk.couplings.Independent(), nk.couplings.ExactOT()):
        with pytest.raises(ValueError, match="`x0` and `x1` must be batches of one shape"):
            coupling(x0[:3], x1, key=jr.key(0))
    with pytest.raises(ValueError, match="`condition` must have a row for each of the 4"):
        nk.couplings.ExactOT()(x0, x1, condition=jnp.zeros(3))


test_batches_of_different_shapes_are_refused = pytest.mark.usefixtures("types_unchecked")(
    test_batches_of_different_shapes_are_refused
)


def test_without_ott_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for make in (nk.couplings.Sinkhorn, nk.couplings.SchroedingerBridge):
        with pytest.raises(ImportError, match=r"pip install \"ndekit\[ott\]\""):
            make(1.0)


@needs_ott
@old_jaxopt
def test_a_sharp_plan_is_the_assignment_and_a_flat_one_is_none():
    x0, x1 = batches(6, 16)
    exact, _ = pair(x0, x1)
    sharp, _ = nk.couplings.Sinkhorn(0.01, threshold=1e-4)(x0, x1, key=jr.key(0))
    assert np.mean(np.all(sharp == exact, axis=1)) > 0.9
    flat = nk.couplings.Sinkhorn(1e6)
    drawn = [flat(x0, x1, key=key)[0][0] for key in jr.split(jr.key(1), 40)]
    assert len({float(row[0]) for row in drawn}) > 10


@needs_ott
@old_jaxopt
@pytest.mark.slow
def test_a_bridge_between_gaussians_has_the_covariance_of_the_closed_form():
    sigma, n = 1.0, 2000
    x0, x1 = jr.normal(jr.key(0), (2, n, 1))
    found, same = nk.couplings.SchroedingerBridge(sigma)(x0, x1, key=jr.key(1))
    # The plan is exp(x y / sigma^2) times a function of each, so its precision is -1 / sigma^2
    # off the diagonal: c / (1 - c^2) = 1 / sigma^2.
    expected = 0.5 * (np.sqrt(4 + sigma**4) - sigma**2)
    covariance = float(jnp.mean(found * same) - jnp.mean(found) * jnp.mean(same))
    assert abs(covariance - expected) < 4 / np.sqrt(n)
