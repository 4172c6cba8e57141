"""Paths from readings: their values, their gaps and ends, and what they cost to look up."""

import re
from collections import Counter

import diffrax
import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.close import assert_tree_close

import ndekit as nk
from ndekit.controls.lookup import piece_at

SCHEMES = {
    "linear": nk.controls.linear,
    "hermite": nk.controls.hermite,
    "rectilinear": lambda series, **options: nk.controls.rectilinear(series, time=None, **options),
}
SMOOTH = ["linear", "hermite"]


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def readings(missing=0.0, rows=9, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    ts = np.cumsum(rng.uniform(0.1, 1.0, rows))
    xs = rng.normal(size=(rows, channels))
    return ts, np.where(rng.uniform(size=xs.shape) < missing, np.nan, xs)


def series_of(*args, **kwargs):
    return nk.data.Series(*readings(*args, **kwargs))


def spline(ts, xs, scheme):
    """diffrax's own path through readings of which none is missing."""
    ts, xs = jnp.asarray(ts), jnp.asarray(xs)
    if scheme == "linear":
        return diffrax.LinearInterpolation(ts, xs)
    return diffrax.CubicInterpolation(ts, diffrax.backward_hermite_coefficients(ts, xs))


def values_and_rates(path, ts):
    return jax.vmap(path.evaluate)(ts), jax.vmap(path.derivative)(ts)


@pytest.mark.parametrize("scheme", SMOOTH)
def test_with_nothing_missing_the_path_is_that_of_diffrax(scheme):
    ts, xs = readings()
    query = np.concatenate([ts, np.linspace(ts[0], ts[-1], 50)])
    ours = values_and_rates(SCHEMES[scheme](nk.data.Series(ts, xs)), query)
    assert_tree_close(ours, values_and_rates(spline(ts, xs, scheme), query), 1e-12, 1e-12)


@pytest.mark.parametrize("scheme", SMOOTH)
def test_each_channel_goes_through_its_own_readings_alone(scheme):
    """diffrax's own treatment of gaps is another: its Hermite path jumps inside of them."""
    ts, xs = readings(missing=0.5, rows=12, seed=1)
    path = SCHEMES[scheme](nk.data.Series(ts, xs))
    for channel in range(xs.shape[1]):
        known = ~np.isnan(xs[:, channel])
        assert 3 <= known.sum() < len(ts)
        alone = spline(ts[known], xs[known, channel : channel + 1], scheme)
        query = np.linspace(*ts[known][[0, -1]], 70)[1:-1]
        ours = [x[:, channel] for x in values_and_rates(path, query)]
        theirs = [x[:, 0] for x in values_and_rates(alone, query)]
        assert_tree_close(ours, theirs, 1e-11, 1e-12)


def test_rectilinear_goes_along_the_axes():
    ts, xs = readings()
    path = nk.controls.rectilinear(nk.controls.channels(nk.data.Series(ts, xs)))
    times, values = diffrax.rectilinear_interpolation(jnp.asarray(ts), jnp.asarray(xs))
    corners = jax.vmap(path.evaluate)(np.arange(2.0 * len(ts) - 1))
    assert_tree_close(corners, jnp.concatenate([times[:, None], values], axis=1), 1e-13, 1e-13)
    assert path.t0 == 0 and path.t1 == 2 * len(ts) - 2


def test_rectilinear_holds_each_channel_through_its_gaps():
    series = nk.data.Series(
        np.arange(4.0), np.array([[np.nan, 1.0], [2.0, np.nan], [np.nan, np.nan], [5.0, 4.0]])
    )
    path = nk.controls.rectilinear(
        nk.controls.channels(series, counts="none"), start=[9.0, -1.0, 8.0]
    )
    behind = jax.vmap(lambda t: path.evaluate(path.parameter(t)))(np.arange(4.0))
    assert_tree_close(behind[:, 1:], np.array([[-1.0, 1.0], [2.0, 1.0], [2.0, 1.0], [5.0, 4.0]]), 0)
    assert_tree_close(behind[:, 0], np.arange(4.0), 0)


def test_places_on_a_rectilinear_path_are_those_of_its_times():
    series = nk.controls.channels(series_of(missing=0.3))
    path, ts = nk.controls.rectilinear(series), np.asarray(series.ts)
    n = len(ts)
    at = jax.vmap(path.parameter)(ts)
    before = jax.vmap(lambda t: path.parameter(t, left=True))(ts)
    assert at.tolist() == [2.0 * j for j in range(n)]
    assert before.tolist() == [0.0] + [2.0 * j - 1 for j in range(1, n)]
    query = np.linspace(ts[0], ts[-1], 40)
    places = jax.vmap(path.parameter)(query)
    assert_tree_close(jax.vmap(path.evaluate)(places)[:, 0], query, 1e-13)
    assert_tree_close(jax.vmap(path.time)(places), query, 1e-13)
    assert path.parameter(ts[0] - 1) == path.t0 and path.parameter(ts[-1] + 1) == path.t1
    assert path.time(2 * n) == ts[-1] and path.time(-1) == ts[0]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_channel_begins_at_its_first_reading_or_at_start(scheme):
    ts, xs = readings()
    xs[:3, 0] = np.nan
    xs[:, 1] = np.nan
    series, make = nk.data.Series(ts, xs), SCHEMES[scheme]
    first = lambda **options: make(series, **options).evaluate(make(series).t0)
    assert_tree_close(first(start=None), jnp.array([xs[3, 0], 0.0, xs[0, 2]]), 0)
    assert_tree_close(first(start=7.0), jnp.array([7.0, 7.0, xs[0, 2]]), 0)
    assert_tree_close(first(start=[1.0, 2.0, 3.0]), jnp.array([1.0, 2.0, xs[0, 2]]), 0)
    path = make(series, start=7.0)
    values, rates = values_and_rates(path, jnp.linspace(path.t0, path.t1, 30))
    assert np.all(values[:, 1] == 7.0) and np.all(rates[:, 1] == 0.0)


@pytest.mark.parametrize("scheme", SMOOTH)
def test_a_channel_stays_at_its_last_reading(scheme):
    ts, xs = readings()
    xs[5:, 0] = np.nan
    path = SCHEMES[scheme](nk.data.Series(ts, xs))
    values, rates = values_and_rates(path, np.linspace(ts[4] + 1e-9, ts[-1] + 1, 20))
    assert np.all(values[:, 0] == xs[4, 0]) and np.all(rates[:, 0] == 0.0)


def test_a_hermite_path_has_no_corners_before_the_last_reading():
    series = series_of(missing=0.4, rows=12, seed=3)
    path, ts, mask = nk.controls.hermite(series), np.asarray(series.ts), np.asarray(series.mask)
    rates = lambda left: jax.vmap(lambda t: path.derivative(t, left=left))(ts)
    last = np.array([np.max(np.flatnonzero(column)) for column in mask.T])
    inner = (np.arange(12)[:, None] > 0) & (np.arange(12)[:, None] < last)
    assert inner.sum() > 20
    gap = np.where(inner, rates(True) - rates(False), 0)
    assert_tree_close(gap, np.zeros_like(gap), 0, 1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_path_is_one_curve_and_its_derivative_is_its_rate(scheme):
    path = SCHEMES[scheme](series_of(missing=0.4, rows=12, seed=3))
    knots = np.asarray(path.knots)
    for eps in (1e-9, -1e-9):
        values = jax.vmap(path.evaluate)(knots + eps)
        assert_tree_close(values, jax.vmap(path.evaluate)(knots), 0, 1e-6)
    middles = (knots[1:] + knots[:-1]) / 2
    rise = jax.vmap(lambda t: path.evaluate(t - 1e-5, t + 1e-5) / 2e-5)(middles)
    assert_tree_close(rise, jax.vmap(path.derivative)(middles), 1e-6, 1e-8)


@pytest.mark.parametrize("left", [True, False])
def test_a_corner_has_the_slope_of_the_side_that_is_asked_for(left):
    ts, xs = readings()
    path = nk.controls.linear(nk.data.Series(ts, xs))
    slopes = np.diff(xs, axis=0) / np.diff(ts)[:, None]
    found = jax.vmap(lambda t: path.derivative(t, left=left))(ts[1:-1])
    assert_tree_close(found, slopes[:-1] if left else slopes[1:], 1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_path_rests_behind_the_length_with_its_time(scheme):
    ts, xs = readings(missing=0.2)
    make = lambda ts, xs, n: SCHEMES[scheme](
        nk.controls.channels(nk.data.Series(ts, xs, length=n), counts="each")
    )
    more = np.concatenate([ts, ts[-1] + np.arange(1.0, 5.0)])
    padded = make(more, np.concatenate([xs, np.full((4, 3), np.nan)]), 9)
    alone = make(ts, xs, 9)
    assert padded.t1 == alone.t1 and len(padded.knots) > len(alone.knots)
    end = alone.evaluate(alone.t1, left=False)
    assert_tree_close(alone.evaluate(alone.t1), end, 1e-14)
    behind = padded.t1 + np.array([1e-6, 0.3, 1.0, 2.7, 4.0, 1e3])
    values, rates = values_and_rates(padded, behind)
    assert np.all(values == end[None]) and np.all(rates == 0.0)
    assert np.all(padded.derivative(padded.t1, left=False) == 0.0)
    assert np.any(padded.derivative(padded.t1) != 0.0)
    assert jax.vmap(padded.time)(behind).tolist() == [ts[-1]] * 6


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_single_reading_is_a_point(scheme):
    path = SCHEMES[scheme](nk.data.Series(np.array([2.0]), np.array([[1.0, np.nan]])), start=3.0)
    assert path.t0 == path.t1
    assert path.evaluate(5.0).tolist() == [1.0, 3.0] and path.derivative(5.0).tolist() == [0, 0]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradients_by_readings_and_times_are_finite_differences(scheme):
    series = series_of(missing=0.4, rows=8, seed=2)

    def number(xs, ts):
        path = SCHEMES[scheme](eqx.tree_at(lambda s: (s.xs, s.ts), series, (xs, ts)))
        query = path.t0 + (path.t1 - path.t0) * jnp.linspace(0.03, 0.98, 17)
        return sum(jnp.sum(jnp.sin(part)) for part in values_and_rates(path, query))

    xs, ts = jnp.asarray(series.xs), jnp.asarray(series.ts)
    found = jax.jit(jax.grad(number, argnums=(0, 1)))(xs, ts)
    number = jax.jit(number)
    bump = lambda like, i: jnp.zeros(like.size).at[i].set(1e-6).reshape(like.shape)
    by_xs = [number(xs + bump(xs, i), ts) - number(xs - bump(xs, i), ts) for i in range(xs.size)]
    by_ts = [number(xs, ts + bump(ts, i)) - number(xs, ts - bump(ts, i)) for i in range(ts.size)]
    slopes = jnp.array(by_xs).reshape(xs.shape) / 2e-6, jnp.array(by_ts) / 2e-6
    # A missing reading stands there as zero, and has no say.
    assert np.all(found[0][~series.mask] == 0.0)
    assert_tree_close(found, slopes, 1e-6, 1e-7)


ROWS, CHANNELS = 5, 2


@st.composite
def padded_series(draw):
    """Times, readings with gaps and a length."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    ts = np.cumsum(rng.uniform(0.05, 1.0, ROWS))
    xs = rng.normal(size=(ROWS, CHANNELS))
    length = draw(st.integers(1, ROWS))
    hidden = draw(st.lists(st.booleans(), min_size=xs.size, max_size=xs.size))
    hypothesis.assume(not all(hidden[: length * CHANNELS]))
    return ts, np.where(np.reshape(hidden, xs.shape), np.nan, xs), length


def driven(series, scheme):
    """A number to which the whole path contributes."""
    path = SCHEMES[scheme](series)
    query = path.t0 + (path.t1 - path.t0) * jnp.linspace(0.0, 1.0, 11)
    return sum(jnp.sum(jnp.sin(part)) for part in values_and_rates(path, query))


value = jax.jit(jax.value_and_grad(driven, allow_int=True), static_argnums=1)


@pytest.mark.parametrize("scheme", SCHEMES)
@hypothesis.given(given=padded_series())
def test_padding_has_no_say(scheme, given):
    ts, xs, length = given
    alone = value(nk.data.Series(ts[:length], xs[:length]), scheme)
    padded = nk.data.Series(ts, xs, length=length)
    where = lambda s: (s.ts, s.xs)
    dirty = [np.where(np.arange(ROWS) < length, ts, np.nan),
             np.where((np.arange(ROWS) < length)[:, None], np.nan_to_num(xs), np.inf)]  # fmt: skip
    assert all(np.all(np.isfinite(g)) for g in (alone[0], alone[1].xs, alone[1].ts))
    for each in (padded, eqx.tree_at(where, padded, tuple(map(jnp.asarray, dirty)))):
        number, gradient = value(each, scheme)
        assert_tree_close(number, alone[0], 1e-12, 1e-12)
        assert_tree_close(gradient.xs[:length], alone[1].xs, 1e-11, 1e-11)
        assert_tree_close(gradient.ts[:length], alone[1].ts, 1e-10, 1e-10)
        assert np.all(gradient.xs[length:] == 0.0) and np.all(gradient.ts[length:] == 0.0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_lanes_and_gradients_go_in_either_order(scheme):
    rows = [readings(missing=0.4, rows=ROWS, seed=seed) for seed in range(4)]
    batch = nk.data.Series(
        np.stack([ts for ts, _ in rows]), np.stack([xs for _, xs in rows]), length=[5, 2, 4, 1]
    )
    batch = eqx.tree_at(
        lambda s: s.xs, batch, jnp.where(batch.is_real[..., None], batch.xs, jnp.nan)
    )
    loss = lambda xs, s: driven(eqx.tree_at(lambda s: s.xs, s, xs), scheme)
    lanes = jax.vmap(jax.grad(loss))(batch.xs, batch)
    whole = jax.grad(lambda xs: jnp.sum(jax.vmap(loss)(xs, batch)))(batch.xs)
    one = [jax.grad(loss)(batch.xs[i], batch[i]) for i in range(4)]
    assert np.all(np.isfinite(lanes))
    assert_tree_close(lanes, whole, 1e-12, 1e-12)
    assert_tree_close(lanes, jnp.stack(one), 1e-12, 1e-12)


@pytest.mark.parametrize("size", [1, 2, 5, 255, 256, 257, 300, 1000, 1024])
def test_a_look_up_finds_what_a_search_finds(size):
    rng = np.random.default_rng(size)
    knots = np.cumsum(rng.uniform(0.1, 1.0, size))
    query = np.concatenate([knots, rng.uniform(knots[0] - 1, knots[-1] + 1, 200)])
    for left in (True, False):
        found = jax.jit(jax.vmap(lambda t: piece_at(knots_, t, left)))  # noqa: B023
        knots_ = jnp.asarray(knots)
        expected = np.searchsorted(knots, query, side="left" if left else "right") - 1
        assert np.array_equal(found(query), np.maximum(expected, 0))


def controlled(path, size=4):
    matrix = lambda t, y, args: jnp.tanh(y[:, None] * args)
    term = diffrax.ControlTerm(matrix, path).to_ode()
    return term, jnp.linspace(0.5, 1.0, size), jnp.ones((size, path.evaluate(path.t0).shape[0]))


def operations(solver, path):
    """How often each operation stands in the program of a solve and its gradient."""

    def end(args, path):
        term, y0, _ = controlled(path)
        if args is None:
            term, args = diffrax.ODETerm(lambda t, y, args: -y * jnp.sin(t)), jnp.ones(())
        return jnp.sum(nk.diffeqsolve(
            term, solver, path.t0, path.t1, 0.01, y0, args, max_steps=64,
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6),
        ).ys)  # fmt: skip

    def count(args):
        program = jax.jit(jax.value_and_grad(end, argnums=1, allow_int=True)).lower(args, path)
        return Counter(re.findall(r"stablehlo\.(\w+)", program.as_text().replace('"', "")))

    return count(controlled(path)[2]), count(None)


@pytest.mark.parametrize("rows", [20, 400])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_path_adds_no_loop_to_a_solve_and_no_look_up_for_each_stage(scheme, rows):
    path = SCHEMES[scheme](series_of(rows=rows))
    few, without = operations(diffrax.Tsit5(), path)
    many, _ = operations(diffrax.Dopri8(), path)
    assert few["while"] == many["while"] == without["while"]
    assert few["sort"] == 0 and few["gather"] == many["gather"] > 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_solve_along_a_path_is_that_of_diffrax(scheme):
    path = SCHEMES[scheme](series_of(missing=0.3))
    term, y0, args = controlled(path)

    def end(door, args):
        return door(
            term, diffrax.Tsit5(), path.t0, path.t1, None, y0, args,
            stepsize_controller=diffrax.StepTo(path.knots),
        ).ys  # fmt: skip

    by = lambda door: jax.value_and_grad(lambda args: jnp.sum(end(door, args)))(args)
    assert_tree_close(by(nk.diffeqsolve), by(diffrax.diffeqsolve), 1e-11, 1e-13)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_values_keep_their_dtype(scheme):
    ts, xs = readings()
    path = SCHEMES[scheme](nk.data.Series(ts.astype(np.float32), xs.astype(np.float32)))
    assert path.t1.dtype == path.evaluate(1.0).dtype == path.derivative(0.5).dtype == jnp.float32
    series = eqx.tree_at(lambda s: s.xs, nk.data.Series(ts, xs), xs.astype(np.float32))
    mixed = SCHEMES[scheme](series)
    assert mixed.t1.dtype == jnp.float64 and mixed.derivative(1.0).dtype == jnp.float32
