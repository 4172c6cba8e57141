"""Log-signatures: the identities that they obey, and what others compute."""

import functools
import itertools
import math

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.close import assert_tree_close, close_to_rounding

import ndekit as nk
from ndekit.controls import LogSignature, Windows, from_lyndon, logsignature, to_lyndon

DEPTHS = [1, 2, 3]
ROWS, CHANNELS = 9, 3


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def polygon(seed=0, rows=ROWS, channels=CHANNELS):
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.uniform(0.1, 1.0, rows)), rng.normal(size=(rows, channels))


def of(ts, xs, depth=3, windows=None, **options):
    return logsignature(nk.data.Series(ts, xs), depth, windows, **options)


def entry(stack, i):
    return jax.tree.map(lambda x: x[i], stack)


def signature(xs):
    """Iterated integrals of a polygon, from those of a line: what the logarithm is taken of."""
    d = xs.shape[1]
    one, two, three = np.zeros(d), np.zeros((d, d)), np.zeros((d, d, d))
    outer = functools.partial(np.multiply.outer)
    for x in np.diff(xs, axis=0):
        three = three + outer(two, x) + outer(one, outer(x, x)) / 2 + outer(x, outer(x, x)) / 6
        two = two + outer(one, x) + outer(x, x) / 2
        one = one + x
    return one, two, three


def logarithm(one, two, three):
    outer = np.multiply.outer
    cube = outer(one, outer(one, one))
    return (
        one,
        two - outer(one, one) / 2,
        three - (outer(one, two) + outer(two, one)) / 2 + cube / 3,
    )


def exponential(levels):
    """Signature to depth 3."""
    one, two, three = map(np.asarray, levels)
    outer = np.multiply.outer
    mixed = (outer(one, two) + outer(two, one)) / 2
    return one, two + outer(one, one) / 2, three + mixed + outer(one, outer(one, one)) / 6


# 1


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_straight_line_has_an_increment_alone(depth):
    ts, _ = polygon()
    direction = np.array([1.0, -2.0, 0.5])
    found = of(ts, ts[:, None] * direction, depth, Windows.every(3))
    assert_tree_close(found.levels[0], np.diff(ts[[0, 3, 6, 8]])[:, None] * direction, 1e-13)
    for level in found.levels[1:]:
        assert_tree_close(level, np.zeros(level.shape), 0, 1e-14)


# 2


WINDOWS = {
    "every": Windows.every(2),
    "every one": Windows.every(1),
    "short": Windows.of(0.13),
    "long": Windows.of(1.7),
    "at": Windows.at([-1.0, 0.9, 1.0, 1.01, 3.0, 9.0]),
}


@pytest.mark.parametrize("control", [nk.controls.linear, nk.controls.rectilinear])
@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_windows_compose_to_the_whole(name, depth, control):
    series = nk.controls.channels(nk.data.Series(*polygon()))
    make = functools.partial(logsignature, series, depth, control=control)
    parts, whole = make(WINDOWS[name]), make()
    composed = functools.reduce(
        LogSignature.__matmul__,
        [entry(parts, i) for i in range(len(parts.durations))],
    )
    assert len(parts.durations) > 2
    assert_tree_close(composed, whole, 1e-12, 1e-13)
    assert_tree_close(entry(parts.prefixes(), -1), whole, 1e-12, 1e-13)
    assert_tree_close(whole.durations, series.ts[-1] - series.ts[0], 1e-13)


@pytest.mark.parametrize("depth", DEPTHS)
def test_composing_is_associative_and_has_an_identity(depth):
    a, b, c = (of(*polygon(seed), depth) for seed in range(3))
    assert_tree_close((a @ b) @ c, a @ (b @ c), 1e-12, 1e-13)
    rest = LogSignature.identity(CHANNELS, depth)
    assert_tree_close(a @ rest, a, 0)
    assert_tree_close(rest @ a, a, 0)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_stream_of_segments_gives_every_beginning(depth):
    ts, xs = polygon()
    state, states = LogSignature.identity(CHANNELS, depth), []
    for dt, dx in zip(np.diff(ts), np.diff(xs, axis=0), strict=True):
        state = state @ LogSignature.segment(dx, dt, depth)
        states.append(state)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    assert_tree_close(of(ts, xs, depth, Windows.every(1)).prefixes(), stacked, 1e-12, 1e-13)
    assert_tree_close(state, of(ts, xs, depth), 1e-12, 1e-13)


def test_prefixes_begin_anew_in_each_lane():
    parts = [of(*polygon(seed), 3, Windows.every(2)) for seed in range(2)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    lanes = jax.vmap(LogSignature.prefixes)(stack)
    for i, part in enumerate(parts):
        assert_tree_close(entry(lanes, i), part.prefixes(), 1e-12, 1e-13)


# 3, 4


def test_backwards_all_levels_change_their_sign():
    ts, xs = polygon()
    there, back = of(ts, xs), of(ts, xs[::-1])
    assert_tree_close([-level for level in back.levels], list(there.levels), 1e-12, 1e-13)
    nothing = there @ back
    assert_tree_close(list(nothing.levels), [np.zeros(x.shape) for x in nothing.levels], 0, 1e-12)


def test_level_k_grows_with_the_kth_power():
    ts, xs = polygon()
    scaled = of(ts, -3.0 * xs).levels
    expected = [(-3.0) ** (k + 1) * level for k, level in enumerate(of(ts, xs).levels)]
    assert_tree_close(list(scaled), expected, 1e-12, 1e-12)


def test_neither_place_nor_pace_counts():
    ts, xs = polygon()
    moved = of(ts**3 + 5.0, xs + np.array([10.0, -20.0, 3.0]))
    assert_tree_close(list(moved.levels), list(of(ts, xs).levels), 1e-12, 1e-12)
    middles = (ts[1:] + ts[:-1]) / 2, (xs[1:] + xs[:-1]) / 2
    order = np.argsort(np.concatenate([ts, middles[0]]))
    finer = [np.concatenate(pair)[order] for pair in zip((ts, xs), middles, strict=True)]
    assert_tree_close(of(*finer), of(ts, xs), 1e-12, 1e-13)


# 5


def test_products_of_integrals_are_sums_of_shuffles():
    _, xs = polygon()
    one, two, three = exponential(of(*polygon()).levels)
    assert_tree_close((one, two, three), signature(xs), 1e-12, 1e-13)
    d = range(CHANNELS)
    for i, j, k in itertools.product(d, d, d):
        assert math.isclose(one[i] * one[j], two[i, j] + two[j, i], abs_tol=1e-12)
        shuffled = three[i, j, k] + three[j, i, k] + three[j, k, i]
        assert math.isclose(one[i] * two[j, k], shuffled, abs_tol=1e-12)


# 6


def test_the_area_of_the_unit_circle_is_pi():
    angle = np.linspace(0.0, 2 * np.pi, 4001)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = of(angle, circle)
    exact = 4000 * np.sin(2 * np.pi / 4000) / 2  # of the polygon
    assert_tree_close(found.levels[1], np.array([[0, exact], [-exact, 0]]), 1e-12, 1e-12)
    assert math.isclose(found.levels[1][0, 1], np.pi, rel_tol=1e-6)


# 7


def test_levels_are_the_logarithm_of_the_signature():
    for seed in range(3):
        ts, xs = polygon(seed, rows=40)
        assert_tree_close(of(ts, xs).levels, logarithm(*signature(xs)), 1e-11, 1e-12)
        cut = of(ts, xs, 3, Windows.every(7))
        for w, begin in enumerate(range(0, 39, 7)):
            expected = logarithm(*signature(xs[begin : begin + 8]))
            assert_tree_close([x[w] for x in cut.levels], list(expected), 1e-11, 1e-12)


QUARTERS = np.array(
    [[-1, 2, 3], [1, 1, -1], [-2, -2, -2], [2, 0, 0], [-1, -2, -2], [-2, 1, 0]]
)  # fmt: skip
# `sig_light.logsig(QUARTERS / 4, sig_light.prepare(3, 3))`, sig-light 0.2.5; RoughPy 0.3.0 gives
# the same element in a basis of its own ([2, [1, 3]] has 0.0703125 and [2, [1, 2]] 0.0950521).
BY_SIG_LIGHT = [
    -0.25, -0.25, -0.75, -0.34375, -0.5, -0.125, -0.0768229166666667, -0.109375,
    -0.0950520833333334, -0.19140625, -0.26171875, -0.1822916666666667, 0.0364583333333333,
    -0.0651041666666667,
]  # fmt: skip
BRACKETS_OF_SIG_LIGHT = (
    "1 2 3 [1,2] [1,3] [2,3] [1,[1,2]] [1,[1,3]] [[1,2],2] [1,[2,3]] [[1,3],2] [[1,3],3] "
    "[2,[2,3]] [[2,3],3]"
).split()


def test_coefficients_are_those_of_sig_light():
    found = to_lyndon(of(np.arange(6.0), QUARTERS / 4))
    assert_tree_close(found, np.array(BY_SIG_LIGHT), 1e-13, 1e-14)
    spell = lambda b: f"[{spell(b[0])},{spell(b[1])}]" if isinstance(b, tuple) else str(b + 1)
    assert list(map(spell, nk.controls.lyndon_brackets(3, 3))) == BRACKETS_OF_SIG_LIGHT


# 8


@pytest.mark.parametrize("control", [nk.controls.linear, nk.controls.rectilinear])
@pytest.mark.parametrize("name", WINDOWS)
def test_gradients_are_finite_differences(name, control):
    ts, xs = polygon()
    series = nk.controls.channels(
        nk.data.Series(ts, np.where(np.arange(27).reshape(9, 3) % 4 == 1, np.nan, xs)),
        counts="none",
    )

    @jax.jit
    def number(xs, ts):
        moved = eqx.tree_at(lambda s: (s.xs, s.ts), series, (xs, ts))
        # Windows in units of time, and their number, are given.
        windows = WINDOWS[name]
        if isinstance(windows, nk.controls.windows.EveryDuration):
            windows = Windows.of(windows.duration, num=40)
        found = logsignature(moved, 3, windows, control=control)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(found))

    xs, ts = series.xs, series.ts
    found = jax.jit(jax.grad(number, argnums=(0, 1)))(xs, ts)
    bump = lambda like, i: jnp.zeros(like.size).at[i].set(1e-6).reshape(like.shape)
    by_xs = [number(xs + bump(xs, i), ts) - number(xs - bump(xs, i), ts) for i in range(xs.size)]
    by_ts = [number(xs, ts + bump(ts, i)) - number(xs, ts - bump(ts, i)) for i in range(ts.size)]
    slopes = jnp.array(by_xs).reshape(xs.shape) / 2e-6, jnp.array(by_ts) / 2e-6
    assert_tree_close(found, slopes, 1e-5, 1e-6)


@pytest.mark.parametrize("depth", DEPTHS)
def test_gradients_are_finite_where_nothing_moves(depth):
    ts, xs = polygon()
    rest = nk.data.Series(ts, np.zeros_like(xs))

    def number(xs):
        series = eqx.tree_at(lambda s: s.xs, rest, xs)
        return sum(jnp.sum(x) for x in logsignature(series, depth, Windows.every(2)).levels)

    gradient = jax.grad(number)(jnp.zeros_like(xs))
    assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)


# 13


def test_a_single_channel_has_no_areas():
    ts, xs = polygon(channels=1)
    found = of(ts, xs, 3, Windows.every(3))
    assert_tree_close(found.levels[0][:, 0], np.diff(xs[[0, 3, 6, 8], 0]), 1e-13)
    assert all(np.all(level == 0) for level in found.levels[1:])


# Windows, padding, basis


def test_a_cut_splits_a_straight_line():
    ts, xs = np.array([0.0, 1.0, 4.0]), np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]])
    found = of(ts, xs, 2, Windows.at([0.5, 2.0, 3.0]))
    assert_tree_close(found.levels[0], np.array([[0.5, 1.0], [0.0, 1.0]]), 1e-14)
    assert_tree_close(found.levels[1][:, 0, 1], np.array([0.25, 0.0]), 1e-14, 1e-15)
    assert found.durations.tolist() == [1.5, 1.0]


def test_a_window_without_readings_holds_time_alone():
    series = nk.controls.channels(nk.data.Series([0.0, 1.0, 9.0], [[0.0], [2.0], [2.0]]))
    for control in (nk.controls.linear, nk.controls.rectilinear):
        found = logsignature(series, 3, Windows.at([3.0, 4.0, 6.5]), control=control)
        assert_tree_close(found.levels[0], np.array([[1.0, 0.0], [2.5, 0.0]]), 1e-14)
        assert all(np.all(level == 0) for level in found.levels[1:])


def test_windows_outside_of_the_series_do_nothing():
    ts, xs = polygon()
    found = of(ts, xs, 3, Windows.at([ts[0] - 3, ts[0] - 1, ts[0], ts[-1], ts[-1] + 1, ts[-1] + 2]))
    assert_tree_close(entry(found, 2), of(ts, xs), 1e-13, 1e-13)
    for w in (0, 1, 3, 4):
        assert all(np.all(leaf[w] == 0) for leaf in jax.tree.leaves(found))


def test_windows_of_equal_length_cover_the_series():
    series = nk.data.Series(np.arange(11) / 10, np.ones((11, 1)))
    edges = lambda windows: windows.edges(series).tolist()
    assert np.allclose(edges(Windows.of(0.25)), [0, 0.25, 0.5, 0.75, 1])
    assert np.allclose(edges(Windows.of(0.1)), np.arange(11) / 10, rtol=0, atol=1e-12)
    assert np.allclose(edges(Windows.of(0.3)), [0, 0.3, 0.6, 0.9, 1.2])
    assert np.allclose(edges(Windows.of(0.5, start=-0.25)), [-0.25, 0.25, 0.75, 1.25])
    assert np.allclose(edges(Windows.of(0.5, num=1)), [0, 0.5])
    assert np.allclose(edges(Windows.every(4)), [0, 0.4, 0.8, 1])
    assert np.allclose(edges(Windows.every(99)), [0, 1])
    # In float32 the last time is 1.10000002, which makes no twelfth window.
    rounded = nk.data.Series(np.array([0.0, 1.1], np.float32), np.ones((2, 1), np.float32))
    assert len(Windows.of(0.1).edges(rounded)) == 12


def test_rectilinear_readings_come_after_the_time_before_them():
    """Half of `dt dx`, a twelfth of `dt^2 dx` and of `dt dx^2` for one step; linear has none."""
    dt, dx = 0.7, -1.3
    series = nk.controls.channels(nk.data.Series([0.0, dt], [[0.0], [dx]]))
    found = to_lyndon(logsignature(series, 3, control=nk.controls.rectilinear))
    expected = [dt, dx, dt * dx / 2, dt**2 * dx / 12, dt * dx**2 / 12]
    assert_tree_close(found, np.array(expected), 1e-13)
    assert_tree_close(to_lyndon(logsignature(series, 3))[2:], np.zeros(3), 0, 1e-15)


@st.composite
def padded(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    ts, xs = np.cumsum(rng.uniform(0.05, 1.0, 5)), rng.normal(size=(5, 2))
    length = draw(st.integers(1, 5))
    hidden = draw(st.lists(st.booleans(), min_size=xs.size, max_size=xs.size))
    hypothesis.assume(not all(hidden[: 2 * length]))
    return ts, np.where(np.reshape(hidden, xs.shape), np.nan, xs), length


@functools.partial(jax.jit, static_argnums=1)
@functools.partial(jax.value_and_grad, allow_int=True)
def value(series, control):
    timed = nk.controls.channels(series, counts="each")
    windows = Windows.at([0.0, 0.5, 1.7, 2.0, 9.0]), Windows.every(2)
    found = [logsignature(timed, 3, w, control=control) for w in windows]
    return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(found))


@pytest.mark.parametrize("control", [nk.controls.linear, nk.controls.rectilinear])
@hypothesis.given(given=padded())
def test_padding_has_no_say(control, given):
    ts, xs, length = given
    alone = value(nk.data.Series(ts[:length], xs[:length]), control)
    series = nk.data.Series(ts, xs, length=length)
    real = np.arange(5) < length
    dirty = np.where(real, ts, np.nan), np.where(real[:, None], series.xs, np.nan)
    dirty = eqx.tree_at(lambda s: (s.ts, s.xs), series, tuple(map(jnp.asarray, dirty)))
    assert all(np.all(np.isfinite(g)) for g in (alone[0], alone[1].xs, alone[1].ts))
    for each in (series, dirty):
        number, gradient = value(each, control)
        assert_tree_close(number, alone[0], 1e-11, 1e-11)
        assert_tree_close(gradient.xs[:length], alone[1].xs, 1e-10, 1e-10)
        assert_tree_close(gradient.ts[:length], alone[1].ts, 1e-9, 1e-9)
        assert np.all(gradient.xs[length:] == 0) and np.all(gradient.ts[length:] == 0)


@hypothesis.given(
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.integers(-19, 89), min_size=4, max_size=4, unique=True),
)
def test_any_windows_compose_to_the_stretch_that_they_cover(seed, cuts):
    edges = np.sort([-20, *cuts, 90]) / 10
    series = nk.data.Series(*polygon(seed))
    found, whole = (stretches(series, jnp.asarray(e)) for e in (edges, edges[[0, -1]]))
    assert_tree_close(entry(found.prefixes(), -1), entry(whole, -1), 1e-11, 1e-12)


@jax.jit
def stretches(series, edges):
    return logsignature(series, 3, Windows.at(edges))


def test_a_batch_is_its_series():
    parts = [polygon(seed) for seed in range(3)]
    batch = nk.data.Series(*(np.stack(part) for part in zip(*parts, strict=True)))
    lanes = jax.jit(jax.vmap(lambda s: logsignature(s, 3, Windows.every(4))))(batch)
    for i, (ts, xs) in enumerate(parts):
        alone = of(ts, xs, 3, Windows.every(4))
        assert_tree_close(entry(lanes, i), alone, 1e-12, 1e-13)


def test_float32_is_as_exact_late_as_early():
    """Areas are those of each window: differences of sums since the beginning would drown."""
    rng = np.random.default_rng(0)
    xs = np.cumsum(rng.normal(size=(4001, 2)), axis=0)
    xs[:, 0] += 10.0 * np.arange(4001)
    ts, xs = np.arange(4001, dtype=np.float32), xs.astype(np.float32)
    exact = of(ts.astype(float), xs.astype(float), 3, Windows.every(8))
    found = of(ts, xs, 3, Windows.every(8))
    for level, expected in zip(found.levels, exact.levels, strict=True):
        assert level.dtype == jnp.float32
        late = np.max(np.abs(np.asarray(level) - np.asarray(expected))[-50:])
        assert late < 1e-5 * np.max(np.abs(expected))


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("depth", DEPTHS)
def test_the_basis_holds_all_there_is(channels, depth):
    found = of(*polygon(channels=channels), depth, Windows.every(3))
    coefficients = to_lyndon(found)
    d = channels
    sizes = [d, d * (d - 1) // 2, (d**3 - d) // 3]
    assert coefficients.shape == (3, sum(sizes[:depth]))
    back = from_lyndon(coefficients, channels, depth, found.durations)
    assert_tree_close(back, found, 1e-12, 1e-13)


@pytest.mark.parametrize("depth", DEPTHS)
def test_each_coefficient_stands_for_its_bracket(depth):
    def expanded(b):
        if not isinstance(b, tuple):
            return np.eye(4)[b]
        one, other = map(expanded, b)
        return np.multiply.outer(one, other) - np.multiply.outer(other, one)

    brackets = nk.controls.lyndon_brackets(4, depth)
    words = nk.controls.lyndon_words(4, depth)
    assert len(brackets) == len(words)
    for i, b in enumerate(brackets):
        levels = from_lyndon(np.eye(len(brackets))[i], 4, depth).levels
        length = len(words[i])
        assert np.array_equal(levels[length - 1], expanded(b))
        assert all(np.all(x == 0) for k, x in enumerate(levels, start=1) if k != length)


def test_words_are_those_before_all_their_rotations():
    words = [
        word
        for length in DEPTHS
        for word in itertools.product(range(4), repeat=length)
        if all(word < word[i:] + word[:i] for i in range(1, length))
    ]
    assert list(nk.controls.lyndon_words(4, 3)) == words


def test_a_dense_level_is_a_sum_of_nested_brackets_as_it_is():
    """The form that needs no basis: a half, and a third, of the sum over all entries."""
    _, two, three = of(*polygon()).levels
    assert close_to_rounding((two - two.T) / 2, two)
    swap = three - jnp.swapaxes(three, 0, 1)
    nested = swap - jnp.moveaxis(swap, -1, 0)
    assert close_to_rounding(nested / 3, three)
