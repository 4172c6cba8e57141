"""The distance of a trajectory from a polynomial, against NumPy's least squares."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk


def solve(field, y0, cost, args=None, **options):
    return nk.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), 0.5, 2.0, 0.05, y0, args,
        stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-9),
        costs={"c": cost}, key=jr.key(5), **options,
    ).costs["c"]  # fmt: skip


@pytest.mark.parametrize(("degree", "points"), [(0, 1), (1, 2), (2, 5)])
def test_equals_least_squares(x64, degree, points):
    cost = nk.TrajectoryPolynomial(degree, points)
    ts = cost.times(0.5, 2.0, key=jr.key(0))
    assert ts.shape == (points + 2,) and ts[0] == 0.5 and ts[-1] == 2.0
    assert bool(jnp.all((ts >= 0.5) & (ts <= 2.0)))
    ys = {"a": jnp.exp(ts), "b": jnp.stack([ts**2, jnp.sin(ts)], axis=1)}
    columns = np.stack([np.exp(ts), np.square(ts), np.sin(ts)], axis=1)
    _, squares, *_ = np.polyfit(np.asarray(ts), columns, degree, full=True)
    assert_tree_close(cost.of_states(ts, ys), squares.sum() / columns.size, rtol=1e-8)


@pytest.mark.parametrize("degree", slow_but([2], [0, 1, 2]))
def test_a_polynomial_costs_nothing(x64, degree):
    field = lambda t, y, args: jnp.ones_like(y) * (degree * t ** (degree - 1) if degree else 0.0)
    cost = nk.TrajectoryPolynomial(degree, degree + 2)
    value, gradient = jax.value_and_grad(lambda y0: solve(field, y0, cost))(jnp.ones(2))
    assert value < 1e-20
    assert jnp.all(jnp.isfinite(gradient))


def test_gradient_is_that_of_a_finite_difference(x64):
    field = lambda t, y, a: jnp.sin(a * y) * jnp.cos(3 * t)
    cost = nk.TrajectoryPolynomial()
    f = lambda a: solve(field, jnp.array([1.0, -0.4]), cost, a)
    found = jax.grad(f)(1.3)
    step = 1e-4
    assert_tree_close(found, (f(1.3 + step) - f(1.3 - step)) / (2 * step), rtol=1e-5)
    backsolve = jax.grad(
        lambda a: solve(field, jnp.array([1.0, -0.4]), cost, a, adjoint=diffrax.BacksolveAdjoint())
    )(1.3)
    assert_tree_close(backsolve, found, rtol=1e-5)


def test_order_of_the_batch_does_not_matter(x64):
    field = lambda t, y, args: jnp.tanh(2 * y)
    y0 = jr.normal(jr.key(1), (5, 2))
    cost = nk.TrajectoryPolynomial()
    assert_tree_close(solve(field, y0[::-1], cost), solve(field, y0, cost), rtol=1e-10)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="degree"):
        nk.TrajectoryPolynomial(-1)
    with pytest.raises(ValueError, match="points"):
        nk.TrajectoryPolynomial(3, 2)
