"""Laws that hold for any linear field, span and tolerance that hypothesis can think of."""

import functools

import diffrax
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from diffrax import RESULTS
from hypothesis import given
from support.close import assert_tree_close, close_to_solver
from support.problems import SOLVERS

import ndekit as nk

COSTS = {"count": nk.StepCount(), "rho": nk.EveryStep(nk.StepStiffness(), "max")}
seeds = st.integers(0, 2**16)


def matrix(seed, size):
    """Mostly a rotation, with a little growth and decay: errors neither explode nor die out."""
    generator = np.random.default_rng(seed)
    a = generator.normal(size=(size, size))
    return a - a.T + 0.2 * generator.normal(size=(size, size)), generator.normal(size=size) + 0.1


def linear_field(t, y, a):
    return a @ y


@functools.cache
def solver_of(size, dtype, num_ts):
    """One compiled solve for each size; spans, tolerances and times are arguments."""

    @jax.jit
    def run(t0, t1, y0, a, rtol, ts):
        return nk.diffeqsolve(
            diffrax.ODETerm(linear_field), SOLVERS["Tsit5"], t0, t1, None, y0, a,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol), throw=False,
            saveat=diffrax.SaveAt(t1=True, ts=ts), costs=COSTS, max_steps=4096,
        )  # fmt: skip

    def typed(*values):
        return run(*[jnp.asarray(v, dtype) for v in values])

    return typed


def assert_never_nan(sol):
    for leaf in (sol.ys, *sol.costs.values()):
        assert not np.any(np.isnan(leaf))


@given(
    seed=seeds, size=st.integers(1, 4), power=st.floats(-9, -2), span=st.floats(0.01, 6),
    start=st.floats(-10, 10), backward=st.booleans(),
)  # fmt: skip
def test_a_linear_field_is_solved_to_tolerance(seed, size, power, span, start, backward):
    with jax.enable_x64(True):
        a, y0 = matrix(seed, size)
        rtol, signed = 10**power, -span if backward else span
        t1 = start + signed
        ts = start + signed * np.array([0.2, 0.5, 0.9])
        sol = solver_of(size, jnp.float64, 3)(start, t1, y0, a, rtol, ts)
        assert bool(sol.result == RESULTS.successful)
        truth = np.stack([scipy.linalg.expm(a * (t - start)) @ y0 for t in (*ts, t1)])
        assert float(sol.ts[-1]) == t1
        assert close_to_solver(np.asarray(sol.ys), truth, rtol)


@given(seed=seeds, power=st.integers(-12, 12), single=st.booleans())
def test_the_unit_of_time_does_not_matter(seed, power, single):
    with jax.enable_x64(not single):
        a, y0 = matrix(seed, 2)
        unit = 10.0**power
        dtype = jnp.float32 if single else jnp.float64
        ts = unit * np.array([0.3, 0.6, 0.8])
        sol = solver_of(2, dtype, 3)(0.0, unit, y0, a / unit, 1e-3, ts)
        assert bool(sol.result == RESULTS.successful)
        assert_never_nan(sol)
        assert close_to_solver(np.asarray(sol.ys[-1]), scipy.linalg.expm(a) @ y0, 1e-3)


@given(seed=seeds, start=st.floats(5e5, 4e6), span=st.floats(1e-3, 200), power=st.floats(-6, -2))
def test_a_late_start_in_float32_ends(seed, start, span, power):
    # Times are a quarter apart there, at worst: the tolerance may be out of reach, but the loop
    # ends and says so.
    a, y0 = matrix(seed, 2)
    t0, t1 = np.float32(start), np.float32(start + span)
    ts = np.linspace(t0, t1, 3, dtype=np.float32)
    sol = solver_of(2, jnp.float32, 3)(t0, t1, y0, a / span, 10**power, ts)
    assert_never_nan(sol)
    if bool(sol.result == RESULTS.successful):
        assert float(sol.ts[-1]) == t1
        truth = scipy.linalg.expm(a * float(t1 - t0) / span) @ y0
        assert close_to_solver(np.asarray(sol.ys[-1]), truth, max(10**power, 1e-5))
    else:
        assert bool(sol.result == RESULTS.dt_min_reached)


@given(seed=seeds, ulps=st.integers(1, 300), start=st.sampled_from([0.0, 1.0, 600.0, 1e6, -37.5]))
def test_a_span_of_a_few_units_in_the_last_place_ends(seed, ulps, start):
    # Where diffrax 0.7 can loop for ever: natural steps shorter than 100 units in the last place of
    # t1.
    a, y0 = matrix(seed, 2)
    t0 = np.float32(start)
    unit = np.spacing(np.float32(max(abs(start), 1.0)))
    t1 = np.float32(t0 + ulps * unit)
    ts = np.array([t0, t0, t1], np.float32)
    sol = solver_of(2, jnp.float32, 3)(t0, t1, y0, a / float(t1 - t0), 1e-2, ts)
    assert_never_nan(sol)
    if bool(sol.result == RESULTS.successful):
        assert float(sol.ts[-1]) == t1


@given(
    seed=seeds, places=st.lists(st.floats(0, 1, allow_subnormal=False), min_size=12, max_size=12)
)
def test_any_sorted_times_have_the_values_of_the_solution(seed, places):
    with jax.enable_x64(True):
        a, y0 = matrix(seed, 3)
        ts = 2 * np.sort(places)
        sol = solver_of(3, jnp.float64, 12)(0.0, 2.0, y0, a, 1e-6, ts)
        truth = np.stack([scipy.linalg.expm(a * t) @ y0 for t in (*ts, 2.0)])
        assert_tree_close(sol.ts, np.array([*ts, 2.0]), rtol=0)
        assert close_to_solver(np.asarray(sol.ys), truth, 1e-6)


@given(number=st.integers(1, 9), stop=st.floats(0.05, 1))
def test_few_times_have_the_values_of_the_solution(number, stop):
    # Blocks of saved values are shorter than usual here.
    with jax.enable_x64(True):
        a, y0 = matrix(5, 2)
        ts = np.linspace(0.01, 2 * stop, number)
        sol = solver_of(2, jnp.float64, number)(0.0, 2.0, y0, a, 1e-6, ts)
        truth = np.stack([scipy.linalg.expm(a * t) @ y0 for t in (*ts, 2.0)])
        assert close_to_solver(np.asarray(sol.ys), truth, 1e-6)


# No time at all.


def rest(t0, t1, y0, a, ts):
    sol = nk.diffeqsolve(
        diffrax.ODETerm(linear_field), SOLVERS["Tsit5"], t0, t1, None, y0, a, costs=COSTS,
        saveat=diffrax.SaveAt(t0=True, t1=True, ts=ts),
        stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3),
    )  # fmt: skip
    return sol.ys, sol.costs, sol.stats["num_steps"]


@pytest.mark.parametrize("t0", [0.0, -3.5, 1e6])
def test_a_solve_over_no_time_returns_its_start(t0):
    a, y0 = matrix(1, 2)
    y0, a = jnp.asarray(y0, jnp.float32), jnp.asarray(a, jnp.float32)
    t = jnp.asarray(t0)
    ys, costs, steps = jax.jit(rest)(t, t, y0, a, jnp.full(3, t))
    assert int(steps) == 0
    assert_tree_close(ys, np.tile(np.asarray(y0), (5, 1)), rtol=0)
    assert {float(cost) for cost in costs.values()} == {0.0}


def test_the_gradient_of_no_time_is_the_identity():
    a, y0 = matrix(1, 2)
    y0, a = jnp.asarray(y0, jnp.float32), jnp.asarray(a, jnp.float32)
    weights = np.arange(1.0, 11).reshape(5, 2).astype(np.float32)

    def total(y0, a, t0, t1, ts):
        ys, costs, _ = rest(t0, t1, y0, a, ts)
        return jnp.sum(weights * ys) + sum(costs.values())

    t = jnp.asarray(2.0)
    d_y0, d_a, *d_times = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3, 4)))(
        y0, a, t, t, jnp.full(3, t)
    )
    assert_tree_close(d_y0, weights.sum(0), rtol=1e-6)
    assert_tree_close(d_a, np.zeros((2, 2)), rtol=0)
    assert all(np.all(np.isfinite(d)) for d in d_times)


def test_a_lane_over_no_time_leaves_the_others_alone():
    a, y0 = matrix(1, 2)
    y0, a = jnp.asarray(y0, jnp.float32), jnp.asarray(a, jnp.float32)

    def end(y0, t1):
        ys, costs, _ = rest(0.0, t1, y0, a, t1 * jnp.linspace(0, 1, 4))
        return jnp.sum(ys[-1]) + costs["count"]

    gradient = jax.jit(jax.vmap(jax.grad(end), in_axes=(None, 0)))
    together = gradient(y0, jnp.array([0.0, 1.0]))
    assert_tree_close(together[0], np.ones(2), rtol=0)
    # With lanes as well: of errors as small as these, float32 knows two digits.
    assert_tree_close(together[1], gradient(y0, jnp.ones(2))[1], rtol=1e-6)


def test_a_first_step_beyond_the_end_goes_to_the_end(x64):
    # One step of Euler's method: y0 (1 - 1 / 2).
    sol = nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -y / 2), diffrax.Euler(), 0.0, 1.0, 3.0, jnp.array(4.0)
    )
    assert (sol.ys[0], sol.ts[0], sol.stats["num_steps"]) == (2.0, 1.0, 1)


def test_several_terms_see_the_times_of_their_stages(x64):
    # y' = cos t + 3 t^2 from 0: sin t + t^3.
    both = diffrax.MultiTerm(
        diffrax.ODETerm(lambda t, y, args: jnp.cos(t) * jnp.ones_like(y)),
        diffrax.ODETerm(lambda t, y, args: 3 * t**2 * jnp.ones_like(y)),
    )
    sol = nk.diffeqsolve(both, diffrax.Tsit5(), 0.0, 1.0, 0.1, jnp.zeros(2))
    assert_tree_close(sol.ys[0], jnp.full(2, np.sin(1) + 1), rtol=1e-8)
