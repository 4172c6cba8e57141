"""EDM's preconditioning: the published coefficients, the same size everywhere, both ends."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.gaussian_paths import PATHS

import ndekit as nk
from ndekit.fields import MLP, Preconditioned


def test_the_published_coefficients():
    path, s, x = nk.paths.EDM(), 0.5, jnp.array([3.0, -1.0])
    network = lambda noise, x, args: jnp.stack([noise, x[0]])
    for sigma in (80.0, 1.0, 0.01):
        found = Preconditioned(network, path, s)(path.t_of_sigma(sigma), x)
        c_in = 1 / np.sqrt(sigma**2 + s**2)
        inside = np.array([np.log(sigma) / 4, c_in * 3.0])
        expected = s**2 * c_in**2 * x + sigma * s * c_in * inside
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["CondOT", "VP", "VE"])
def test_what_the_network_sees_and_has_to_return_has_unit_variance(name):
    path, s, number = PATHS[name](), 0.7, 4000
    seen = []
    network = lambda noise, x, args: seen.append(x) or jnp.zeros_like(x)
    field = Preconditioned(network, path, s)
    x1, x0 = s * jr.normal(jr.key(0), (number,)), jr.normal(jr.key(1), (number,))
    for t in (0.05, 0.5, 0.95):
        said = field(t, path.sample(t, x0, x1))
        np.testing.assert_allclose(np.std(seen[-1]), 1.0, atol=0.05)
        # What it leaves to the network, times the root of the weight.
        left = np.sqrt(field.weight(t)) * np.asarray(x1 - said)
        np.testing.assert_allclose(np.std(left), 1.0, atol=0.05)


@pytest.mark.parametrize("name", ["CondOT", "Trigonometric", "Polynomial", "EDM"])
def test_at_both_ends_it_has_a_slope_in_time(name):
    """The logarithm of the noise has none where there is no noise, or nothing else."""
    path = PATHS[name]()
    seen = Preconditioned(lambda noise, x, args: jnp.sin(noise) * x, path)
    for end in (0.0, 1.0):
        noise = 0.25 * jnp.clip(-path.log_rho(end), -12.0, 12.0)
        slope = jax.grad(lambda t: jnp.sum(seen(t, jnp.array([1.0, 2.0]))))(end)
        if abs(noise) < 3:
            assert np.isfinite(slope)
            continue
        # As if the network did not see the noise, which no longer changes.
        still = Preconditioned(lambda _, x, args, noise=noise: jnp.sin(noise) * x, path)
        expected = jax.grad(lambda t, still=still: jnp.sum(still(t, jnp.array([1.0, 2.0]))))(end)
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["CondOT", "VP", "EDM"])
def test_at_both_ends_it_and_its_gradients_are_finite(name):
    field = Preconditioned(MLP(2, 8, 1, time="concat", key=jr.key(0)), PATHS[name]())
    x = jnp.array([0.3, -2.0])
    for t in (0.0, 1.0):
        assert np.all(np.isfinite(field(t, x)))
        assert np.all(np.isfinite(jax.jacobian(lambda x, t=t: field(t, x))(x)))
    # All noise says nothing; data alone is what it is.
    if name == "CondOT":
        np.testing.assert_allclose(field(1.0, x), x, rtol=1e-5)


def test_a_flow_checks_what_it_predicts():
    path = nk.paths.VP()
    field = Preconditioned(MLP(2, 8, 1, time="concat", key=jr.key(0)), path)
    with pytest.raises(ValueError, match="predicts 'data', but `predicts` is 'velocity'"):
        nk.models.Flow(field, path, 2)
    with pytest.raises(ValueError, match="made for the path"):
        nk.models.Flow(field, nk.paths.CondOT(), 2, predicts="data")


def test_a_path_with_a_scale_for_each_coordinate_has_one_level_of_noise():
    path, seen = nk.paths.LearnedPath(0.01, 20.0, size=2), []
    network = lambda noise, x, args: seen.append(noise) or jnp.zeros_like(x)
    Preconditioned(network, path)(0.3, jnp.ones(2))
    np.testing.assert_allclose(seen[0], -0.25 * path.log_rho(0.3), rtol=1e-5)
