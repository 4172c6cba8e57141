"""A rejected step leaves nothing behind: neither in values, nor in costs, nor in gradients."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.close import assert_tree_close, close_to_solver
from support.marks import slow_but
from support.problems import SOLVERS

import ndekit as nk

# Each field is undefined or overflows where a first step that is too large ends.
# name: (field, y0, t1, dt0)
TRAPS = {
    "overflow": (lambda t, y, rate: -100 * rate * y**3, 1.0, 1.0, 0.8),
    "square_root": (lambda t, y, rate: -rate * jnp.sqrt(y), 1.0, 1.5, 1.4),
    "logarithm": (lambda t, y, rate: -rate * y * (2 + jnp.log(y)), 1.0, 1.0, 0.9),
    "not_a_number": (
        lambda t, y, rate: jnp.where(y < 0.05, jnp.nan, -3 * rate * y), 1.0, 0.8, 0.7
    ),
}  # fmt: skip
EXACT = {
    "overflow": lambda t, rate: 1 / np.sqrt(1 + 200 * rate * t),
    "square_root": lambda t, rate: (1 - rate * t / 2) ** 2,
    "logarithm": lambda t, rate: np.exp(-2 + 2 * np.exp(-rate * t)),
    "not_a_number": lambda t, rate: np.exp(-3 * rate * t),
}
COSTS = {
    "count": nk.StepCount(),
    "error": nk.StepError(),
    "worst": nk.EveryStep(nk.StepError(power=2), "max"),
    "stiffness": nk.EveryStep(nk.StepStiffness("rho_h"), "mean"),
}
RTOL = 1e-4


def controller():
    return diffrax.PIDController(rtol=RTOL, atol=RTOL)


def solve(name, y0, rate, solve_by=nk.diffeqsolve, dt0=None, saveat=None, **options):
    field, _, t1, first = TRAPS[name]
    if name == "overflow" and jax.config.jax_enable_x64:
        # Longer, and float64 ends at infinity, where diffrax's controller (inf / inf) never finds a
        # next step.
        first = 0.1
    return solve_by(
        diffrax.ODETerm(field), SOLVERS["Tsit5"], 0.0, t1, first if dt0 is None else dt0, y0, rate,
        saveat=diffrax.SaveAt(t1=True) if saveat is None else saveat,
        stepsize_controller=controller(), max_steps=256, **options,
    )  # fmt: skip


def start(name):
    return jnp.asarray([TRAPS[name][1]]), jnp.asarray(1.0)


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.mark.parametrize("name", TRAPS)
def test_the_first_step_is_rejected(name):
    assert int(solve(name, *start(name)).stats["num_rejected_steps"]) >= 1


@pytest.mark.parametrize("name", TRAPS)
def test_the_solution_is_the_closed_form(name, precision):
    ours = solve(name, *start(name)).ys[-1]
    assert close_to_solver(ours, jnp.asarray([EXACT[name](TRAPS[name][2], 1.0)]), RTOL)


@pytest.mark.parametrize("name", TRAPS)
def test_the_gradient_is_that_of_the_closed_form(name, precision):
    def end(rate):
        return solve(name, start(name)[0], rate).ys[-1, 0]

    t1, width = TRAPS[name][2], 1e-6
    truth = (EXACT[name](t1, 1 + width) - EXACT[name](t1, 1 - width)) / (2 * width)
    ours = jax.grad(end)(jnp.asarray(1.0))
    assert close_to_solver(ours, jnp.asarray(truth), RTOL)


def test_diffrax_has_no_finite_gradient_in_the_same_place():
    # What the tests here are about; the day this fails they lose their point.
    def end(y0):
        return solve("overflow", y0, jnp.asarray(1.0), diffrax.diffeqsolve).ys[-1, 0]

    assert not np.isfinite(jax.grad(end)(start("overflow")[0]))


@pytest.mark.parametrize("name", slow_but(("square_root",), TRAPS))
def test_the_gradient_is_that_of_a_solve_without_rejections(name, x64):
    y0, rate = start(name)
    steps = solve(
        name, y0, rate, diffrax.diffeqsolve, saveat=diffrax.SaveAt(t0=True, steps=True)
    ).ts
    grid = steps[jnp.isfinite(steps)]

    def replayed(y0, rate):
        field, _, t1, _ = TRAPS[name]
        return diffrax.diffeqsolve(
            diffrax.ODETerm(field), SOLVERS["Tsit5"], 0.0, t1, None, y0, rate,
            stepsize_controller=diffrax.StepTo(grid), max_steps=len(grid) - 1,
        ).ys[-1, 0]  # fmt: skip

    ours = jax.grad(lambda y0, rate: solve(name, y0, rate).ys[-1, 0], argnums=(0, 1))(y0, rate)
    truth = jax.grad(replayed, argnums=(0, 1))(y0, rate)
    assert_tree_close(ours, truth, rtol=1e-7)


@pytest.mark.parametrize("name", TRAPS)
def test_costs_have_finite_gradients(name):
    def total(y0, rate):
        costs = solve(name, y0, rate, costs=COSTS).costs
        return sum(costs.values())

    value, gradient = jax.value_and_grad(total, argnums=(0, 1))(*start(name))
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(g)) for g in gradient)


class One(nk.AbstractStepCost):
    def of_step(self, step):
        return jnp.ones_like(step.h)


class Length(nk.AbstractStepCost):
    def of_step(self, step):
        return step.h


@pytest.mark.parametrize("name", TRAPS)
def test_costs_count_accepted_steps_only(name):
    sol = solve(name, *start(name), costs={"one": One()})
    assert float(sol.costs["one"]) == int(sol.stats["num_accepted_steps"])


@pytest.mark.parametrize("name", TRAPS)
def test_accepted_steps_fill_the_span_once(name):
    sol = solve(name, *start(name), costs={"length": Length()})
    assert_tree_close(sol.costs["length"], np.float32(TRAPS[name][2]), rtol=1e-5)


@pytest.mark.parametrize("name", ["overflow", "not_a_number"])
def test_lanes_without_rejections_are_not_touched(name):
    def end(rate):
        return solve(name, start(name)[0], rate).ys[-1, 0]

    rates = jnp.asarray([1.0, 1e-3])
    together = jax.jit(jax.vmap(jax.value_and_grad(end)))(rates)
    t1 = TRAPS[name][2]
    truth = jnp.asarray([EXACT[name](t1, 1.0), EXACT[name](t1, 1e-3)])
    assert close_to_solver(together[0], truth, RTOL)
    assert np.all(np.isfinite(together[1]))


def test_a_saved_time_inside_a_rejected_step_has_the_value_of_the_accepted_ones():
    name = "overflow"
    ts = jnp.linspace(0.05, 0.75, 9)
    ours = solve(name, *start(name), saveat=diffrax.SaveAt(ts=ts)).ys[:, 0]
    assert close_to_solver(ours, EXACT[name](ts, 1.0), RTOL)


def test_a_field_that_is_nowhere_defined_ends_with_a_result():
    sol = nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: jnp.nan * y), SOLVERS["Tsit5"], 0.0, 1.0, 0.1,
        jnp.ones(1), stepsize_controller=controller(), throw=False,
    )  # fmt: skip
    assert not bool(diffrax.is_successful(sol.result))
