"""Bridges between two samples: laws of all of them, and those of the Brownian one."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close

from ndekit.paths import Bridge, NoisyLine

BRIDGES = {kind.__name__: kind for kind in (Bridge, NoisyLine)}


def ends():
    return jnp.array([0.3, -1.0]), jnp.array([2.0, 0.5])


@pytest.mark.parametrize("t", [0.01, 0.5, 0.9])
@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_velocity_and_score_make_the_drift_of_the_pinned_brownian_motion(t, sigma):
    x0, x1 = ends()
    bridge, x = Bridge(sigma), jnp.array([0.7, 0.1])
    velocity, score = bridge.velocity(t, x, x0, x1), bridge.score(t, x, x0, x1)
    size = np.abs(np.asarray(velocity)) + np.abs(sigma**2 * np.asarray(score))
    drift = velocity + 0.5 * sigma**2 * score
    assert np.all(np.abs(drift - (x1 - x) / (1 - t)) <= 1e-5 * (1 + size))
    back = velocity - 0.5 * sigma**2 * score
    assert np.all(np.abs(back - (x - x0) / t) <= 1e-5 * (1 + size))


@pytest.mark.parametrize("name", BRIDGES)
def test_the_score_is_that_of_the_density_and_the_velocity_keeps_it(name, x64):
    x0, x1 = ends()
    bridge, z, t = BRIDGES[name](0.7), jnp.array([0.4, -1.1]), 0.3
    x = bridge.sample(t, x0, x1, z)
    log_density = lambda x: jnp.sum(
        jax.scipy.stats.norm.logpdf(x, bridge.mean(t, x0, x1),
                                    bridge.deviation(t))
    )  # fmt: skip
    assert_tree_close(bridge.score(t, x, x0, x1),
                      jax.grad(log_density)(x), 1e-9)  # fmt: skip
    moves = jax.jacfwd(lambda t: bridge.sample(t, x0, x1, z))(t)
    assert_tree_close(bridge.velocity(t, x, x0, x1), moves, 1e-9)


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_at_the_ends_it_is_where_it_should_be_and_nothing_is_nan(t):
    x0, x1 = ends()
    bridge, z = Bridge(1.0), jr.normal(jr.key(0), (2,))
    x = bridge.sample(t, x0, x1, z)
    assert_tree_close(np.asarray(x), x1 if t else x0, 1e-6)
    assert_tree_close(np.asarray(bridge.velocity(t, x, x0, x1)), x1 - x0, 1e-6)
    assert np.all(np.asarray(bridge.score(t, x, x0, x1)) == 0)


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_a_noisy_line_has_the_same_noise_at_all_times(t):
    x0, x1 = ends()
    line, z = NoisyLine(0.5), jr.normal(jr.key(0), (2,))
    x = line.sample(t, x0, x1, z)
    assert_tree_close(np.asarray(x - line.mean(t, x0, x1)), 0.5 * z, 1e-5)
    assert np.all(np.asarray(line.velocity(t, x, x0, x1) == x1 - x0))
    assert_tree_close(np.asarray(line.score(t, x, x0, x1)), -z / 0.5, 1e-5)


@pytest.mark.parametrize("name", BRIDGES)
def test_without_noise_it_is_a_straight_line(name):
    x0, x1 = ends()
    bridge, z = BRIDGES[name](0.0), jnp.ones(2)
    x = bridge.sample(0.25, x0, x1, z)
    assert_tree_close(np.asarray(x), 0.75 * x0 + 0.25 * x1, 1e-6)
    assert_tree_close(np.asarray(bridge.velocity(0.25, x, x0, x1)), x1 - x0, 1e-6)
    assert np.all(np.asarray(bridge.score(0.25, x, x0, x1)) == 0)
