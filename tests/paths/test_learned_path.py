"""A path with parameters: what they may change, and what they may not."""

import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import scipy.interpolate
from hypothesis import given
from support.close import assert_tree_close

import ndekit as nk
from ndekit.paths.splines import places, spline


@eqx.filter_jit
def levels(path, ts):
    return path.sigma(ts), jax.vmap(path.t_of_sigma)(path.sigma(ts))


@given(st.lists(st.floats(-6, 6, width=32), min_size=7, max_size=7), st.floats(-3, 3, width=32))
def test_no_parameters_change_the_levels_at_the_ends_or_the_order_of_times(warp, scale):
    path = nk.paths.LearnedPath(0.01, 50.0)
    path = eqx.tree_at(
        lambda p: (p.warp, p.log_scale), path,
        (jnp.asarray(warp, jnp.float32), jnp.full(8, scale, jnp.float32)),
    )  # fmt: skip
    ts = jnp.linspace(0.0, 1.0, 33)
    sigma, back = levels(path, ts)
    assert_tree_close(np.asarray(sigma[jnp.array([0, -1])]), np.array([50.0, 0.01]), 5e-6)
    assert np.all(np.diff(sigma) <= 0)
    # Where the warp is flat many times have the same level.
    again, _ = levels(path, jnp.clip(back, 0, 1))
    assert_tree_close(np.asarray(again), np.asarray(sigma), 1e-4)


def test_untrained_it_has_equal_steps_of_log_sigma_and_keeps_the_variance():
    path, ts = nk.paths.LearnedPath(0.01, 100.0, num_knots=6), np.linspace(0, 1, 9)
    assert_tree_close(np.asarray(path.log_rho(ts)), np.log(100 / 1e4 ** (1 - ts)), 1e-5, 1e-5)
    assert_tree_close(np.asarray(path.a(ts) ** 2 + path.m(ts) ** 2), np.ones(9), 1e-6)


def test_it_can_start_like_another_path(x64):
    t0, t1 = (float(nk.paths.CondOT().t_of_sigma(s)) for s in (20.0, 0.05))
    errors = []
    for num_knots in (16, 32):
        path = nk.paths.LearnedPath.like(nk.paths.CondOT(), 0.05, 20.0, num_knots=num_knots)
        ts = jnp.linspace(0.0, 1.0, 101)
        errors.append(float(jnp.max(jnp.abs(path.a(ts) - (t0 + (t1 - t0) * ts)))))
    assert errors[0] < 0.03 and errors[1] < 0.35 * errors[0]  # of second order in the knots
    diagonal = nk.paths.LearnedPath.like(nk.paths.CondOT(), 0.05, 20.0, size=3)
    assert diagonal.a(0.5).shape == (3,)


def test_the_spline_is_that_of_scipy_and_its_places_make_the_identity(x64):
    coefficients = np.random.default_rng(0).normal(size=(9, 2))
    knots = np.concatenate([np.zeros(3), np.linspace(0, 1, 7), np.ones(3)])
    ts = np.linspace(0, 1, 50)
    expected = scipy.interpolate.BSpline(knots, coefficients, 3)
    assert_tree_close(
        np.asarray(spline(jnp.asarray(ts), jnp.asarray(coefficients))), expected(ts), 1e-12, 1e-12
    )
    slope = jax.vmap(jax.jacfwd(lambda t: spline(t, jnp.asarray(coefficients))))(jnp.asarray(ts))
    assert_tree_close(np.asarray(slope)[:-1], expected.derivative()(ts)[:-1], 1e-10, 1e-10)
    identity = spline(jnp.asarray(ts), jnp.asarray(places(9)))
    assert_tree_close(np.asarray(identity), ts, 1e-12, 1e-12)
