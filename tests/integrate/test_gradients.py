"""Gradients of the engine: those of the solve on the times that it recorded."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.close import assert_tree_close
from support.problems import SOLVERS
from support.replays import (
    INPUTS,
    WIDTH,
    Case,
    along_direction,
    by_diffrax,
    by_engine,
    finite_difference,
    gradients,
    names_of,
    recorded_grid,
)

import ndekit as nk

# Tolerances and first steps such that the error of no step is small: at a small error e the
# derivative of e^(1/q) is large, and finite differences and rounding with it.
FAST = [
    Case("Tsit5", "lotka_volterra", rtol=1e-4, first=0.3),
    Case("Heun", "backward", first=0.2),
    Case("Bosh3", "tree", first=0.275),
]
SLOW = [
    Case("Tsit5", "lorenz", rtol=1e-4, first=0.2),
    Case("Tsit5", "tree", rtol=1e-4, first=0.15),
    Case("Dopri5", "van_der_pol", rtol=1e-3 / 3, first=0.4),
    Case("Ralston", "non_autonomous", rtol=1e-2 / 3, first=0.2),
    Case("Midpoint", "backward", first=0.2),
    Case("Dopri8", "lorenz", rtol=1e-6, first=0.2, number=128),
    Case("Tsit5", "mlp", rtol=1e-6, first=0.25),
]
CASES = [pytest.param(case, id=f"{case.solver_name}-{case.problem_name}") for case in FAST] + [
    pytest.param(case, id=f"{case.solver_name}-{case.problem_name}", marks=pytest.mark.slow)
    for case in SLOW
]

# What takes long to compile.
FIRST_ALONE = CASES[:1] + [
    pytest.param(*c.values, id=c.id, marks=pytest.mark.slow) for c in CASES[1:]
]


def rounding(case):
    """How far two orders of summation may lie apart: errors are divided by the tolerance."""
    tolerance = max(1e-9, 1e-13 / case.rtol)
    return dict(rtol=tolerance, atol=tolerance)


@pytest.fixture(autouse=True)
def float64(x64):
    pass


@functools.cache
def engine_gradients(case, close_over=False):
    number = len(names_of(case))
    return gradients(lambda x: by_engine(case, x, close_over=close_over), case.inputs, number)


@functools.cache
def replayed(case):
    grid = recorded_grid(case)
    assert len(grid) > 5
    return jax.jit(lambda inputs: by_diffrax(case, inputs, grid=grid))


@functools.cache
def diffrax_gradients(case, adjoint, on_grid):
    grid = recorded_grid(case) if on_grid else None
    function = lambda inputs: by_diffrax(case, inputs, adjoint, grid)
    return gradients(function, case.inputs, len(names_of(case)))


@pytest.mark.parametrize("case", FIRST_ALONE)
def test_values_are_those_of_the_replay(case):
    ours = jax.jit(lambda inputs: by_engine(case, inputs))(case.inputs)
    assert_tree_close(ours, replayed(case)(case.inputs), **rounding(case))


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("case", CASES)
def test_gradient_is_the_finite_difference_of_the_replay(case, name):
    truth = finite_difference(replayed(case), case.inputs, name)
    ours = along_direction(engine_gradients(case)[name], case.inputs[name])
    # Entry by entry: the saved values, then every cost in every reduction.
    ours, truth = [dict(zip(names_of(case), x, strict=True)) for x in (ours, truth)]
    assert abs(float(truth["ys"])) > 1e-4
    # An error estimate has the rounding of the state over the tolerance, a difference that over
    # its width: beyond 1e-6 at the tightest tolerances, where the recorder is the judge.
    noise = 1e-15 / (case.rtol * WIDTH)
    allowed = dict(rtol=1e-6, atol=1e-9) if noise < 1e-6 else dict(rtol=noise, atol=noise)
    assert_tree_close(ours, truth, **allowed)


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("case", FIRST_ALONE)
def test_gradient_is_the_recorders_on_the_same_grid(case, name):
    truth = diffrax_gradients(case, diffrax.RecursiveCheckpointAdjoint(), on_grid=True)
    assert_tree_close(engine_gradients(case)[name], truth[name], **rounding(case))


@pytest.mark.parametrize("name", ["args", "t1", "ts"])
@pytest.mark.parametrize(
    "adjoint",
    [
        pytest.param(diffrax.RecursiveCheckpointAdjoint(), id="recursive"),
        pytest.param(diffrax.DirectAdjoint(), id="direct", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("case", CASES[:1])
def test_gradient_is_the_recorders_in_an_adaptive_solve(case, adjoint, name):
    # Not for t0: diffrax moves its whole grid with t0, the engine its first step alone.
    truth = diffrax_gradients(case, adjoint, on_grid=False)
    assert_tree_close(engine_gradients(case)[name], truth[name], **rounding(case))


@pytest.mark.slow
@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("case", CASES[1:3])
def test_gradient_is_that_of_direct_differentiation(case, name):
    truth = diffrax_gradients(case, diffrax.DirectAdjoint(), on_grid=True)
    assert_tree_close(engine_gradients(case)[name], truth[name], **rounding(case))


@pytest.mark.parametrize("case", CASES[:1])
def test_closed_over_parameters_have_the_gradient_of_args(case):
    ours = engine_gradients(case, close_over=True)
    truth = diffrax_gradients(case, diffrax.RecursiveCheckpointAdjoint(), on_grid=True)
    assert_tree_close(ours["args"], truth["args"], **rounding(case))


def fixed_step_end(t0, y0, rate, solver, steps, adjoint):
    sol = nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -rate * y), solver, t0, 2.0, (2.0 - t0) / steps, y0,
        adjoint=adjoint, max_steps=4096,
    )  # fmt: skip
    return sol.ys[0]


@pytest.mark.parametrize("name", ["Euler", "Tsit5"])
def test_gradient_of_fixed_steps_is_the_closed_form(name):
    # One step multiplies by the scheme's stability polynomial: 1 + z for Euler, e^z to rounding for
    # Tsit5.
    steps, h, rate = 16, 2.0 / 16, 0.3
    end = lambda y0, rate: fixed_step_end(0.0, y0, rate, SOLVERS[name], steps, nk.ReplayAdjoint())
    d_y0, d_rate = jax.grad(end, argnums=(0, 1))(jnp.asarray(1.5), jnp.asarray(rate))
    factor = 1 - h * rate if name == "Euler" else np.exp(-h * rate)
    slope = -h if name == "Euler" else -h * factor
    tolerance = 1e-12 if name == "Euler" else 1e-7
    assert_tree_close(d_y0, factor**steps, rtol=tolerance)
    assert_tree_close(d_rate, 1.5 * steps * factor ** (steps - 1) * slope, rtol=tolerance)


def test_t0_is_seen_by_the_first_step_alone():
    # y' = 1: y(t1) = y0 + t1 - t0 on any grid; y' = t with Euler: the first step gives h_0 t_0.
    def end(t0):
        return nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: t * jnp.ones_like(y)), diffrax.Euler(), t0, 1.0,
            0.25, jnp.zeros(()),
        ).ys[0]  # fmt: skip

    # d/dt0 of (t_1 - t0) t0 with t_1 = 0.25 held fixed, at t0 = 0.
    assert_tree_close(jax.grad(end)(0.0), 0.25, rtol=1e-12)


def test_t1_is_seen_by_the_last_step_alone():
    def end(t1):
        return nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: t * jnp.ones_like(y)), diffrax.Euler(), 0.0, t1,
            0.25, jnp.zeros(()),
        ).ys[0]  # fmt: skip

    # d/dt1 of (t1 - t_3) t_3 with t_3 = 0.75 held fixed.
    assert_tree_close(jax.grad(end)(1.0), 0.75, rtol=1e-12)


def test_saved_times_themselves_have_unit_derivative():
    def times(t0, t1, ts):
        return nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), SOLVERS["Tsit5"], t0, t1, 0.1, jnp.ones(1),
            saveat=diffrax.SaveAt(t0=True, t1=True, ts=ts),
        ).ts  # fmt: skip

    ts = jnp.array([0.2, 0.5])
    d_t0, d_t1, d_ts = jax.jacrev(times, argnums=(0, 1, 2))(0.0, 1.0, ts)
    assert_tree_close(d_t0, np.array([1.0, 0, 0, 0]), rtol=0)
    assert_tree_close(d_t1, np.array([0, 0, 0, 1.0]), rtol=0)
    assert_tree_close(d_ts, np.eye(4)[:, 1:3], rtol=0)


@pytest.mark.parametrize("place", ["t0", "t1"])
def test_a_value_saved_at_an_end_has_its_gradient(place):
    # y' = -y from 1: at ts = t0 the value is y0, at ts = t1 it is y(t1).
    def value(y0):
        ts = jnp.array([0.0 if place == "t0" else 1.0])
        return nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), SOLVERS["Tsit5"], 0.0, 1.0, 0.05, y0,
            saveat=diffrax.SaveAt(ts=ts),
        ).ys[0]  # fmt: skip

    truth = 1.0 if place == "t0" else np.exp(-1)
    assert_tree_close(jax.grad(value)(jnp.asarray(1.0)), truth, rtol=1e-7)


@pytest.mark.parametrize("checkpoints", [None, 5], ids=["at once", "step by step"])
def test_what_a_saved_value_closes_over_has_its_gradient(checkpoints):
    # y' = -y from 1, saved as scale * y: the derivative by the scale is the sum of the values.
    ts = jnp.array([0.1, 0.15, 0.6, 0.9])

    def total(scale):
        return jnp.sum(nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), SOLVERS["Tsit5"], 0.0, 1.0, 0.05, jnp.ones(()),
            saveat=diffrax.SaveAt(ts=ts, fn=lambda t, y, args: scale * y),
            adjoint=nk.ReplayAdjoint(checkpoints=checkpoints),
        ).ys)  # fmt: skip

    assert_tree_close(jax.grad(total)(2.0), jnp.sum(jnp.exp(-ts)), rtol=1e-7)


@pytest.mark.parametrize("name", ["Tsit5", "Bosh3"])
def test_a_jump_of_the_field_has_its_gradient(name):
    # y' = a y before 0.5 and b y behind it: log y = a / 2 + b (t - 1 / 2). Both solvers keep their
    # last stage, which belongs to what was before the jump.
    def saved(rates):
        field = lambda t, y, args: jnp.where(t < 0.5, args[0], args[1]) * y
        return nk.diffeqsolve(
            diffrax.ODETerm(field), SOLVERS[name], 0.0, 1.0, 0.2, jnp.ones(()), rates,
            saveat=diffrax.SaveAt(ts=jnp.array([0.6, 0.9])),
            stepsize_controller=diffrax.ClipStepSizeController(
                diffrax.PIDController(rtol=1e-8, atol=1e-8), jump_ts=[0.5]
            ),
        ).ys  # fmt: skip

    values, slopes = saved(jnp.array([-1.0, 0.7])), jax.jacrev(saved)(jnp.array([-1.0, 0.7]))
    assert_tree_close(values, np.exp(-0.5 + 0.7 * np.array([0.1, 0.4])), rtol=1e-6)
    assert_tree_close(slopes, values[:, None] * np.array([[0.5, 0.1], [0.5, 0.4]]), rtol=1e-5)
