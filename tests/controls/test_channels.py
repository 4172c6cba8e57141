"""Time and counts among the channels."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ndekit as nk

NAN = np.nan
TS = np.array([[0.0, 0.5, 2.0, 2.5], [1.0, 2.0, 4.0, 5.0]], np.float32)
XS = np.array(
    [[[1, NAN], [NAN, 3], [2, 4], [NAN, 5]], [[7, 8], [NAN, 9], [0, 0], [0, 0]]], np.float32
)


def batch():
    return nk.data.Series(TS, XS, length=[4, 2])


def test_time_then_counts_then_values():
    found = nk.controls.channels(batch())
    assert found.xs[0].tolist() == [
        [0.0, 1, 0, 1, 0], [0.5, 1, 1, 0, 3], [2.0, 2, 2, 2, 4], [2.5, 2, 3, 0, 5]
    ]  # fmt: skip
    assert found.xs[1].tolist() == [[1.0, 1, 1, 7, 8], [2.0, 1, 2, 0, 9], [0.0] * 5, [0.0] * 5]
    assert found.mask[..., :3].all(axis=-1).tolist() == [[True] * 4, [True, True, False, False]]
    assert np.array_equal(found.mask[..., 3:], batch().clean().mask)
    assert np.array_equal(found.length, [4, 2]) and np.array_equal(found.ts[0], TS[0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(time=False, counts="none"), [[0.0, 5.0]]),
        (dict(counts="rows"), [[2.5, 4.0, 0.0, 5.0]]),
        (dict(counts="each", per=2.0), [[2.5, 1.0, 1.5, 0.0, 5.0]]),
        (dict(time=False), [[2.0, 3.0, 0.0, 5.0]]),
    ],
)
def test_each_of_them_can_be_left_out(options, expected):
    assert nk.controls.channels(batch(), **options).xs[0, -1:].tolist() == expected


def test_counts_are_there_if_something_is_missing():
    whole = nk.data.Series(TS[0], np.ones((4, 2), np.float32))
    assert nk.controls.channels(whole).xs.shape == (4, 3)
    # What is missing behind the length is not missed.
    padded = nk.data.Series(TS[0], XS[1], length=1)
    assert nk.controls.channels(padded).xs.shape == (4, 3)
    assert nk.controls.channels(nk.data.Series(TS[0], XS[1], length=2)).xs.shape == (4, 5)


def test_a_batch_is_its_series():
    whole = nk.controls.channels(batch(), counts="each")
    lanes = jax.vmap(lambda series: nk.controls.channels(series, counts="each"))(batch())
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(lanes), strict=True)
    )


def test_nan_in_the_padding_goes_nowhere():
    clean = batch().clean()
    real = clean.is_real
    dirty = eqx.tree_at(
        lambda s: (s.ts, s.xs),
        clean,
        (jnp.where(real, clean.ts, jnp.nan), jnp.where(real[..., None], clean.xs, jnp.nan)),
    )
    found, expected = nk.controls.channels(dirty), nk.controls.channels(batch())
    assert np.array_equal(found.xs, expected.xs)
    loss = lambda s: jnp.sum(jnp.sin(nk.controls.channels(s, counts="each").xs))
    assert np.all(np.isfinite(jax.grad(loss, allow_int=True)(dirty).ts))
