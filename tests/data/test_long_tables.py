"""Series from tables, in other units and on grids, beside loops that do the same line by line."""

import equinox as eqx
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.close import assert_tree_close, close_to_rounding

from ndekit.data import Series, from_long, pad, standardize, to_grid

NAN = np.nan

lines = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "cy"]),
        st.integers(-3, 3),
        st.sampled_from(["pulse", "weight"]),
        st.one_of(st.just(NAN), st.integers(-100, 100).map(float)),
    ),
    max_size=30,
).map(lambda found: [*found, ("ann", 0, "weight", 5.0)])


def by_hand(table):
    """id -> time -> channel -> values."""
    found = {}
    for who, time, channel, value in table:
        if not np.isnan(value):
            row = found.setdefault(who, {}).setdefault(time, {})
            row.setdefault(channel, []).append(value)
    return found


@given(lines)
def test_a_long_table_becomes_series_with_repeats_averaged(table):
    expected = by_hand(table)
    panel = from_long(*zip(*table, strict=True), repeats="mean", names=("weight", "pulse"))
    assert panel.ids.tolist() == sorted(expected) and panel.channels == ("weight", "pulse")
    for who, series in zip(panel.ids, panel.series, strict=True):
        assert series.ts.tolist() == sorted(expected[who])
        for row, time in enumerate(sorted(expected[who])):
            for i, channel in enumerate(panel.channels):
                values = expected[who][time].get(channel)
                assert series.mask[row, i] == (values is not None)
                assert close_to_rounding(series.xs[row, i], np.float32(np.mean(values or 0)))


@given(lines)
def test_repeats_are_refused_by_line(table):
    seen = {}
    for number, (who, time, channel, value) in enumerate(table):
        if not np.isnan(value):
            seen.setdefault((who, time, channel), []).append(number)
    if all(len(numbers) == 1 for numbers in seen.values()):
        from_long(*zip(*table, strict=True))
        return
    with pytest.raises(ValueError, match="both give channel") as raised:
        from_long(*zip(*table, strict=True))
    first, second = (int(word) for word in str(raised.value).split() if word.isdigit())
    assert any({first, second} <= set(numbers) for numbers in seen.values())


def test_channels_without_names_are_sorted_and_numbers_will_do():
    panel = from_long([7, 7, 3], [1, 0, 0], [2, 0, 2], [5, 6, 7])
    assert panel.ids.tolist() == [3, 7] and panel.channels == (0, 2)
    assert panel.series[1].xs.tolist() == [[6, 0], [0, 5]]


def test_rows_of_a_panel_keep_what_belongs_together():
    panel = from_long([1, 2, 3], [0, 0, 0], ["a"] * 3, [10, 20, 30])
    panel = panel._replace(others={"age": np.array([40, 50, 60])})
    for index in ([2, 0], np.array([True, False, True])):
        some = panel.rows(index)
        assert [int(one.xs[0, 0]) for one in some.series] == (10 * some.ids).tolist()
        assert some.others["age"].tolist() == (30 + 10 * some.ids).tolist()


TABLE = dict(ids=[1, 1], times=[0.0, 1.0], channels=["a", "b"], values=[1.0, 2.0])
BAD = {
    "no one": (dict(ids=np.array(["a", None], object)), "`ids` must be all numbers or all strings"),
    "id NaN": (dict(ids=[1.0, NAN]), "`ids` must be numbers or strings, but one is NaN"),
    "channel NaN": (dict(channels=[NAN, 1.0]), "`channels` must be numbers or strings, but one"),
    "objects": (
        dict(ids=np.array(["x", "x"], object), times=[1, 1], channels=np.array(["a", "a"], object)),
        "Lines 0 and 1 both give channel 'a' of 'x' at time 1",
    ),
    "lengths": (dict(values=[1.0]), r"columns of one length, .* \(1,\)"),
    "a table": (dict.fromkeys(TABLE, np.ones((2, 2))), "columns of one length"),
    "words": (dict(values=["x", "y"]), "`values` must be numbers, got <U1"),
    "dates": (dict(times=np.array(["2020", "2021"], "M8[D]")), "must be numbers.*timedelta64"),
    "time NaN": (dict(times=[0.0, NAN]), r"`times\[1\]` is nan"),
    "infinite": (dict(values=[np.inf, 1.0]), r"`values\[0\]` is inf. Write NaN"),
    "all NaN": (dict(values=[NAN, NAN]), "at least one value that is not NaN"),
    "unknown channel": (dict(names=["a"]), r"`channels\[1\]` is 'b'. Add it"),
    "names twice": (dict(names=["a", "b", "a"]), "`names` must differ"),
    "repeats": (dict(repeats="first"), '`repeats` must be "mean" or "refuse", got \'first\''),
    "seconds": (dict(times=[1.7e9, 1.7e9 + 1]), "Take a start off|must increase"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_table_is_one_clear_error(name, types_unchecked):
    change, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        from_long(**TABLE | change)


def some_series(seed, num=5, channels=3):
    rng = np.random.default_rng(seed)
    made = []
    for length in rng.integers(1, 9, num):
        xs = rng.normal(50.0, 10.0, (length, channels))
        xs[rng.uniform(size=xs.shape) < 0.4] = NAN
        xs[0, 0] = 50.0
        made.append(Series(np.cumsum(rng.uniform(0.5, 2.0, length)) + 100.0, xs))
    return made


@given(st.integers(0, 999))
def test_standardised_training_data_have_mean_zero_and_deviation_one(seed):
    train = [*some_series(seed), Series([100.0, 101.0], [[1.0, 2.0, 3.0], [4.0, 9.0, 8.0]])]
    scaled = standardize(train)(train)
    for channel in range(3):
        values = np.concatenate([one.xs[one.mask[:, channel], channel] for one in scaled])
        assert abs(values.mean()) < 1e-5 and abs(values.std() - 1) < 1e-5
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(train, scaled, strict=True))
    assert all(np.all(one.xs[~one.mask] == 0) for one in scaled)
    times = np.concatenate([one.ts for one in scaled])
    assert times.min() == 0 and times.max() == 1


@given(st.integers(0, 999))
def test_scaling_is_undone_for_series_batches_and_predictions(seed):
    train, other = some_series(seed), pad(some_series(seed + 1))
    scaling = standardize(train)
    assert_tree_close(scaling.inverse(scaling(train)), train, rtol=1e-5, atol=1e-4)
    back = scaling.inverse(scaling(other))
    assert np.array_equal(back.mask, other.mask) and np.array_equal(back.length, other.length)
    assert_tree_close(back.xs, other.xs, rtol=1e-5, atol=1e-4)
    assert_tree_close(scaling.inverse_values(scaling.values(other.xs)), other.xs, 1e-5, 1e-4)
    one_by_one = [scaling(one).trim() for one in other]
    assert eqx.tree_equal([one.trim() for one in scaling(other)], one_by_one)


def test_scaling_works_under_jit_on_the_device():
    train = some_series(0)
    scaling, batch = standardize(train), pad(train)
    under_jit = jax.jit(lambda series: scaling(series))(batch)
    assert close_to_rounding(under_jit.clean(), scaling(batch).clean())


def test_channels_that_say_nothing_are_not_blown_up():
    xs = np.array([[0.1, NAN, 1.0], [0.1, NAN, 3.0]])
    series = [Series([5.0, 6.0], xs), Series([5.0, 6.0], xs)]
    scaling = standardize(series, times=False)
    scaled, _ = scaling(series)
    assert scaling.std[:2].tolist() == [1.0, 1.0] and np.all(np.abs(scaled.xs[:, 0]) < 1e-6)
    assert scaled.ts.tolist() == [5.0, 6.0] and scaled.xs[:, 2].tolist() == [-1.0, 1.0]


def test_a_scaling_for_other_channels_is_refused():
    with pytest.raises(ValueError, match="the 3 channels that the scaling was made for, got 1"):
        standardize(some_series(0))(Series([0.0], [[1.0]]))


@given(st.integers(0, 999), st.sampled_from(["nearest", "mean"]))
def test_a_grid_takes_what_is_nearest_to_its_points(seed, how):
    rng = np.random.default_rng(seed)
    series = some_series(seed)
    grid = np.sort(rng.uniform(98.0, 116.0, 6))
    grid[0] = 100.0 if grid[1] > 100.0 else grid[0]
    expected = []
    for one in series:
        xs = np.full((len(grid), 3), NAN)
        for channel in range(3):
            into = {}
            for row in np.flatnonzero(one.mask[:, channel]):
                time = float(one.ts[row])
                point = int(np.argmin(np.abs(grid - time)))
                ends = (grid[0] - (grid[1] - grid[0]) / 2, grid[-1] + (grid[-1] - grid[-2]) / 2)
                if ends[0] <= time < ends[1]:
                    into.setdefault(point, []).append((abs(time - grid[point]), row))
            for point, found in into.items():
                rows = [row for _, row in found]
                chosen = min(found)[1]
                xs[point, channel] = (
                    one.xs[chosen, channel] if how == "nearest" else one.xs[rows, channel].mean()
                )
        expected.append(xs)
    expected = np.stack(expected)
    if np.isnan(expected).all(axis=(1, 2)).any():
        with pytest.raises(ValueError, match="at least one reading"):
            to_grid(series, grid, how=how)
        return
    found = to_grid(series, grid, how=how)
    assert np.array_equal(found.mask, ~np.isnan(expected))
    assert close_to_rounding(found.xs, np.nan_to_num(expected).astype(np.float32))
    assert eqx.tree_equal(to_grid(pad(series), grid, how=how), found)
    assert eqx.tree_equal(to_grid(series[0], grid, how=how), found[0])


def test_ties_on_a_grid_go_as_said():
    series = Series([0.5, 0.9, 1.1, 1.5], [[1.0], [2.0], [3.0], [4.0]])
    assert to_grid(series, [0.0, 1.0, 2.0]).xs[:, 0].tolist() == [0.0, 2.0, 4.0]


@pytest.mark.parametrize("ts", [[0.0], [1.0, 1.0], [2.0, 1.0], [0.0, NAN], [[0.0, 1.0]]], ids=str)
def test_a_bad_grid_is_refused(ts):
    with pytest.raises(ValueError, match="at least two times that increase"):
        to_grid(some_series(0), ts)


def test_another_way_onto_a_grid_is_refused(types_unchecked):
    with pytest.raises(ValueError, match='`how` must be "nearest" or "mean", got \'last\''):
        to_grid(some_series(0), [0.0, 1.0], how="last")
