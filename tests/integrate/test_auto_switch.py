"""A solver that changes between an explicit and an implicit scheme."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from scipy.integrate import solve_ivp
from support.close import assert_tree_close
from support.marks import slow_but
from support.problems import PROBLEMS, van_der_pol
from support.stiff_problems import REFERENCES, end_of

import ndekit as nk
from ndekit.integrate.solvers.auto_switch import stability_extent

PID = diffrax.PIDController(rtol=1e-6, atol=1e-8)


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def solve(mu, solver, t1=200.0, field=van_der_pol, **options):
    return nk.diffeqsolve(
        diffrax.ODETerm(field), solver, 0.0, t1, 0.01, jnp.array([2.0, 0.0]), mu,
        stepsize_controller=PID, max_steps=40_000, **options,
    )  # fmt: skip


# Robertson's middle component is of size 1e-5.
FLOORS = {"robertson": 1e-4, "hires": 1e-4, "van_der_pol_slow": 1.0, "oregonator": 1.0}
TOLERANCES = [10.0**-n for n in range(5, 11)]


@functools.cache
def classic(name, solver):
    """A compiled solve of a classic problem at any tolerance."""
    p = REFERENCES[name]

    @jax.jit
    def run(rtol):
        return nk.diffeqsolve(
            diffrax.ODETerm(p.field), solver, 0.0, p.t1, None, jnp.asarray(p.y0),
            max_steps=20_000,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol * FLOORS[name]),
        )  # fmt: skip

    return run


# The explicit solver takes 10,000 to a million steps on each. All but the first are slow: two
# programs and up to 25,000 implicit steps.
@pytest.mark.parametrize("name", slow_but(["robertson"], FLOORS))
def test_classic_stiff_problems_at_loose_and_tight_tolerances(name):
    for rtol in TOLERANCES:
        sol = classic(name, nk.AutoSwitch())(jnp.asarray(rtol))
        implicit = classic(name, diffrax.Kvaerno5())(jnp.asarray(rtol))
        most = 2 * int(implicit.stats["num_accepted_steps"]) + 50
        assert sol.stats["num_accepted_steps"] <= most, (rtol, sol.stats)
        # One at each change of the problem, of which the two that oscillate have a few.
        assert 1 <= sol.stats["num_switches"] <= 10, (rtol, sol.stats)
        # Steps are chosen by the local error; over these spans it adds up to 45 tolerances.
        assert_tree_close(sol.ys[-1], end_of(name), 60 * rtol, 60 * rtol * FLOORS[name])


def test_takes_each_solver_where_it_belongs():
    sol = solve(100.0, nk.AutoSwitch())
    nonstiff, stiff = sol.stats["num_nonstiff_steps"], sol.stats["num_stiff_steps"]
    assert nonstiff + stiff == sol.stats["num_accepted_steps"]
    assert nonstiff > 10 and stiff > 50
    # Far fewer steps than the explicit solver.
    assert sol.stats["num_steps"] * 10 < solve(100.0, diffrax.Tsit5()).stats["num_steps"]
    exact = solve_ivp(
        lambda t, y: [y[1], 100.0 * (1 - y[0] ** 2) * y[1] - y[0]], (0, 200), [2.0, 0.0],
        method="Radau", rtol=1e-10, atol=1e-12,
    ).y[:, -1]  # fmt: skip
    np.testing.assert_allclose(sol.ys[0], exact, rtol=1e-3)


def test_stays_explicit_on_a_problem_that_is_not_stiff():
    swing = lambda t, y, a: jnp.stack([y[1], -jnp.sin(y[0])])
    sol = solve(None, nk.AutoSwitch(), 20.0, swing)
    assert sol.stats["num_stiff_steps"] == 0
    same = solve(None, diffrax.Tsit5(), 20.0, swing)
    assert sol.stats["num_steps"] == same.stats["num_steps"]
    np.testing.assert_allclose(sol.ys, same.ys, rtol=1e-12)


@pytest.mark.parametrize("name", ["oscillator", "lotka_volterra", "lorenz", "non_autonomous"])
def test_a_loose_tolerance_is_not_taken_for_stiffness(name):
    p = PROBLEMS[name]

    @jax.jit
    def solve_to(rtol):
        return nk.diffeqsolve(
            diffrax.ODETerm(p.field), nk.AutoSwitch(), p.t0, p.t0 + 20.0, None, p.state(),
            p.parameters(), stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol),
        )  # fmt: skip

    for rtol in (1e-3, 1e-4):
        sol = solve_to(jnp.array(rtol))
        assert sol.stats["num_accepted_steps"] > 20 and sol.stats["num_stiff_steps"] == 0


def test_goes_implicit_on_a_stiff_line_and_stays():
    sol = solve(1e4, nk.AutoSwitch(), 10.0, lambda t, y, a: -a * (y - jnp.cos(t)))
    # The explicit solver is held at h = 3.5 / 10^4 by stability: 29,000 steps.
    assert sol.stats["num_stiff_steps"] > 20 and sol.stats["num_steps"] < 120
    np.testing.assert_allclose(sol.ys[0], np.cos(10.0), atol=2e-4)


def test_gradient_is_the_slope_of_the_solve():
    @jax.jit
    def loss(mu):
        sol = solve(mu, nk.AutoSwitch(), 20.0)
        return jnp.sum(sol.ys), (sol.stats["num_nonstiff_steps"], sol.stats["num_stiff_steps"])

    d_loss, counts = jax.grad(loss, has_aux=True)(20.0)
    assert min(counts) > 0
    h = 1e-4
    by_hand = (loss(20.0 + h)[0] - loss(20.0 - h)[0]) / h / 2
    np.testing.assert_allclose(d_loss, by_hand, rtol=2e-2)


def test_lanes_each_have_their_own_choice():
    sol = jax.vmap(lambda mu: solve(mu, nk.AutoSwitch(), 20.0))(jnp.array([0.5, 50.0]))
    assert sol.stats["num_stiff_steps"][0] == 0 and sol.stats["num_stiff_steps"][1] > 0
    alone = solve(50.0, nk.AutoSwitch(), 20.0)
    np.testing.assert_allclose(sol.ys[1], alone.ys, rtol=1e-9)


def test_lanes_at_a_tight_tolerance_decide_as_alone():
    field = lambda t, y, rate: REFERENCES["robertson"].field(t, y, None) * jnp.array([1, rate, 1])
    run = lambda rate: nk.diffeqsolve(
        diffrax.ODETerm(field), nk.AutoSwitch(), 0.0, 10.0, 1e-4, jnp.array([1.0, 0, 0]), rate,
        stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-12),
    )  # fmt: skip
    rates = jnp.array([1.0, 0.01])
    sol = jax.vmap(run)(rates)
    assert jnp.all(sol.stats["num_switches"] == 1)
    for lane, rate in enumerate(rates):
        alone = run(rate)
        assert {k: int(v) for k, v in alone.stats.items()} == {
            k: int(v if jnp.ndim(v) == 0 else v[lane]) for k, v in sol.stats.items()
        }
        np.testing.assert_allclose(sol.ys[lane], alone.ys, rtol=1e-9)


def test_diffrax_own_loop_takes_the_same_steps():
    counts = ("num_accepted_steps", "num_rejected_steps")
    root_finder = diffrax.with_stepsize_controller_tols(optx.Chord)()
    solver = nk.AutoSwitch(stiff=diffrax.Kvaerno5(root_finder=root_finder))
    ours, theirs = (
        door(
            diffrax.ODETerm(van_der_pol), solver, 0.0, 20.0, 0.01, jnp.array([2.0, 0.0]),
            20.0, stepsize_controller=PID, saveat=diffrax.SaveAt(t1=True, solver_state=True),
        )
        for door in (nk.diffeqsolve, diffrax.diffeqsolve)
    )  # fmt: skip
    assert [ours.stats[c] for c in counts] == [theirs.stats[c] for c in counts]
    assert theirs.solver_state.num_switches == ours.stats["num_switches"] > 0
    np.testing.assert_allclose(ours.ys, theirs.ys, rtol=1e-9)


def following(t, y, rate):
    return jnp.stack([-rate * (y[0] - y[1]), jnp.cos(t) * y[1]])


def oscillating(t, y, rate):
    return jnp.stack([y[1], -(rate**2) * y[0]])


@functools.partial(jax.jit, static_argnums=(0, 3))
def solve_in_units(field, rate, units, atol):
    return nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, units: units * field(t, y / units, rate)),
        nk.AutoSwitch(), 0.0, 10.0, 1e-4, units * jnp.array([0.5, 1.0]), units,
        stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=atol),
    ).stats  # fmt: skip


def in_units(field, rate, units, atol):
    stats = solve_in_units(field, rate, jnp.asarray(units), atol)
    return [int(stats[c]) for c in ("num_switches", "num_nonstiff_steps")]


UNITS = [(2.0**30, 1.0), (1.0, 2.0**30), (2.0**-20, 2.0**20)]


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("field", [following, oscillating])
def test_bad_units_are_not_taken_for_stiffness(field, units):
    # With no absolute tolerance, which would have units of its own.
    switches, nonstiff = in_units(field, 2.0, units, atol=0.0)
    assert switches == 0 and nonstiff == in_units(field, 2.0, (1.0, 1.0), atol=0.0)[1] > 30


def test_stiffness_is_seen_in_other_units():
    # Those that Kvaerno5 puts up with.
    switches, nonstiff = in_units(following, 1e4, (1.0, 2.0**30), atol=1e-6)
    assert switches == 1 and nonstiff < 50


def test_a_part_that_becomes_stiff_later_is_seen():
    """Two parts that do not act on each other are stiff in turn, with a time between."""

    def field(t, y, args):
        rates = jnp.stack([jnp.where(t < 5, 1e6, 1.0), jnp.where(t > 25, 1e4, 1.0)])
        # Keeps the steps short enough for the explicit solver to be called back.
        wave = jnp.stack([y[3], -9 * y[2]])
        return jnp.concatenate([-rates * (y[:2] - jnp.cos(t)), wave])

    sol = nk.diffeqsolve(
        diffrax.ODETerm(field), nk.AutoSwitch(), 0.0, 30.0, 1e-4, jnp.array([1.0, 1, 1, 0]),
        stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
    )  # fmt: skip
    # To the implicit solver, back, and to it again; the explicit one alone takes 15,000 steps for
    # the last five units of time.
    assert sol.stats["num_switches"] == 3 and sol.stats["num_accepted_steps"] < 1500


def test_single_precision():
    with jax.enable_x64(False):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(REFERENCES["robertson"].field), nk.AutoSwitch(), 0.0, 100.0, 1e-4,
            jnp.array([1.0, 0.0, 0.0]),
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-8),
        )  # fmt: skip
    assert sol.ys.dtype == jnp.float32
    assert sol.stats["num_switches"] == 1 and sol.stats["num_accepted_steps"] < 100
    assert_tree_close(np.float64(sol.ys[-1]), end_of("robertson"), rtol=1e-3, atol=1e-8)


def test_a_field_without_a_derivative_at_a_point_is_solved():
    # y' = 1 - sqrt |y| from 0, where the root has none: t = -2 sqrt y - 2 log(1 - sqrt y).
    sol = nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: 1 - jnp.sqrt(jnp.abs(y))), nk.AutoSwitch(), 0.0, 1.0,
        0.01, jnp.array([0.0]), stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
    )  # fmt: skip
    root = jnp.sqrt(sol.ys[-1])
    assert sol.stats["num_stiff_steps"] == 0
    assert_tree_close(-2 * root - 2 * jnp.log(1 - root), jnp.ones(1), rtol=1e-3)


def test_a_pair_of_lower_order():
    solver = nk.AutoSwitch(diffrax.Bosh3(), diffrax.Kvaerno3())
    sol, exact = solve(100.0, solver, 100.0), solve(100.0, diffrax.Kvaerno5(), 100.0)
    assert sol.stats["num_nonstiff_steps"] > 10 and sol.stats["num_stiff_steps"] > 50
    assert_tree_close(sol.ys, exact.ys, rtol=1e-3)


@pytest.mark.parametrize(
    ("solver", "extent"),
    [
        (diffrax.Heun(), 2.0),
        (diffrax.Bosh3(), 2.51),
        (diffrax.Tsit5(), 3.51),
        (diffrax.Dopri5(), 3.31),
    ],
)
def test_extent_of_the_stability_region(solver, extent):
    assert abs(stability_extent(solver.tableau) - extent) < 0.02


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (dict(nonstiff=diffrax.Heun()), "whose last stage is the first of the next step"),
        (dict(nonstiff=diffrax.Kvaerno5()), "must be an explicit Runge-Kutta solver"),
        (dict(stiff=diffrax.KenCarp5()), "whose last stage is the first of the next step"),
        (dict(stiff=diffrax.Kvaerno3()), "error estimates of one order"),
        (dict(threshold=0.0), "a `threshold` above 0"),
        (dict(patience=(10, 0)), "`patience` of two numbers of at least 1"),
    ],
)
def test_solvers_that_do_not_fit(choice, message):
    with pytest.raises(ValueError, match=message):
        nk.AutoSwitch(**choice)
