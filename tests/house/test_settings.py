"""The numerics and checks that every other test runs under."""

import warnings

import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import pytest


def test_float32_is_the_default():
    assert jnp.ones(1).dtype == jnp.float32


def test_x64_gives_float64(x64):
    assert jnp.ones(1).dtype == jnp.float64


def test_dtypes_do_not_promote():
    with pytest.raises(ValueError, match="dtype promotion"):
        jnp.ones(2, jnp.float32) + jnp.ones(2, jnp.int32)


def test_ranks_do_not_promote():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 2)) + jnp.ones(2)


def test_warnings_are_errors():
    with pytest.raises(UserWarning):
        warnings.warn("this would be lost otherwise", stacklevel=1)


def test_keys_of_a_test_differ(getkey):
    first, second = (int(jr.bits(getkey())) for _ in range(2))
    assert first != second


def test_annotations_are_checked():
    from ndekit import tree

    with pytest.raises(jaxtyping.TypeCheckError):
        tree.where("not an array", 1.0, 2.0)
