"""The root mean square of a few numbers is optimistix's, and so is its derivative."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optimistix as optx
import pytest
from support.close import close_to_rounding

from ndekit import tree
from ndekit.integrate.control.norms import preferred, rms_norm

TREES = {
    "one": lambda key: jr.normal(key, (1,)),
    "few": lambda key: jr.normal(key, (2, 4)),
    "many": lambda key: jr.normal(key, (3, 3)),
    "leaves": lambda key: {"a": jr.normal(key, (3,)), "b": (jr.normal(key, ()),)},
    "complex": lambda key: jr.normal(key, (3,), jnp.complex64),
    "nothing": lambda key: jnp.zeros(0),
}


@pytest.mark.parametrize("name", TREES)
def test_values_and_derivatives_are_those_of_optimistix(name):
    x = TREES[name](jr.key(0))
    with jax.numpy_dtype_promotion("standard"):
        assert close_to_rounding(rms_norm(x), optx.rms_norm(x))
    if name not in ("complex", "nothing"):
        assert close_to_rounding(jax.grad(rms_norm)(x), jax.grad(optx.rms_norm)(x))


def test_the_derivative_at_zero_is_zero():
    for norm in (rms_norm, jax.vmap(rms_norm)):
        zero = jnp.zeros((4, 3)) if norm is not rms_norm else jnp.zeros(3)
        of_sum = lambda x, norm=norm: jnp.sum(norm(x))
        assert not np.any(jax.grad(of_sum)(zero))
        assert not np.any(jax.jvp(of_sum, (zero,), (jnp.ones_like(zero),))[1])


def test_only_the_known_norm_is_replaced():
    assert preferred(optx.rms_norm) is rms_norm
    assert preferred(optx.max_norm) is optx.max_norm


@pytest.mark.parametrize("shape", [(3,), (64, 64)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_among_few_and_many(shape, bad):
    x = jnp.full(shape, 3e38)
    assert tree.all_finite({"x": x, "n": jnp.arange(3)})
    assert not tree.all_finite({"x": x.ravel().at[-1].set(bad)})
