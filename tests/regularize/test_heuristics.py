"""What the step costs measure, against closed forms and against NumPy."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.close import assert_tree_close, close_to_rounding
from support.marks import slow_but
from support.problems import (
    ADAPTIVE,
    PROBLEMS,
    RTOL,
    SOLVERS,
    WITH_PAIR,
    any_flat_field,
    costs_for,
    padded_state,
)
from support.problems import FLAT as FLAT_NAMES

import ndekit as nk
from ndekit.regularize import schedules
from ndekit.regularize.stiffness import STABILITY


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def solve(field, y0, args=None, solver="Tsit5", t1=1.0, rtol=1e-6, **options):
    controller = diffrax.PIDController(rtol=rtol, atol=options.pop("atol", rtol / 10))
    return nk.diffeqsolve(
        diffrax.ODETerm(field), SOLVERS[solver], 0.0, t1, options.pop("dt0", None), y0, args,
        stepsize_controller=controller, **options,
    )  # fmt: skip


# Stiffness.


@pytest.mark.parametrize("rate", [0.5, 300.0])
@pytest.mark.parametrize("solver", WITH_PAIR)
def test_stiffness_of_linear_decay_is_its_rate(solver, rate):
    costs = {
        "rho": nk.EveryStep(nk.StepStiffness(), "max"),
        "rho_h": nk.StepStiffness("rho_h"),
        "relative": nk.EveryStep(nk.StepStiffness("relative"), "mean"),
    }
    sol = solve(
        lambda t, y, rate: -rate * y, jnp.array([1.0, -3.0]), jnp.asarray(rate), solver,
        costs=costs, rtol=1e-3, dt0=0.2 / rate,
    )  # fmt: skip
    # The sum of rho h is rate times the span. The pair's stages differ by little: rounding; in a
    # first step of 0.01 those of Dopri8 by nothing else, and it would not count.
    truth = {"rho": rate, "rho_h": rate * 1.0, "relative": rate / STABILITY[solver]}
    assert_tree_close(sol.costs, truth, rtol=1e-4)


@pytest.mark.parametrize("solver", ["Tsit5", "Dopri5", "Dopri8", "Heun", "Midpoint", "Ralston"])
def test_the_extent_of_the_stability_region_is_that_of_the_scheme(solver):
    # The stability polynomial R(z) of the tableau leaves the unit disc there.
    tableau = getattr(diffrax, solver).tableau
    number = len(tableau.b_sol)
    a = np.zeros((number, number))
    for i, row in enumerate(tableau.a_lower):
        a[i + 1, : i + 1] = row
    growth = lambda z: (
        1 + z * tableau.b_sol @ np.linalg.solve(np.eye(number) - z * a, np.ones(number))
    )
    zs = np.linspace(-0.5, -8, 7501)
    extent = -zs[np.argmax([abs(growth(z)) > 1 + 1e-9 for z in zs])]
    assert_tree_close(np.float64(STABILITY[solver]), extent, rtol=0.02)


# The count. A jump in the field is left out: the steps that find it, and those that grow again
# after it, have next to no error, so they are not what the tolerance asks for (StepCount is then a
# third of the steps).
SMOOTH = [name for name in FLAT_NAMES if name != "discontinuous"]


@functools.cache
def flat_counts(solver):
    """Accepted steps and StepCount of every flat problem at three tolerances, compiled once."""

    @jax.jit
    def count(index, t0, t1, y0, rtol):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(any_flat_field), SOLVERS[solver], t0, t1, None, y0, index,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol / 10),
            costs={"count": nk.StepCount()}, max_steps=16384,
        )  # fmt: skip
        return sol.stats["num_accepted_steps"], sol.costs["count"]

    found = []
    for name in SMOOTH:
        p = PROBLEMS[name]
        for rtol in RTOL[solver] * np.array([1.0, 0.1, 0.01]):
            given = (p.t0, p.t1, padded_state(p), rtol)
            steps, value = count(FLAT_NAMES.index(name), *map(jnp.asarray, given))
            found.append((name, rtol, int(steps), float(value)))
    return found


@pytest.mark.parametrize("solver", slow_but(("Tsit5", "Heun"), ADAPTIVE))
def test_count_is_between_06_and_1_of_the_steps_of_a_long_solve(solver):
    long = [row for row in flat_counts(solver) if row[2] >= 20]
    assert len(long) >= 5
    wrong = [row for row in long if not 0.6 <= row[3] / row[2] <= 1.0]
    assert not wrong, wrong


SLOPES = {
    # (field with one parameter, y0, t1, 21 values)
    "van_der_pol": (PROBLEMS["van_der_pol"].field, [2.0, 0.0], 10.0, (2.5, 3.5)),
    "stiff_rate": (lambda t, y, rate: -rate * y, [1.0], 1.0, (60.0, 140.0)),
    "lorenz": (
        lambda t, y, rho: PROBLEMS["lorenz"].field(t, y, (10.0, rho, 8 / 3)),
        # On the attractor, where the steps change by more than one.
        [-8.0, 7.0, 27.0], 1.5, (23.0, 33.0),
    ),
}  # fmt: skip


@functools.cache
def counts_along(name):
    """Accepted steps and StepCount at 21 parameter values, at each of three tolerances."""
    field, y0, t1, ends = SLOPES[name]

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def count(parameter, rtol):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(field), SOLVERS["Tsit5"], 0.0, t1, None, jnp.asarray(y0), parameter,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol),
            costs={"count": nk.StepCount()},
        )  # fmt: skip
        return sol.stats["num_accepted_steps"], sol.costs["count"]

    values = jnp.linspace(*ends, 21)
    return values, {rtol: count(values, jnp.asarray(rtol)) for rtol in (1e-4, 1e-6, 1e-8)}


@pytest.mark.parametrize("rtol", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("name", SLOPES)
def test_count_grows_along_a_parameter_as_the_steps_do(name, rtol):
    values, counts = counts_along(name)
    steps, count = [np.polyfit(values, np.asarray(c, float), 1)[0] for c in counts[rtol]]
    assert_tree_close(count, steps, rtol=0.2)


# The error, against NumPy on what diffrax keeps for dense output.


def per_step(name, solver):
    """Sizes and scaled and raw errors of diffrax's accepted steps, by the formulas on paper."""
    p = PROBLEMS[name]
    rtol, atol = RTOL[solver], RTOL[solver] / 10
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(p.field), SOLVERS[solver], p.t0, p.t1, 0.01, p.state(), p.parameters(),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        saveat=diffrax.SaveAt(dense=True), max_steps=1024,
    )  # fmt: skip
    number = int(sol.stats["num_accepted_steps"])
    info = {key: np.asarray(x)[:number] for key, x in sol.interpolation.infos.items()}
    error = np.einsum("s,nsd->nd", SOLVERS[solver].tableau.b_error, info["k"])
    scale = atol + rtol * np.maximum(np.abs(info["y0"]), np.abs(info["y1"]))
    rms = lambda x: np.sqrt(np.mean(x**2, axis=-1))
    return np.diff(np.asarray(sol.interpolation.ts)[: number + 1]), rms(error / scale), rms(error)


@pytest.mark.parametrize("solver", ["Heun", "Bosh3", "Tsit5"])
def test_costs_are_their_formulas_in_numpy(solver):
    h, scaled, raw = per_step("lotka_volterra", solver)
    order = {"Heun": 2, "Bosh3": 3, "Tsit5": 5}[solver]
    count = scaled ** (1 / order)
    truth = {
        "count": count.sum(), "count_mean": count.mean(), "count_max": count.max(),
        "error": (scaled * h).sum(), "error_mean": (scaled * h).mean(),
        "error_max": (scaled * h).max(), "squared": (scaled**2).sum(), "unscaled": (raw * h).sum(),
    }  # fmt: skip
    p = PROBLEMS["lotka_volterra"]
    costs = {name: cost for name, cost in costs_for(solver).items() if name in truth}
    sol = solve(
        p.field, p.state(), p.parameters(), solver, p.t1, RTOL[solver], dt0=0.01, costs=costs
    )
    assert_tree_close(sol.costs, truth, rtol=1e-6)


def test_the_span_bounds_the_sum_of_scaled_errors():
    p = PROBLEMS["van_der_pol"]
    sol = solve(p.field, p.state(), p.parameters(), t1=1.5, costs={"error": nk.StepError()})
    assert 0 < float(sol.costs["error"]) < 1.5


# Fields at rest.

AT_REST = {
    "zero": (lambda t, y, args: 0.0 * y * args, jnp.float32(1.0)),
    "fixed_point": (lambda t, y, args: -args * (y - 1) * y, jnp.float32(2.0)),
    "exact": (lambda t, y, args: args * jnp.ones_like(y), jnp.float32(0.5)),
}


@pytest.mark.parametrize("name", ["zero", "fixed_point"])
def test_a_field_at_rest_costs_nothing_and_has_zero_gradients(name):
    with jax.enable_x64(False):
        field, args = AT_REST[name]
        y0 = jnp.ones(3)

        def total(y0, args):
            return sum(solve(field, y0, args, rtol=1e-3, costs=costs_for("Tsit5")).costs.values())

        value, gradient = jax.value_and_grad(total, argnums=(0, 1))(y0, args)
        assert float(value) == 0
        assert_tree_close(gradient, (np.zeros(3), np.zeros(())), rtol=0)


def test_an_exactly_integrated_field_has_finite_gradients():
    with jax.enable_x64(False):
        field, args = AT_REST["exact"]

        def total(y0, args):
            return sum(solve(field, y0, args, rtol=1e-3, costs=costs_for("Tsit5")).costs.values())

        gradient = jax.grad(total, argnums=(0, 1))(jnp.ones(3), args)
        assert all(np.all(np.isfinite(g)) for g in gradient)


# A cost of the user's own.


class Kinetic(nk.AbstractStepCost):
    """The integral of |f|^2 by the solver's own weights, times a number that can be learned."""

    factor: jax.Array

    def of_step(self, step):
        energy = [jnp.sum(rate**2) for rate in step.rates]
        return self.factor * step.h * sum(w * e for w, e in zip(step.weights, energy, strict=True))


def test_a_users_cost_is_the_integral_it_stands_for():
    # y = e^(-t): the integral of y'^2 over [0, 1] is (1 - e^-2) / 2.
    costs = {"kinetic": Kinetic(jnp.asarray(3.0))}
    sol = solve(lambda t, y, args: -y, jnp.ones(1), costs=costs, rtol=1e-8)
    assert_tree_close(sol.costs["kinetic"], 1.5 * (1 - np.exp(-2)), rtol=1e-7)


def test_an_array_inside_a_cost_has_its_gradient():
    value = lambda factor: solve(
        lambda t, y, args: -y, jnp.ones(1), costs={"kinetic": Kinetic(factor)}, rtol=1e-8
    ).costs["kinetic"]
    truth = (1 - np.exp(-2)) / 2
    assert_tree_close(jax.grad(value)(jnp.asarray(3.0)), truth, rtol=1e-7)


# Schedules.


def test_schedules_pass_through_their_ends():
    linear, falling = schedules.linear(2.0, 6.0, 4), schedules.exponential(100.0, 1.0, 2)
    steps = [0, 1, 4, 9]
    assert close_to_rounding(
        [linear(s) for s in steps], [jnp.asarray(x) for x in (2.0, 3.0, 6.0, 6.0)]
    )
    assert close_to_rounding(
        [falling(s) for s in steps], [jnp.asarray(x) for x in (100.0, 10.0, 1.0, 1.0)]
    )


def test_a_constant_schedule_is_constant():
    assert [float(schedules.constant(0.3)(s)) for s in (0, 7)] == [0.3, 0.3]


@pytest.mark.parametrize("make", [schedules.linear, schedules.exponential])
def test_a_schedule_of_no_steps_is_refused(make):
    with pytest.raises(ValueError, match="`steps` must be at least 1"):
        make(1.0, 2.0, 0)


def test_an_exponential_schedule_to_zero_is_refused():
    with pytest.raises(ValueError, match="Use `linear` to reach zero"):
        schedules.exponential(1.0, 0.0, 3)
