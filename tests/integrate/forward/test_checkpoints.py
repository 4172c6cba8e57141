"""The arithmetic of checkpoints, against a plain list of what should be kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndekit.integrate.forward.checkpoints import default_checkpoints, empty_rows, stack_of


def filled(number, max_steps, steps):
    """Rows after `steps` steps, the state before step n being n."""
    rows = empty_rows(jnp.array(0.0), number, max_steps)
    put = jax.jit(lambda rows, step: rows.put(step.astype(float), step, jnp.array(True)))
    for step in range(steps):
        rows = put(rows, jnp.asarray(step))
    return rows


def kept_by_hand(number, steps):
    kept, stride = [], 1
    for step in range(steps):
        if step % stride:
            continue
        if len(kept) == number:
            stride *= 2
            kept = [s for s in kept if s % stride == 0]
        if step % stride == 0:
            kept.append(step)
    return kept


@given(st.integers(1, 9), st.integers(1, 70))
def test_every_state_kept_is_found_again_from_the_end(number, steps):
    stack = stack_of(filled(number, 70, steps), jnp.asarray(steps))
    for step in reversed(kept_by_hand(number, steps)):
        state, at = stack.last()
        assert (int(at), float(state)) == (step, step)
        stack = stack.without(at)
    assert int(stack.top) == -1


@given(st.integers(2, 9), st.integers(1, 70))
def test_what_is_pushed_stands_on_top_and_disturbs_nothing(number, steps):
    stack = stack_of(filled(number, 70, steps), jnp.asarray(steps))
    below = kept_by_hand(number, steps)
    assert int(stack.num_free()) == number - len(below)
    pushed = range(100, 100 + number - len(below))
    for step in pushed:
        stack = stack.push(jnp.asarray(-1.0), jnp.asarray(-1), jnp.array(False))
        stack = stack.push(jnp.asarray(float(step)), jnp.asarray(step), jnp.array(True))
    stack = stack.push(jnp.asarray(-1.0), jnp.asarray(-1), jnp.array(False))  # no room, no harm
    for step in reversed([*below, *pushed]):
        state, at = stack.last()
        assert (int(at), float(state)) == (step, step)
        stack = stack.without(jnp.asarray(-5)).without(at)


@pytest.mark.parametrize(
    ("max_steps", "row_bytes", "noise_bytes", "number"),
    [
        (4096, 2000, 0, 128), (4096, 12, 0, 4096), (4096, 160, 0, 4096), (8192, 160, 0, 819),
        (4096, 2**24, 0, 16), (10, 4, 0, 10), (4096, 2000, 1000, 64), (4096, 12, 4, 4096),
    ],
)  # fmt: skip
def test_default_number(max_steps, row_bytes, noise_bytes, number):
    assert default_checkpoints(max_steps, row_bytes, noise_bytes) == number


@pytest.mark.parametrize(
    ("row_bytes", "number"), [(2000, 4096), (2**14, 4096), (2**14 + 1, 128), (2**24, 16)]
)
def test_of_a_solve_in_lanes_all_are_kept_up_to_64_megabytes(row_bytes, number):
    assert default_checkpoints(4096, row_bytes, in_lanes=True) == number


def test_a_row_that_is_not_wanted_takes_nobodys_place():
    rows = filled(3, 8, 3)
    rows = rows.put(jnp.asarray(9.0), jnp.asarray(3), jnp.array(False))
    np.testing.assert_array_equal(rows.states[:3], [0, 1, 2])
    assert int(rows.doublings) == 0
