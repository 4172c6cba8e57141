"""The Brownian bridge between two samples."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close

from ndekit.paths import Bridge

X0, X1 = np.array([0.3, -1.0], np.float32), np.array([2.0, 0.5], np.float32)


@pytest.mark.parametrize("t", [0.01, 0.5, 0.9])
@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_velocity_and_score_make_the_drift_of_the_pinned_brownian_motion(t, sigma):
    bridge, x = Bridge(sigma), jnp.array([0.7, 0.1])
    velocity, score = bridge.velocity(t, x, X0, X1), bridge.score(t, x, X0, X1)
    size = np.abs(np.asarray(velocity)) + np.abs(sigma**2 * np.asarray(score))
    drift = velocity + 0.5 * sigma**2 * score
    assert np.all(np.abs(drift - (X1 - x) / (1 - t)) <= 1e-5 * (1 + size))
    back = velocity - 0.5 * sigma**2 * score
    assert np.all(np.abs(back - (x - X0) / t) <= 1e-5 * (1 + size))


def test_the_score_is_that_of_the_density_and_the_velocity_keeps_it(x64):
    bridge, z, t = Bridge(0.7), jnp.array([0.4, -1.1]), 0.3
    x = bridge.sample(t, X0.astype(float), X1.astype(float), z)
    log_density = lambda x: jnp.sum(
        jax.scipy.stats.norm.logpdf(x, bridge.mean(t, X0.astype(float), X1.astype(float)),
                                    bridge.deviation(t))
    )  # fmt: skip
    assert_tree_close(bridge.score(t, x, X0.astype(float), X1.astype(float)),
                      jax.grad(log_density)(x), 1e-9)  # fmt: skip
    moves = jax.jacfwd(lambda t: bridge.sample(t, X0.astype(float), X1.astype(float), z))(t)
    assert_tree_close(bridge.velocity(t, x, X0.astype(float), X1.astype(float)), moves, 1e-9)


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_at_the_ends_it_is_where_it_should_be_and_nothing_is_nan(t):
    bridge, z = Bridge(1.0), jr.normal(jr.key(0), (2,))
    x = bridge.sample(t, X0, X1, z)
    assert_tree_close(np.asarray(x), X1 if t else X0, 1e-6)
    assert_tree_close(np.asarray(bridge.velocity(t, x, X0, X1)), X1 - X0, 1e-6)
    assert np.all(np.asarray(bridge.score(t, x, X0, X1)) == 0)


def test_without_noise_it_is_a_straight_line():
    bridge, z = Bridge(0.0), jnp.ones(2)
    x = bridge.sample(0.25, X0, X1, z)
    assert_tree_close(np.asarray(x), 0.75 * X0 + 0.25 * X1, 1e-6)
    assert_tree_close(np.asarray(bridge.velocity(0.25, x, X0, X1)), X1 - X0, 1e-6)
    assert np.all(np.asarray(bridge.score(0.25, x, X0, X1)) == 0)
