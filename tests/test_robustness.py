"""No field, span or tolerance makes a solve hang, lie about its end or spoil its gradient."""

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from close import assert_tree_close, close_to_rounding
from diffrax import RESULTS
from hypothesis import given
from random_fields import (
    ENDING,
    ENDINGS,
    GROWTH,
    MAX_STEPS,
    SOLVERS,
    Setting,
    cubic,
    cubic_truth,
    ending_truth,
    lane_field,
    linear_truth,
    scalar,
    solve,
)

# How many tolerances, carried to the end as the problem carries them, a solve may be off. The most
# seen in 600 examples is 6, and 10 for a gradient.
MULTIPLE = 15

DTYPES = ("float32", "float64")
# For the scalar fields: each solver and each dtype, and few programs.
PAIRS = [("Tsit5", "float32"), ("Bosh3", "float32"), ("Tsit5", "float64"), ("Dopri5", "float64")]
tightness = st.sampled_from([0.0, 0.3, 0.6, 1.0])
settings = st.builds(Setting, st.sampled_from(list(SOLVERS)), st.sampled_from(DTYPES), tightness)
scalar_settings = st.builds(lambda pair, t: Setting(*pair, t), st.sampled_from(PAIRS), tightness)
seeds = st.integers(0, 2**16)
units = st.integers(-12, 12).map(lambda power: 10.0**power)
endings = st.sampled_from(ENDINGS)
starts = st.floats(0.3, 3)


def random_cubic(seed, radius, strength=0.0, unit=1.0):
    """A start and a field whose linear part has spectral radius `radius`."""
    generator = np.random.default_rng(seed)
    a = generator.normal(size=(3, 3))
    a *= radius / np.max(np.abs(np.linalg.eigvals(a)))
    b = strength * generator.normal(size=(3, 3, 3))
    c = strength * generator.normal(size=(3, 3, 3, 3))
    return generator.normal(size=3), {"a": a, "b": b, "c": c, "rate": np.array(1 / unit)}


def without_growth(a, span):
    """`a`, shifted so that no mode grows by more than e^6 in `span`."""
    growth = np.max(np.linalg.eigvals(a).real) * span
    return a - max(growth - 6, 0) / span * np.eye(3)


def assert_exact(got, truth, spread, setting, multiple=MULTIPLE):
    assert_tree_close(got, truth, rtol=0, atol=multiple * setting.tolerance * spread)


def assert_gave_up(solved):
    """The solve failed, says why, and did not try one step for ever."""
    out_of_steps = solved.num_steps == MAX_STEPS
    reason = RESULTS.max_steps_reached if out_of_steps else RESULTS.dt_min_reached
    assert bool(solved.sol.result == reason)
    assert not out_of_steps or solved.num_accepted > MAX_STEPS / 4
    ts, ys = solved.rows
    assert np.all(np.isfinite(ys))
    assert np.all(np.isinf(solved.sol.ts[len(ts) :])) and np.all(np.isinf(solved.sol.ys[len(ts) :]))


# Random fields.


@given(
    seed=seeds, radius=st.floats(0.1, 50), angle=st.floats(0.05, 40), unit=units,
    start=st.floats(-10, 10), backward=st.booleans(), setting=settings,
)  # fmt: skip
def test_a_linear_field_is_solved_to_tolerance(seed, radius, angle, unit, start, backward, setting):
    y0, args = random_cubic(seed, radius, unit=unit)
    span = angle / radius
    sign = -1 if backward else 1
    args["a"] = sign * without_growth(args["a"], span)
    t0, t1 = setting.rounded((unit * start, unit * (start + sign * span)))
    with setting.x64:
        solved = solve(cubic, setting, t0, t1, y0, args)
    y0, args = setting.rounded((y0, args))
    truth = linear_truth(args["rate"] * args["a"], t1 - t0, y0)
    assert solved.successful
    assert float(solved.sol.ts[-1]) == t1
    assert_exact(solved.y1, truth.y1, truth.spread, setting)
    assert_exact(solved.gradient, truth.gradient, truth.spread, setting)


@given(seed=seeds, strength=st.floats(0, 1.5), span=st.floats(0.1, 4), unit=units, setting=settings)
def test_a_cubic_field_is_solved_or_said_to_end(seed, strength, span, unit, setting):
    y0, args = setting.rounded(random_cubic(seed, 1.0, strength, unit))
    truth = cubic_truth(args, span, y0)
    with setting.x64:
        solved = solve(cubic, setting, 0.0, span * unit, y0, args)
    if isinstance(truth, float):
        # The rest of the way from 1e6 to infinity takes next to no time.
        assert not solved.successful or truth > 0.99 * span
    elif truth.spread < 1e3:
        assert solved.successful
        assert_exact(solved.y1, truth.y1, truth.spread, setting)
    if solved.successful:
        assert np.all(np.isfinite(solved.gradient))
    else:
        assert_gave_up(solved)


@given(seed=seeds, power=st.floats(1, 3), setting=settings)
def test_a_first_step_that_overflows_is_made_shorter(seed, power, setting):
    # y' = -y^3 from up to 1000 wants a first step of 1e-7, and tries 0.01. Stages become infinite,
    # then the state and its error do.
    y0, args = random_cubic(seed, 1.0)
    args["a"], args["c"] = np.zeros((3, 3)), np.zeros((3, 3, 3, 3))
    args["c"][range(3), range(3), range(3), range(3)] = -1.0
    y0 = setting.rounded(10**power * (1 + 0.1 * np.tanh(y0)))
    with setting.x64:
        solved = solve(cubic, setting, 0.0, 1.0, y0, args)
    assert solved.successful
    slope = 1 / np.sqrt(1 + 2 * y0**2)
    assert_exact(solved.y1, y0 * slope, 2.0, setting)
    assert np.all(np.isfinite(solved.gradient))


@given(
    seed=seeds, start=st.floats(5e5, 4e6), power=st.floats(-1, 5), solver=st.sampled_from(list(SOLVERS)),
    tightness=tightness,
)  # fmt: skip
def test_a_late_start_in_float32_is_exact_or_gives_up(seed, start, power, solver, tightness):
    setting = Setting(solver, "float32", tightness)
    t0, t1 = setting.rounded((start, start + 10**power))
    y0, args = random_cubic(seed, 3.0, unit=max(t1 - t0, 0.1))
    args["a"] = without_growth(args["a"], 1.0)
    with setting.x64:
        solved = solve(cubic, setting, t0, t1, y0, args)
    y0, args = setting.rounded((y0, args))
    ts, ys = solved.rows
    # Where times are a 4000th of the span apart, there is always a step short enough.
    if not solved.successful:
        assert t1 - t0 < 4000 * np.spacing(np.float32(t1))
        assert_gave_up(solved)
    else:
        assert ts[-1] == t1
        assert np.all(np.isfinite(solved.gradient))
    truth = linear_truth(args["rate"] * args["a"], ts[-1] - t0, y0)
    assert_exact(ys[-1], truth.y1, truth.spread, setting)


@given(seed=seeds, radius=st.floats(20, 50))
def test_a_solve_that_runs_out_of_steps_is_exact_until_there(seed, radius):
    setting = Setting("Bosh3", "float64", 1.0)
    y0, args = random_cubic(seed, radius)
    span = 40 / radius
    args["a"] = without_growth(args["a"], span)
    with setting.x64:
        solved = solve(cubic, setting, 0.0, span, y0, args, rtol=1e-11)
    assert bool(solved.sol.result == RESULTS.max_steps_reached)
    assert_gave_up(solved)
    ts, ys = solved.rows
    assert 0 < ts[-1] < span
    truth = linear_truth(args["a"], ts[-1], y0)
    assert_tree_close(ys[-1], truth.y1, rtol=0, atol=MULTIPLE * 1e-11 * truth.spread)


# Solutions that end.


@given(name=endings, y0=starts, life=st.floats(0.01, 0.95), setting=scalar_settings)
def test_a_solution_is_exact_before_its_end(name, y0, life, setting):
    y0 = setting.rounded(y0)
    t1 = setting.rounded(life * ENDING[name].end(y0))
    with setting.x64:
        solved = solve(scalar, setting, 0.0, t1, y0, ENDINGS.index(name))
    assert solved.successful
    # Twice as much: steps grow tenfold from 0.01 until one is too long, which may be near the end.
    truth = ending_truth(name, t1, y0)
    assert_exact(solved.y1, truth.y1, truth.spread, setting, 2 * MULTIPLE)
    assert np.isfinite(solved.gradient)
    assert all(np.isfinite(cost) for cost in solved.sol.costs.values())


@given(name=endings, y0=starts, life=st.floats(1.05, 5), setting=scalar_settings)
def test_a_solution_that_ends_is_followed_to_its_end(name, y0, life, setting):
    if name == "pole":
        # At 1e-2 a pole may be stepped over: only the time knows it, and the error of that step is
        # small beside what y has become.
        setting = setting._replace(tightness=max(setting.tightness, 0.3))
    y0 = setting.rounded(y0)
    end = ENDING[name].end(y0)
    t1 = setting.rounded(life * end)
    with setting.x64:
        solved = solve(scalar, setting, 0.0, t1, y0, ENDINGS.index(name))
    assert not solved.successful
    assert_gave_up(solved)
    # An error of y moves the end of the root by its own root.
    ts, ys = solved.rows
    if solved.num_steps < MAX_STEPS:
        assert_tree_close(ts[-1] / end, np.float64(1.0), rtol=0.5 * np.sqrt(setting.rtol))
    for t, y in zip(ts[:-1], ys[:-1], strict=True):
        if t < 0.95 * end:
            truth = ending_truth(name, t, y0)
            assert_exact(y, truth.y1, truth.spread, setting, 2 * MULTIPLE)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_a_step_that_rounds_back_to_its_length_is_not_tried_for_ever(pair):
    # Close to the pole a rejected step of four units in the last place, made a tenth shorter, is
    # four units long.
    setting = Setting(*pair, 0.3)
    with setting.x64:
        solved = solve(scalar, setting, 0.0, 1.5, 1.0, ENDINGS.index("pole"), rtol=1e-3)
    assert bool(solved.sol.result == RESULTS.dt_min_reached)


@given(size=starts, life=st.floats(0.01, 2), setting=scalar_settings)
def test_growth_ends_where_the_numbers_do(size, life, setting):
    top = float(np.finfo(setting.dtype).max)
    y0 = setting.rounded(1e-6 * top * size)
    end = np.log(top / y0)
    t1 = setting.rounded(life * end)
    with setting.x64:
        solved = solve(scalar, setting, 0.0, t1, y0, GROWTH, places=(0.05, 0.1, 0.2))
    ts, ys = solved.rows
    # Inside a step there are sums some dozen times larger than the state: e^0.3*14 is enough.
    if life < 0.7:
        assert solved.successful
        assert np.isfinite(solved.gradient)
    if not solved.successful:
        assert_gave_up(solved)
        assert ts[-1] > 0.7 * end
    if life > 1.1:
        assert not solved.successful
    exact = y0 * np.exp(ts)
    assert_tree_close(ys, exact, rtol=2 * MULTIPLE * setting.tolerance * (1 + len(ts)))


# No time.


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize(
    ("name", "t0", "y0"),
    [("square", 0.0, 1.5), ("square", 1e6, 1.5), ("root", -3.0, 0.0), ("root", 0.0, -1.0)]
    + [("pole", 1.0, 0.5), ("logarithm", 1.0, 0.5), ("logarithm", 2.0, 0.5)],
)
def test_no_time_returns_the_start_whatever_the_field_says(pair, name, t0, y0):
    setting = Setting(*pair, 0.3)
    with setting.x64:
        solved = solve(scalar, setting, t0, t0, y0, ENDINGS.index(name))
    assert solved.successful and solved.num_steps == 0
    assert_tree_close(solved.rows, (np.full(4, t0), np.full(4, y0)), rtol=0)
    assert_tree_close(solved.gradient, np.float64(1.0), rtol=0)
    assert float(solved.sol.costs["error"]) == 0


# Lanes.

BAD = {
    "grows for ever": (2.0, dict(a=0.0, b=2.0, c=0.0)),
    "burns down": (1.0, dict(a=0.0, b=0.0, c=3.0)),
    "starts without a slope": (-1.0, dict(a=0.0, b=0.0, c=1.0)),
    "overflows at once": (1e30, dict(a=0.0, b=1e30, c=0.0)),
    "is not a number": (np.nan, dict(a=1.0, b=0.0, c=0.0)),
}


def solve_lanes(setting, lanes):
    y0s, args, t1s = zip(*lanes, strict=True)
    stacked = {key: np.array([a[key] for a in args]) for key in "abc"}
    with setting.x64:
        return solve(
            lane_field, setting, np.zeros(4), np.array(t1s), np.array(y0s), stacked, batched=True
        )


@given(
    rate=st.floats(-3, 3), fuel=st.floats(0.1, 0.8), bad=st.lists(st.sampled_from(list(BAD)), min_size=2, max_size=2), t1=st.floats(1, 4),
    setting=st.builds(lambda pair, t: Setting(*pair, t), st.sampled_from(PAIRS[:1] + PAIRS[3:]), tightness),
)  # fmt: skip
def test_a_bad_lane_leaves_the_good_ones_alone(rate, fuel, bad, t1, setting):
    grows = (1.5, dict(a=rate, b=0.0, c=0.0), 1.0)
    burns = (1.0, dict(a=0.0, b=0.0, c=fuel), 1.5)
    first, second = ((*BAD[name], t1) for name in bad)
    mixed = solve_lanes(setting, [grows, first, burns, second])
    alone = solve_lanes(setting, [grows, grows, burns, burns])
    good = np.array([0, 2])
    pick = lambda solved: jax.tree.map(
        lambda x: np.asarray(x)[good],
        (
            solved.sol.ts,
            solved.sol.ys,
            solved.sol.stats["num_steps"],
            solved.sol.costs,
            solved.gradient,
            solved.sol.result._value,
        ),
    )
    for a, b in zip(jax.tree.leaves(pick(mixed)), jax.tree.leaves(pick(alone)), strict=True):
        assert np.array_equal(a, b) and np.all(np.isfinite(b))
    assert alone.successful
    ok = np.asarray(mixed.sol.result == RESULTS.successful)
    assert list(ok) == [True, False, True, False]
