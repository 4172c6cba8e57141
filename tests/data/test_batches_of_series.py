"""Series padded, in buckets, thinned and split: nothing is lost, nothing is mixed up."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndekit.data import Series, buckets, drop_rows, pad, split
from ndekit.data.buckets import bucket_lengths
from ndekit.train import fit


def series_of(length, mark=0.0, channels=2):
    """A series that can be told from others by `mark` and by its own numbers."""
    rng = np.random.default_rng([length, int(mark * 1000) & 0xFFFF])
    xs = rng.normal(size=(length, channels))
    xs[rng.uniform(size=xs.shape) < 0.3] = np.nan
    xs[0] = mark
    return Series(np.cumsum(rng.uniform(0.1, 2.0, length)), xs)


lengths_of_some = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def some_series(lengths):
    return [series_of(length, i) for i, length in enumerate(lengths)]


@given(lengths_of_some, st.integers(0, 3))
def test_a_padded_batch_holds_each_series_as_it_was(lengths, more):
    series = some_series(lengths)
    longest = max(len(one.ts) for one in series)
    batch = pad(series, to=longest + more)
    assert batch.xs.shape == (len(series), longest + more, 2)
    assert eqx.tree_equal([one.trim() for one in batch], series)
    assert eqx.tree_equal(pad(batch), pad(series))  # padding is taken off first


@given(lengths_of_some, st.integers(0, 2**31))
def test_an_epoch_of_buckets_sees_each_series_once(lengths, seed):
    series = some_series(lengths)
    size = max(1, len(series) // 3)
    marks = np.arange(len(series))
    batches = buckets(series, marks, batch_size=size, key=jr.key(seed))
    seen = []
    for step in range(batches.num_per_epoch):
        batch, here = batches(step)
        assert batch.ts.shape[1] in batches.lengths
        assert [int(one.xs[0, 0]) for one in batch] == here.tolist()  # labels go along
        assert eqx.tree_equal([one.trim() for one in batch], [series[i] for i in here])
        seen += here.tolist()
    assert len(set(seen)) == len(seen) == len(series) // size * size


def test_what_is_left_over_comes_from_any_bucket():
    series = [series_of(length) for length in (3, 3, 3, 30, 30, 30, 30)]
    batches = buckets(series, np.arange(7), batch_size=3, key=jr.key(0))
    seen = [set(np.concatenate([batches(2 * epoch + i)[1] for i in (0, 1)])) for epoch in range(40)]
    assert all(len(one) == 6 for one in seen)
    assert set.union(*({*range(7)} - one for one in seen)) == set(range(7))


def test_buckets_depend_on_key_and_step_alone():
    series = [series_of(length) for length in range(1, 41)]
    make = lambda key: buckets(series, batch_size=4, key=key, in_a_row=2)
    batches, again, other = make(jr.key(1)), make(jr.key(1)), make(jr.key(2))
    steps = [0, 13, 2, 100, 2, 13]
    ahead = {step: batches(step) for step in steps}
    assert all(eqx.tree_equal(again(step), ahead[step]) for step in reversed(steps))
    assert not any(eqx.tree_equal(other(step), ahead[step]) for step in steps)
    assert not eqx.tree_equal(batches(0), batches(batches.num_per_epoch))


def test_batches_are_mostly_of_similar_length():
    series = [series_of(length) for length in range(1, 129) for _ in range(8)]
    batches = buckets(series, batch_size=8, key=jr.key(0))
    assert batches.lengths == (1, 2, 4, 8, 16, 32, 64, 128)
    epoch = [batches(step) for step in range(batches.num_per_epoch)]
    real = sum(int(batch.length.sum()) for batch in epoch)
    assert real / sum(batch.ts.size for batch in epoch) > 0.7
    lengths = [batch.ts.shape[1] for batch in epoch]
    assert lengths != sorted(lengths)  # the short ones do not all come first


@given(st.lists(st.integers(1, 1000), min_size=1))
def test_a_bucket_is_the_power_of_two_that_holds_a_length(lengths):
    found = bucket_lengths(np.array(lengths))
    for length, bucket in zip(lengths, found, strict=True):
        power = 1
        while power < length:
            power *= 2
        assert bucket == min(power, max(lengths))


def test_batches_in_a_row_have_one_length():
    series = [series_of(length) for length in range(1, 61)]
    batches = buckets(series, batch_size=3, key=jr.key(0), in_a_row=4)
    assert batches.num_per_epoch == 20
    for step in range(0, 40, 4):
        assert len({batches(step + i).ts.shape[1] for i in range(4)}) == 1


def test_a_model_trains_on_buckets_with_several_updates_per_call(tmp_path):
    """And one that is resumed ends where one that was not ends."""
    series = [series_of(length, mark=length % 3) for length in range(1, 31)]
    labels = np.array([float(length % 3) for length in range(1, 31)], np.float32)

    def loss_fn(weight, batch, step, *, key):
        given, label = batch
        first = given.clean().xs[:, 0, 0]
        return jnp.mean((weight * first - label) ** 2), {}

    def run(num_updates, folder):
        batches = buckets(series, labels, batch_size=5, key=jr.key(3), in_a_row=2)
        return fit(
            jnp.zeros(()), loss_fn, batches, optimizer=optax.sgd(0.1), num_updates=num_updates,
            key=jr.key(0), updates_per_call=2, checkpoint_dir=folder, progress=False,
        )  # fmt: skip

    run(10, tmp_path / "stopped")
    resumed, whole = run(16, tmp_path / "stopped"), run(16, tmp_path / "whole")
    assert resumed.model == whole.model and abs(whole.model - 1) < 0.1


@given(lengths_of_some, st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.95]), st.integers(0, 99))
def test_a_share_of_the_rows_is_dropped_and_the_rest_is_as_it_was(lengths, share, seed):
    given_series = some_series(lengths)
    series = [Series(one.ts, np.where(one.mask, one.xs, 7.0)) for one in given_series]
    thinned = drop_rows(series, share, key=jr.key(seed))
    for one, rest in zip(series, thinned, strict=True):
        length = len(one.ts)
        assert rest.length == length - int(np.floor(share * length + 1e-6)) == len(rest.ts)
        rows = np.searchsorted(one.ts, rest.ts)
        assert np.array_equal(one.ts[rows], rest.ts) and np.array_equal(one.xs[rows], rest.xs)
    batch = drop_rows(pad(series), share, key=jr.key(seed))
    assert eqx.tree_equal([one.trim() for one in batch], thinned)


def test_each_row_is_dropped_as_often():
    batch = Series(np.arange(10.0), np.ones((4000, 10, 1)))
    thinned = drop_rows(batch, 0.7, key=jr.key(0))
    found = np.bincount(thinned.ts.astype(int).ravel(), minlength=10)
    assert found.sum() == 12000
    assert np.all(np.abs(found - 1200) < 5 * np.sqrt(1200 * 0.7))


@given(
    st.lists(st.integers(0, 30), min_size=40, max_size=200),
    st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.5), (1.0,)]),
    st.integers(0, 99),
)
def test_no_individual_is_in_two_parts(ids, fractions, seed):
    ids = np.array([*ids, *range(10)])
    parts = split(ids, fractions, key=jr.key(seed))
    assert sorted(np.concatenate(parts)) == list(range(len(ids)))
    people = [set(ids[part]) for part in parts]
    num = len(set(ids))
    assert sum(map(len, people)) == num
    assert all(abs(len(p) - f * num) <= 1 for p, f in zip(people, fractions, strict=True))


def test_a_split_depends_on_its_key():
    first, second = (split(range(100), (0.5, 0.5), key=jr.key(i))[0] for i in (0, 1))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, split(range(100), (0.5, 0.5), key=jr.key(0))[0])
    raw = split(range(100), (0.5, 0.5), key=jr.PRNGKey(0))[0]  # a key of the old kind
    assert np.array_equal(first, raw)


ONE, WIDE = series_of(3), series_of(3, channels=4)
HALF = Series(np.arange(3.0, dtype=np.float16), np.ones((3, 2), np.float16))
BATCH = pad([ONE, ONE])
DEEP = jax.tree.map(lambda leaf: leaf[None], BATCH)
KEY = dict(key=jr.key(0))
BAD = {
    "pad nothing": (lambda: pad([]), "at least one series, got none"),
    "pad channels": (lambda: pad([ONE, WIDE]), r"`series\[1\]` has 4 of float32"),
    "pad dtypes": (lambda: pad([ONE, HALF]), r"`series\[1\]` has 2 of float16"),
    "pad batches": (lambda: pad([ONE, BATCH]), r"`series\[1\]` is a batch of shape \(2,\)"),
    "pad a single one": (lambda: pad(ONE), r"leading axes \(\)"),
    "pad deep": (lambda: pad(DEEP), r"leading axes \(1, 2\)"),
    "pad arrays": (lambda: pad([np.ones(3)]), r"single series, but `series\[0\]` is array"),
    "pad short": (lambda: pad([ONE, series_of(5)], to=4), "got 4; series 1 has 5"),
    "pad half": (lambda: pad([ONE], to=3.5), "`to` must be a whole number"),
    "labels": (
        lambda: buckets([ONE, ONE], {"y": np.ones(3)}, batch_size=1, **KEY),
        r"`others\['y'\]` must have a row for each of the 2 series, got the shape \(3,\)",
    ),
    "bucket size": (
        lambda: buckets([ONE] * 5, batch_size=3, in_a_row=2, **KEY), "the 5 series .* got 3 [*] 2"
    ),
    "no bucket size": (lambda: buckets([ONE], batch_size=0, **KEY), "`batch_size` must be at"),
    "step": (lambda: buckets([ONE], batch_size=1, **KEY)(-1), "`step` must be at least 0"),
    "share": (lambda: drop_rows(ONE, 1.0, **KEY), "`share` must be at least 0 and below 1"),
    "nothing left": (
        lambda: drop_rows(
            Series(np.arange(50.0), np.r_[1.0, np.full(49, np.nan)][:, None]), 0.9, key=jr.key(1)
        ),
        "at least one reading",
    ),
    "fractions": (lambda: split(range(9), (0.5, 0.6), **KEY), "the sum 1, got 1.1"),
    "no fraction": (lambda: split(range(9), (1.0, 0.0), **KEY), r"`fractions\[1\]` must be pos"),
    "few": (lambda: split([1, 1, 1, 2], (0.5, 0.25, 0.25), **KEY), "individuals enough .* got 2"),
    "by a table": (lambda: split(np.ones((3, 2)), (1.0,), **KEY), "one individual for each row"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name, types_unchecked):
    act, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        act()
