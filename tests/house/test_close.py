"""The comparisons that all other tests rest on."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close, close_to_rounding, close_to_solver


def test_rounding_is_relative_to_the_largest_entry():
    eps = np.finfo(np.float32).eps
    a = jnp.array([1.0, 1e-9])
    assert close_to_rounding(a, a.at[1].set(2e-9))
    assert not close_to_rounding(a, a * (1 + 100 * float(eps)))


def test_rounding_follows_the_coarser_dtype(x64):
    a = jnp.array([1.0], jnp.float64)
    assert not close_to_rounding(a, a + 1e-8)
    assert close_to_rounding(a, (a + 1e-8).astype(jnp.float32))


def test_solver_allows_errors_to_add_up():
    assert close_to_solver(np.array(1.0), np.array(1.005), rtol=1e-4)
    assert not close_to_solver(np.array(1.0), np.array(1.05), rtol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_entry_is_close_only_to_itself(bad):
    a, b = np.array([1.0, bad]), np.array([1.0, 2.0])
    assert close_to_rounding(a, a)
    assert not close_to_rounding(a, b)
    assert not close_to_solver(b, a, rtol=1e-3)
    with pytest.raises(AssertionError, match="1 of 2 entries"):
        assert_tree_close(b, a, rtol=1e-3)


def test_integers_and_keys_are_compared_exactly():
    assert close_to_rounding({"n": 3, "key": jr.key(0)}, {"n": 3, "key": jr.key(0)})
    assert not close_to_rounding(10**6, 10**6 + 1)
    assert not close_to_rounding(jr.key(0), jr.key(1))


def test_shapes_and_structures_must_match():
    assert not close_to_rounding(np.zeros(2), np.zeros((2, 1)))
    assert not close_to_rounding({"a": 1.0}, {"b": 1.0})


def test_message_names_the_worst_place():
    a = {"x": np.zeros((2, 2)), "y": (np.array([1.0, 2.0, 3.0]),)}
    b = {"x": np.zeros((2, 2)), "y": (np.array([1.0, 2.1, 5.0]),)}
    with pytest.raises(AssertionError, match=r"\['y'\]\[0\]\[2\]: 3 against 5") as error:
        assert_tree_close(a, b, rtol=1e-3)
    assert "2 of 3 entries" in str(error.value)
    assert "['x']" not in str(error.value)


def test_empty_leaves_are_close():
    assert_tree_close(np.zeros((0, 3)), np.zeros((0, 3)), rtol=0.0)
    assert close_to_rounding(np.zeros(0), np.zeros(0))
