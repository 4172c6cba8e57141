"""Events: conditions of every kind, alone and together, and the derivatives of where they end."""

import itertools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk


@pytest.fixture(autouse=True)
def float64(x64):
    pass


FINDERS = {"newton": optx.Newton(1e-12, 1e-12), "bisection": optx.Bisection(1e-12, 1e-12)}
PID = diffrax.PIDController(rtol=1e-10, atol=1e-10)


def end(k, conditions, finder=FINDERS["newton"], t0=0.0, t1=1.2, direction=None, **options):
    """y' = -k y from 10 at `t0`: where it ends, and the state there."""
    sol = nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -args * y), diffrax.Tsit5(), t0, t1, None,
        jnp.array(10.0), k, event=diffrax.Event(conditions, finder, direction), max_steps=200,
        stepsize_controller=PID, **options,
    )  # fmt: skip
    return sol.ts[-1], sol.ys[-1]


# Each with the time at which it holds, by k; infinity if never.
falls_to_three = lambda t, y, args, **around: y - 3.0
REAL = {
    "level": (falls_to_three, lambda k: np.log(10 / 3) / k),
    "time": (lambda t, y, args, **around: 0.7 - t, lambda k: 0.7),
    "speed": (
        lambda t, y, args, *, terms, **around: terms.vf(t, y, args) + 4.0,
        lambda k: np.log(10 * k / 4) / k,
    ),
    "never": (lambda t, y, args, **around: y + 1.0, lambda k: np.inf),
}
WITHOUT_SLOPE = {
    "steady": (diffrax.steady_state_event(rtol=1e-6, atol=1e-6), lambda k: np.inf),
    "never-true": (lambda t, y, args, **around: t > 5, lambda k: np.inf),
}
ALL = REAL | WITHOUT_SLOPE
PAIRS = [p for p in itertools.permutations(ALL, 2) if set(p) & set(REAL) and p[0] != p[1]]


def slope_of(time, k, h=1e-6):
    return (time(k + h) - time(k - h)) / (2 * h)


def first_of(names, k):
    return min(min(ALL[name][1](k) for name in names), 1.2)


def assert_ends_there(names, finder, k=2.9):
    conditions = tuple(ALL[name][0] for name in names)
    time = lambda k: first_of(names, k)
    state = lambda k: 10 * np.exp(-k * time(k))
    got = jax.jit(lambda k: end(k, conditions, FINDERS[finder]))
    wanted = (time(k), state(k))
    assert_tree_close(got(k), wanted, rtol=1e-6)
    slopes = jax.jit(jax.jacrev(got))(k)
    assert_tree_close(slopes, (slope_of(time, k), slope_of(state, k)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "names", slow_but(((("steady", "level"), ("time", "speed"))), PAIRS), ids="-".join
)
def test_what_ends_a_solve_has_the_derivative_of_its_own_condition_alone(names):
    # Found: a condition that was not met took part (a least-squares root), and the value of what
    # conditions close over was handed back as their derivative.
    assert_ends_there(names, "newton")


@pytest.mark.slow
def test_a_finder_that_wants_a_number_gets_one_from_several_conditions():
    assert_ends_there(("time", "level"), "bisection")


def test_one_real_condition_knows_its_level():
    # y = 0.7 - t falls to the level at 0.7 - level, or to -0.3 at the end.
    def last(level):
        event = diffrax.Event(lambda t, y, args, **around: y - args, FINDERS["newton"])
        field = diffrax.ODETerm(lambda t, y, args: -1.0)
        sol = nk.diffeqsolve(field, diffrax.Euler(), 0.0, 1.0, 0.3, 0.7, level, event=event)
        return sol.ys[-1]

    levels = jnp.array([0.5, 0.6, -2.0])
    slopes = jax.jit(jax.vmap(jax.value_and_grad(last)))(levels)
    assert_tree_close(slopes, (np.array([0.5, 0.6, -0.3]), np.array([1.0, 1.0, 0.0])), rtol=1e-9)


@jax.jit
@jax.vmap
@jax.value_and_grad
def ends_of_lanes(k):
    rests = diffrax.steady_state_event(rtol=1e-6, atol=1e-6)
    late = lambda t, y, args, **around: 1.1 - t + jnp.where(args < 0.5, 1.0, 0.0)
    return end(k, (rests, falls_to_three, late))[1]


@limits(max_examples=10)
@given(lanes=st.lists(st.sampled_from([0.0, 0.4, 0.9, 2.0, 3.5]), min_size=2, max_size=2))
def test_lanes_end_by_different_conditions(lanes):
    """By a boolean at t0 (k = 0), at a level, at a time, or not at all (k = 0.4: at t1)."""
    time = lambda k: 0.0 if k == 0 else min(np.log(10 / 3) / k, 1.1 if k >= 0.5 else 1.2)
    state = lambda k: 10 * np.exp(-k * time(k))
    ks = np.array(lanes)
    values, slopes = ends_of_lanes(jnp.asarray(ks))
    exact = [0.0 if k == 0 else slope_of(state, k) for k in ks]
    wanted = np.array([state(k) for k in ks]), np.array(exact)
    assert_tree_close((values, slopes), wanted, rtol=1e-5, atol=1e-6)


CASES = {
    "on-a-saved-time": (lambda t, y, args, **around: 0.7 - t, 0.7),
    "at-t1": (lambda t, y, args, **around: 1.2 - t, 1.2),
    "at-t0": (lambda t, y, args, **around: t >= 0.0, 0.0),
}


@pytest.mark.parametrize("name", CASES)
def test_an_event_at_an_edge_ends_there(name):
    (condition, time), k = CASES[name], 1.3

    def solve(library, k):
        return library.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -args * y), diffrax.Tsit5(), 0.0, 1.2, 0.1,
            jnp.array(10.0), k, event=diffrax.Event(condition, FINDERS["newton"]),
            saveat=diffrax.SaveAt(ts=jnp.array([0.35, 0.7]), t1=True), stepsize_controller=PID,
        )  # fmt: skip

    def last(k):
        sol = solve(nk, k)
        place = jnp.sum(jnp.isfinite(sol.ts)) - 1
        return sol.ys[place], (sol.ts[place], sol.ts)

    (value, (t, ts)), slope = jax.jit(jax.value_and_grad(last, has_aux=True))(k)
    assert_tree_close((t, value), (time, 10 * np.exp(-k * time)), rtol=1e-7, atol=1e-9)
    assert_tree_close(slope, -time * 10 * np.exp(-k * time), rtol=1e-6, atol=1e-8)
    assert_tree_close(ts, solve(diffrax, k).ts, rtol=1e-9)


@pytest.mark.parametrize("real", [False, True])
def test_of_conditions_met_in_one_step_the_first_counts(real):
    # Both are met in the step from 0.3 to 0.6: the first of the list counts, as in diffrax.
    met_at = lambda at: lambda t, y, args, **around: t - at if real else t >= at
    sol = nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -y), diffrax.Euler(), 0.0, 1.2, 0.3, jnp.array(1.0),
        event=diffrax.Event([met_at(0.5), met_at(0.4)], FINDERS["newton"]),
    )  # fmt: skip
    assert [bool(met) for met in sol.event_mask] == [True, False]
    assert_tree_close(sol.ts, np.array([0.5 if real else 0.6]), rtol=1e-9)


@pytest.mark.parametrize("direction", slow_but((False,), (False, True)))
def test_a_direction_chooses_among_crossings(direction):
    # y = cos(3 t) falls through 0 at pi / 6 and rises at pi / 2, times 3 / w by w.
    def last(w):
        field = diffrax.ODETerm(lambda t, y, args: jnp.stack([args * y[1], -args * y[0]]))
        event = diffrax.Event(lambda t, y, args, **around: y[0], FINDERS["newton"], direction)
        return nk.diffeqsolve(
            field, diffrax.Tsit5(), 0.0, 2.0, 0.1, jnp.array([1.0, 0.0]), w, event=event,
            stepsize_controller=PID,
        ).ts[-1]  # fmt: skip

    phase = 1.5 * np.pi if direction else 0.5 * np.pi
    value, slope = jax.jit(jax.value_and_grad(last))(3.0)
    assert_tree_close((value, slope), (phase / 3, -phase / 9), rtol=1e-6)


def test_conditions_are_told_the_users_time_of_a_solve_that_runs_backwards():
    seen = {}

    def at_a_third(t, y, args, *, terms, t0, t1, dt0, saveat, **around):
        seen.update(terms=type(terms), saveat=saveat)
        jax.debug.callback(lambda *ends: seen.update(ends=ends), t0, t1, dt0)
        return t - 1 / 3

    quiet = lambda t, y, args, *, t0, **around: t - t0 / 3
    field = diffrax.ODETerm(lambda t, y, args: jnp.asarray(2.0) * t)
    solve = lambda condition, **options: nk.diffeqsolve(
        field, diffrax.Tsit5(), 1.0, 0.0, -0.1, jnp.array(1.0), stepsize_controller=PID,
        event=diffrax.Event(condition, FINDERS["newton"]), **options,
    )  # fmt: skip
    for sol in (
        solve(quiet), solve(at_a_third), solve(quiet, adjoint=diffrax.RecursiveCheckpointAdjoint())
    ):  # fmt: skip
        assert_tree_close((sol.ts[-1], sol.ys[-1]), (1 / 3, 1 / 9), rtol=1e-9)
    jax.effects_barrier()
    assert seen["terms"] is diffrax.ODETerm
    assert_tree_close(seen["ends"], (1.0, 0.0, -0.1), rtol=1e-12)
