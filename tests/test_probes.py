"""Traces from products: exact ones against Jacobians, estimates against their moments."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.close import close_to_rounding

from ndekit.probes import FEW, Exact, Hutchinson, HutchPP, value_and_trace

SIZE, DRAWS = 4, 20_000
ESTIMATES = (
    Hutchinson(),
    Hutchinson("gaussian"),
    Hutchinson(n=3),
    Hutchinson("gaussian", 2),
    HutchPP(1),
    HutchPP(3),
)


def matrix(seed, size=SIZE):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(size, size)), jnp.float32)


def trace_of(trace, fn, x, ndim=1, key=None, at_start=None):
    directions = trace.directions(fn if at_start is None else at_start, x, ndim, key=key)
    return value_and_trace(fn, x, directions, ndim)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 5))
def test_exact_is_the_trace_of_the_jacobian(seed, size):
    weight, x = matrix(seed, size), matrix(seed + 1, size)[0]
    fn = lambda x: jnp.tanh(weight @ x) + x**2
    value, trace = trace_of(Exact(), fn, x)
    assert close_to_rounding(value, fn(x))
    assert close_to_rounding(trace, jnp.trace(jax.jacfwd(fn)(x)))


def test_of_a_batch_each_sample_has_its_own_trace():
    x = jr.normal(jr.key(0), (2, 3, 2, 2))
    fn = lambda x: jnp.sin(x) * jnp.sum(x, axis=(-2, -1), keepdims=True)
    _, traces = trace_of(Exact(), fn, x, ndim=2)
    jacobian = jax.vmap(jax.vmap(lambda x: jax.jacfwd(fn)(x).reshape(4, 4)))(x)
    assert close_to_rounding(traces, jnp.trace(jacobian, axis1=-2, axis2=-1))


@pytest.mark.parametrize("trace", ESTIMATES, ids=str)
def test_a_batch_of_estimates_is_those_of_its_samples(trace):
    """Whatever was drawn for a sample stays with it."""
    x, fn = jr.normal(jr.key(0), (5, SIZE)), lambda x: jnp.sin(x) * jnp.sum(x, -1, keepdims=True)
    directions = trace.directions(fn, x, 1, key=jr.key(1))
    _, together = value_and_trace(fn, x, directions, 1)
    one = lambda x, v: value_and_trace(fn, x, v, 1)[1]
    assert close_to_rounding(together, jax.vmap(one, in_axes=(0, 1))(x, directions))


def drawn(trace, weight, at_start):
    x, fn = jnp.zeros(SIZE), lambda x: weight @ x
    one = lambda key: trace_of(trace, fn, x, 1, key, lambda x: at_start @ x)[1]
    return np.asarray(jax.jit(jax.vmap(one))(jr.split(jr.key(2), DRAWS)), np.float64)


@pytest.mark.parametrize("trace", ESTIMATES, ids=str)
def test_estimates_are_unbiased_also_when_the_jacobian_has_moved_on(trace):
    weight = matrix(0)
    found = drawn(trace, weight, at_start=matrix(1))
    assert abs(found.mean() - float(jnp.trace(weight))) < 5 * found.std() / DRAWS**0.5


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_hutchinsons_variance_is_that_of_the_formula(kind, n):
    weight = np.asarray(matrix(0), np.float64)
    symmetric = (weight + weight.T) / 2
    squares = np.sum(symmetric**2)
    if kind == "rademacher":
        squares -= np.sum(np.diag(symmetric) ** 2)
    found = drawn(Hutchinson(kind, n), matrix(0), matrix(0))
    # The sample variance of 20,000 numbers with the tails of a product of normals is off by 3 %.
    np.testing.assert_allclose(found.var(), 2 * squares / n, rtol=0.1)


def test_hutchpp_is_exact_for_a_jacobian_of_its_rank():
    weight = matrix(0)[:, :2] @ matrix(1)[:2]
    found = drawn(HutchPP(2), weight, weight)[:100]
    np.testing.assert_allclose(found, float(jnp.trace(weight)), rtol=1e-4)


def test_hutchpp_varies_less_where_few_directions_matter():
    turned, _ = jnp.linalg.qr(matrix(3))
    weight = turned @ jnp.diag(jnp.array([10.0, 5.0, 0.1, 0.1])) @ turned.T
    plain = drawn(Hutchinson(n=4), weight, weight)  # as many products
    assert drawn(HutchPP(2), weight, weight).var() < 0.1 * plain.var()


def test_nothing_is_differentiated_through_the_basis():
    def estimate(scale):
        fn = lambda x: scale * (matrix(0) @ x)
        return trace_of(HutchPP(2), fn, jnp.zeros(SIZE), key=jr.key(0))[1]

    # For a fixed basis the estimate is linear in the Jacobian.
    assert close_to_rounding(jax.grad(estimate)(jnp.array(1.7)), estimate(jnp.array(1.0)))


@pytest.mark.parametrize("trace", [Hutchinson(), HutchPP(2)], ids=str)
def test_without_a_key_nothing_is_drawn(trace):
    with pytest.raises(ValueError, match="needs a key"):
        trace_of(trace, jnp.sin, jnp.ones(SIZE))


def test_what_cannot_be_is_refused_by_name(types_unchecked):
    with pytest.raises(ValueError, match="`kind` must be 'rademacher' or 'gaussian', but got 'u'"):
        Hutchinson("u")  # pyright: ignore
    with pytest.raises(ValueError, match=r"`HutchPP\(5\)` wants samples of at least 5 numbers"):
        trace_of(HutchPP(5), jnp.sin, jnp.ones(SIZE), key=jr.key(0))


@pytest.mark.parametrize("size", [2, 2 * FEW])
def test_a_map_to_another_shape_is_refused(size, types_unchecked):
    """A number in place of rates."""
    with pytest.raises(ValueError, match=rf"their shape, \({size},\), but this one returns \(1,\)"):
        value_and_trace(lambda x: x[:1], jnp.ones(size), jnp.eye(size), 1)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("size", [2, 2 * FEW])
def test_dtypes_of_points_directions_and_rates_may_differ(dtype, size, types_unchecked):
    for x, directions, rates in ((dtype, dtype, jnp.float32), (jnp.float32, dtype, dtype)):
        fn = lambda x, rates=rates: (-2 * x).astype(rates)
        eye = jnp.eye(size, dtype=directions)
        value, trace = value_and_trace(fn, jnp.ones(size, x), eye, 1)
        assert value.dtype == rates
        np.testing.assert_allclose(trace, -2.0 * size)
