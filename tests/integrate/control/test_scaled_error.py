"""The number that a controller compares with one."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import optimistix as optx
import pytest
from support.close import assert_tree_close

import ndekit as nk
from ndekit.integrate.control.scaled_error import scaled_error

RTOL, ATOL = 1e-3, 1e-5


def a_step():
    keys = jr.split(jr.key(0), 3)
    y0, y1, error = ({"a": jr.normal(key, (3,)), "b": jr.normal(key, ())} for key in keys)
    return y0, y1, jax.tree.map(lambda e: 1e-4 * e, error)


def test_it_is_the_norm_of_error_over_scale():
    y0, y1, error = a_step()
    scale = lambda a, b: ATOL + RTOL * jnp.maximum(jnp.abs(a), jnp.abs(b))
    ratio = jax.tree.map(lambda e, a, b: e / scale(a, b), error, y0, y1)
    found = scaled_error(optx.rms_norm, error, y0, y1, RTOL, ATOL)
    assert_tree_close(found, optx.rms_norm(ratio), rtol=1e-6)


@pytest.mark.parametrize("bad", [jnp.inf, -jnp.inf, jnp.nan])
@pytest.mark.parametrize("where", ["error", "y1"])
def test_it_is_infinite_where_something_is_not_finite(where, bad):
    y0, y1, error = a_step()
    spoilt = {"error": error, "y1": y1}[where]
    spoilt["a"] = spoilt["a"].at[1].set(bad)
    found = scaled_error(optx.rms_norm, error, y0, y1, RTOL, ATOL)
    assert found == jnp.inf


@pytest.mark.parametrize("norm", [optx.rms_norm, lambda y: jnp.abs(y[0])], ids=["all", "first"])
def test_a_step_out_of_the_field_is_rejected_whatever_the_norm_looks_at(norm):
    """The second number is $(1 - t / 2)^2$; a long step makes it negative, and its root NaN."""
    field = lambda t, y, args: jnp.stack([-y[0], -jnp.sqrt(y[1])])
    sol = nk.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.5, 1.5, jnp.ones(2),
        stepsize_controller=diffrax.PIDController(rtol=1e-1, atol=1e-1, norm=norm),
    )  # fmt: skip
    assert_tree_close(sol.ys[0, 1], jnp.asarray(0.0625), rtol=0.5)
    assert jnp.all(jnp.isfinite(sol.ys))
