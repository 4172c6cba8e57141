"""The written-out random numbers beside JAX's own."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndekit.integrate.noise.threefry import written_out

SHAPES = [(), (1,), (5,), (2, 3), (3, 1, 4)]


@given(st.integers(0, 2**31), st.integers(0, 2**32 - 1), st.sampled_from(SHAPES))
def test_the_numbers_are_those_of_jax(seed, data, shape):
    key = jr.key(seed)
    other = written_out(key)
    assert other.dtype != key.dtype
    assert_same = np.testing.assert_array_equal
    data = np.uint32(data)
    assert_same(jr.key_data(jr.fold_in(other, data)), jr.key_data(jr.fold_in(key, data)))
    assert_same(jr.key_data(jr.split(other, shape)), jr.key_data(jr.split(key, shape)))
    for dtype in (jnp.float32, jnp.bfloat16):
        assert_same(jr.normal(other, shape, dtype), jr.normal(key, shape, dtype))
    assert_same(jr.bits(other, shape, jnp.uint8), jr.bits(key, shape, jnp.uint8))


def test_the_numbers_are_those_of_jax_in_float64(x64):
    key = jr.key(3)
    np.testing.assert_array_equal(jr.normal(written_out(key), (4, 5)), jr.normal(key, (4, 5)))


def test_lanes_draw_each_from_its_own_key():
    keys = jr.split(jr.key(1), 6)
    draw = lambda key: jr.normal(jr.fold_in(written_out(key), 2), (3,))
    together = jax.jit(jax.vmap(draw))(keys)
    np.testing.assert_array_equal(together, jnp.stack(list(map(draw, keys))))


def test_old_keys_are_keys():
    np.testing.assert_array_equal(
        jr.normal(written_out(jr.PRNGKey(2)), (3,)), jr.normal(jr.key(2), (3,))
    )


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_keys_of_other_generators_become_different_keys(impl):
    keys = jr.split(jr.key(0, impl=impl), 5)
    of_all = jr.key_data(jax.vmap(written_out)(keys))
    assert len({tuple(pair) for pair in of_all.tolist()}) == 5
    words = jnp.array([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 4, 4]], jnp.uint32)
    alike = [written_out(jr.wrap_key_data(data, impl=impl)) for data in words]
    assert len({tuple(jr.key_data(key).tolist()) for key in alike}) == 3
