"""Exponentials of small matrices against SciPy's."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.linalg
from support.close import assert_tree_close, close_to_rounding

from ndekit.fields.blocks import applied, exponential, product


def by_scipy(a):
    """`(*batch, row, row, matrices)`, in double precision."""
    matrices = np.moveaxis(np.asarray(a, np.float64), -1, 0)
    flat = matrices.reshape(-1, *matrices.shape[-2:])
    found = np.stack([scipy.linalg.expm(m) for m in flat]).reshape(matrices.shape)
    return np.moveaxis(found, 0, -1)


@pytest.mark.parametrize("norm", [0.0, 1e-3, 0.3, 0.7, 3.0, 30.0])
@pytest.mark.parametrize("size", [1, 2, 4, 5, 12])
def test_exponential_is_scipys(size, norm, x64, getkey):
    a = jr.normal(getkey(), (6, size, size, 3))
    a = norm * a / jnp.max(jnp.sum(jnp.abs(a), axis=1))
    for m, found in zip(a, exponential(a), strict=True):
        expected = by_scipy(m)
        assert np.max(np.abs(found - expected)) < 1e-13 * np.exp(norm)
        assert np.max(np.abs(found - expected)) < 1e-10 * np.max(np.abs(expected))


@pytest.mark.parametrize("norm", [0.55, 3.0, 30.0])
def test_rotations_stay_rotations_in_float32(norm, getkey):
    a = jr.normal(getkey(), (50, 4, 4, 3), jnp.float32)
    a = a - jnp.swapaxes(a, 1, 2)
    a = norm * a / jnp.max(jnp.sum(jnp.abs(a), axis=1))
    found = exponential(a)
    assert found.dtype == jnp.float32
    gap = product(jnp.swapaxes(found, 1, 2), found) - np.eye(4, dtype=np.float32)[None, ..., None]
    assert jnp.max(jnp.abs(gap)) < 1e-6 * max(1, 4 * norm)
    assert np.max(np.abs(found - by_scipy(a))) < 1e-6 * max(1, 4 * norm)


def test_half_precision_is_right_to_its_rounding(getkey):
    a = jr.normal(getkey(), (20, 3, 3, 2)).astype(jnp.bfloat16)
    found = exponential(a)
    assert found.dtype == jnp.bfloat16
    assert np.max(np.abs(found.astype(float) - by_scipy(a))) < 0.03 * np.max(by_scipy(a))


@pytest.mark.parametrize("norm", [0.1, 2.0, 20.0])
def test_derivatives_are_those_of_frechet(norm, x64, getkey):
    a = jr.normal(getkey(), (3, 4, 4, 2)) * norm / 6
    along = jr.normal(getkey(), a.shape)
    _, tangent = jax.jvp(exponential, (a,), (along,))
    for index in np.ndindex(3, 2):
        pick = (index[0], slice(None), slice(None), index[1])
        _, expected = scipy.linalg.expm_frechet(np.asarray(a[pick]), np.asarray(along[pick]))
        assert_tree_close(tangent[pick], expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())
    weights = jr.normal(getkey(), a.shape)
    gradient = jax.grad(lambda a: jnp.sum(weights * exponential(a)))(a)
    assert_tree_close(jnp.sum(gradient * along), jnp.sum(weights * tangent), rtol=1e-10)


def test_exponential_is_the_same_in_lanes_of_other_size(getkey):
    small, large = jr.normal(getkey(), (2, 3, 4, 4, 2)) * jnp.array([0.01, 5.0]).reshape(
        2, 1, 1, 1, 1
    )
    together = jax.vmap(exponential)(jnp.stack([small, large]))
    assert close_to_rounding(together[0], exponential(small))
    assert close_to_rounding(together[1], exponential(large))


def test_what_has_no_exponential_is_no_number():
    a = jnp.full((1, 2, 2, 1), 1e20)
    assert jnp.all(jnp.isnan(exponential(a)))


@pytest.mark.parametrize("size", [1, 3, 8, 9])
def test_products_are_those_of_each_matrix(size, getkey):
    a, b = jr.normal(getkey(), (2, 5, size, size, 4))
    y = jr.normal(getkey(), (5, size, 4))
    assert close_to_rounding(product(a, b), jnp.einsum("tikn,tkjn->tijn", a, b))
    assert close_to_rounding(applied(a, y), jnp.einsum("tijn,tjn->tin", a, y))
