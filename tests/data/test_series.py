"""A series: what it takes, what it refuses, and that nothing in its padding is ever read."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.close import close_to_rounding

from ndekit.data import Series

NAN = np.nan


@st.composite
def readings(draw, shape=None):
    """Times, readings with gaps, and lengths of a few series; each has one reading at least."""
    shapes = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3))
    batch, size, channels = draw(shapes) if shape is None else shape
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    ts = np.cumsum(rng.uniform(0.1, 2.0, (batch, size)), axis=-1) - draw(st.integers(-5, 5))
    xs = rng.normal(size=(batch, size, channels))
    xs[rng.uniform(size=xs.shape) < draw(st.sampled_from([0.0, 0.4, 0.9]))] = NAN
    xs[:, 0, 0] = rng.normal(size=batch)
    return ts, xs, rng.integers(1, size + 1, batch)


@given(readings())
def test_what_is_missing_is_zero_and_masked(given_readings):
    ts, xs, length = given_readings
    series = Series(ts, xs, length=length)
    real = np.arange(ts.shape[1]) < length[:, None]
    assert np.array_equal(series.mask, real[..., None] & ~np.isnan(xs))
    assert np.array_equal(series.xs, np.where(series.mask, xs, 0).astype(np.float32))
    assert np.array_equal(series.is_real, real)
    assert np.array_equal(series.length, length) and series.length.dtype == np.int32


@given(readings(), st.sampled_from([1.0, 1e-6, 1e6, 1e30]))
def test_times_increase_through_the_padding(given_readings, unit):
    ts, xs, length = given_readings
    series = Series(ts * unit, xs, length=length)
    real = np.asarray(series.is_real)
    assert np.array_equal(series.ts[real], (ts * unit).astype(np.float32)[real])
    assert np.all(np.diff(series.ts, axis=-1) > 0) and np.all(np.isfinite(series.ts))


@given(readings())
def test_a_mask_hides_what_it_says(given_readings):
    ts, xs, _ = given_readings
    mask = np.zeros(xs.shape, bool)
    mask[:, 0, 0] = True
    series = Series(ts, xs, mask)
    assert np.array_equal(series.mask, mask) and np.count_nonzero(series.xs) == len(xs)


def value_of(ts, xs, series):
    series = eqx.tree_at(lambda s: (s.ts, s.xs), series, (ts, xs)).clean()
    return jnp.sum(jnp.sin(series.ts)[:, None] * series.xs**2) + jnp.sum(series.ts)


grads_alone = jax.jit(jax.grad(value_of, argnums=(0, 1)))
grads_in_batch = jax.jit(jax.vmap(jax.value_and_grad(value_of, argnums=(0, 1))))


@jax.jit
def grads_of_sum(ts, xs, series):
    total = lambda ts, xs: jnp.sum(jax.vmap(value_of)(ts, xs, series))
    return jax.grad(total, argnums=(0, 1))(ts, xs)


@given(readings(shape=(3, 5, 2)), st.sampled_from([NAN, np.inf, 1e30, -7.0]))
def test_nothing_in_the_padding_is_read(given_readings, junk):
    """In value and gradient, in a batch and alone, whatever stands there."""
    ts, xs, length = given_readings
    batch = Series(ts, xs, length=length)
    real = np.asarray(batch.is_real)
    spoilt = eqx.tree_at(
        lambda s: (s.ts, s.xs, s.mask),
        batch,
        (
            np.where(real, batch.ts, np.float32(junk)),
            np.where(real[..., None], batch.xs, np.float32(junk)),
            batch.mask | ~real[..., None],
        ),
    )
    assert eqx.tree_equal(spoilt.clean(), batch.clean())

    clean = grads_in_batch(batch.ts, batch.xs, batch)
    assert eqx.tree_equal(grads_in_batch(spoilt.ts, spoilt.xs, spoilt), clean)
    assert close_to_rounding(grads_of_sum(spoilt.ts, spoilt.xs, spoilt), clean[1])
    assert np.all(np.asarray(clean[1][0])[~real] == 0)
    for i, series in enumerate(batch):  # alone it has no padding
        alone = series.trim()
        of_rows = jax.tree.map(lambda grad, i=i: grad[i, : length[i]], clean[1])
        assert close_to_rounding(of_rows, grads_alone(alone.ts, alone.xs, alone))


@given(readings())
def test_trimmed_series_of_a_batch_are_those_given(given_readings):
    ts, xs, length = given_readings
    for i, series in enumerate(Series(ts, xs, length=length)):
        alone = Series(ts[i, : length[i]], xs[i, : length[i]])
        assert eqx.tree_equal(series.trim(), alone)


def test_jax_arrays_stay_jax_arrays_and_numpy_stays_on_the_host():
    ts, xs = np.arange(3.0, dtype=np.float32), np.ones((3, 2), np.float32)
    kind = lambda series: {isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(series)}
    assert kind(Series(ts, xs)) == {False}
    assert kind(Series(jnp.asarray(ts), xs)) == kind(Series(ts, xs).clean()) == {True}
    assert eqx.tree_equal(Series(jnp.asarray(ts), xs), Series(ts, xs).clean())


@pytest.mark.parametrize(
    ("given_dtype", "kept"),
    [("float32", "float32"), ("float16", "float16"), ("float64", "float32"), ("int64", "float32"),
     ("bool", "float32"), ("bfloat16", "bfloat16")],
)  # fmt: skip
def test_dtypes_are_kept_as_jax_keeps_them(given_dtype, kept):
    ts = jnp.arange(3).astype(kept)
    xs = np.ones((3, 1)).astype(jnp.dtype(given_dtype))
    series = Series(ts, xs, length=2)
    assert series.ts.dtype == series.xs.dtype == series.clean().ts.dtype == kept


def test_float64_is_kept_where_jax_has_it(x64):
    series = Series(np.arange(3.0) + 1.7e9, np.ones((3, 1), np.float32))
    assert series.ts.dtype == series.xs.dtype == np.float64


def test_times_are_shared_by_a_batch():
    series = Series([0.0, 1.0], np.ones((4, 2, 1)))
    assert series.ts.shape == (4, 2) and series.batch_shape == (4,) and len(series) == 4


def test_a_batch_is_indexed_by_its_leading_axes():
    batch = Series([0.0, 1.0], np.arange(12.0).reshape(2, 3, 2, 1))
    assert batch[1].batch_shape == (3,) and batch[1, 2].batch_shape == ()
    assert np.array_equal(batch[1, 2].xs[:, 0], [10, 11])
    assert batch[:, [2, 0]].batch_shape == (2, 2)
    with pytest.raises(IndexError, match="takes at most 2 indices, got 3"):
        batch[0, 0, 0]
    for of_a_single_one in (len, lambda s: s[0], list):
        with pytest.raises(TypeError, match="This is a single series, not a batch"):
            of_a_single_one(batch[0, 0])
    with pytest.raises(ValueError, match=r"batch of shape \(2, 3\)"):
        batch.trim()


@jax.jit
def made_while_traced(ts, xs):
    return Series(ts, xs, length=jnp.int32(2))


def test_a_series_is_made_and_taken_apart_under_transforms():
    xs = jnp.array([[1.0, NAN], [NAN, 2.0], [3.0, NAN]])
    made = made_while_traced(jnp.arange(3.0), xs)
    assert eqx.tree_equal(made, Series(jnp.arange(3.0), xs, length=2))
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), made)
    assert jax.vmap(lambda series: series.num_channels)(batch).tolist() == [2, 2]
    ones = jax.grad(lambda xs: jnp.sum(Series(jnp.arange(3.0), xs, length=2).xs))(xs)
    assert ones.tolist() == [[1, 0], [0, 1], [0, 0]]


GOOD = dict(ts=[0.0, 1.0, 2.0], xs=np.ones((3, 2)))
BATCH = np.ones((2, 3, 2))
BAD = {
    "time twice": (dict(ts=[0.0, 1.0, 1.0]), r"`ts\[2\]` \(1.0\) is not after `ts\[1\]` \(1.0\)"),
    "time falls": (
        dict(ts=[[0.0, 1.0, 2.0], [0.0, 3.0, 2.0]], xs=BATCH),
        r"`ts\[1, 2\]` \(2.0\) is not after `ts\[1, 1\]`",
    ),
    "time NaN": (dict(ts=[0.0, NAN, 2.0]), r"finite, but `ts\[1\]` is nan"),
    "time infinite": (dict(ts=[0.0, 1.0, np.inf]), r"finite, but `ts\[2\]` is inf"),
    "seconds since 1970": (dict(ts=[1.7e9, 1.7e9 + 60, 1.7e9 + 120]), "Take a start off all"),
    "dates": (dict(ts=np.array(["2020-01-01"] * 3, "M8[D]")), "Take a start off and divide"),
    "times missing": (dict(ts=[0.0, 1.0]), r"each row of `xs`, \(3,\).* got \(2,\)"),
    "times of a batch": (dict(ts=np.zeros((3, 3)), xs=BATCH), r"\(2, 3\), or \(3,\) where all"),
    "no channel axis": (dict(xs=np.ones(3)), r"write `xs\[..., None\]`"),
    "no rows": (dict(ts=[], xs=np.ones((0, 2))), "at least one row and one channel"),
    "no channels": (dict(xs=np.ones((3, 0))), "at least one row and one channel"),
    "ragged": (dict(xs=[[1.0], [1.0, 2.0], [1.0]]), "`xs` is no array of numbers"),
    "words": (dict(xs=[["a"], ["b"], ["c"]]), "`xs` must be real numbers, got <U1"),
    "complex": (dict(xs=np.ones((3, 2), complex)), "real numbers, got complex"),
    "infinite": (
        dict(xs=[[1.0, 2.0], [3.0, -np.inf], [5.0, 6.0]]),
        r"`xs\[1, 1\]` \(row 1, channel 1\) is -inf. Write NaN",
    ),
    "infinite in a batch": (
        dict(xs=np.array([BATCH[0], [[1.0, 1.0], [1.0, 1.0], [np.inf, 1.0]]])),
        r"\(row 2, channel 0 in series 1\) is inf",
    ),
    "nothing read": (dict(xs=np.full((3, 2), NAN)), "at least one reading, but there is none. "),
    "nothing read in one": (
        dict(xs=np.stack([BATCH[0], np.full((3, 2), NAN)])), "there is none in series 1"
    ),
    "only padding read": (
        dict(xs=[[NAN, NAN], [1.0, 2.0], [1.0, 2.0]], length=1), "at least one reading"
    ),
    "mask shape": (dict(mask=np.ones(3, bool)), r"shape of `xs`, \(3, 2\), got \(3,\)"),
    "mask of floats": (dict(mask=np.ones((3, 2))), "booleans, .* got float64. Write `mask > 0`"),
    "length 0": (dict(length=0), "from 1 to the 3 rows there are, but is 0"),
    "length 4": (dict(xs=BATCH, length=[3, 4]), "but is 4 in series 1"),
    "length of floats": (dict(length=2.0), "whole numbers"),
    "one length": (dict(xs=BATCH, length=3), r"shape \(2,\), one for each series"),
    "times too coarse": (
        dict(ts=np.array([65e3, 0, 0, 0, 0, 0, 0, 0], np.float16), length=1)
        | dict(xs=np.ones((8, 2), np.float16)),
        "do not reach far enough",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_series_is_one_clear_error(name, types_unchecked):
    change, message = BAD[name]
    arguments = GOOD | change
    with pytest.raises(ValueError, match=message):
        Series(**arguments)
    if name not in ("ragged", "words", "dates", "seconds since 1970"):  # what JAX cannot hold
        with pytest.raises(ValueError, match=message):
            Series(jnp.asarray(arguments["ts"]), **{
                key: value for key, value in arguments.items() if key != "ts"
            })  # fmt: skip


def test_of_traced_arrays_shapes_are_checked():
    with pytest.raises(ValueError, match="a time for each row"):
        jax.eval_shape(Series, jnp.zeros(2), jnp.zeros((3, 1)))


def test_large_times_with_large_gaps_are_taken(getkey):
    days = 1.7e9 + 86400 * np.arange(5)
    assert Series(days, np.ones((5, 1))).ts.dtype == np.float32
    many = np.sort(np.asarray(jr.uniform(getkey(), (500,))).astype(np.float64))
    many = many + 1e-9 * np.arange(500)  # off float32's grid
    Series(many, np.ones((500, 1)))
