"""A solver that changes between an explicit and an implicit scheme."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import van_der_pol
from scipy.integrate import solve_ivp

import ndekit as nk
from ndekit.integrate.auto_switch import stability_extent

PID = diffrax.PIDController(rtol=1e-6, atol=1e-8)


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def solve(mu, solver, t1=200.0, field=van_der_pol, **options):
    return nk.diffeqsolve(
        diffrax.ODETerm(field), solver, 0.0, t1, 0.01, jnp.array([2.0, 0.0]), mu,
        stepsize_controller=PID, max_steps=40_000, **options,
    )  # fmt: skip


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


def test_goes_implicit_on_a_stiff_line_and_stays():
    sol = solve(1e4, nk.AutoSwitch(), 10.0, lambda t, y, a: -a * (y - jnp.cos(t)))
    # The explicit solver is held at h = 3.5 / 10^4 by stability: 29,000 steps.
    assert sol.stats["num_stiff_steps"] > 20 and sol.stats["num_steps"] < 120
    np.testing.assert_allclose(sol.ys[0], np.cos(10.0), atol=2e-4)


def test_gradient_is_that_of_a_replay_through_diffrax():
    """The recorder path runs the same solver inside diffrax's own loop."""

    def loss(mu, adjoint):
        sol = solve(mu, nk.AutoSwitch(), 20.0, adjoint=adjoint)
        return jnp.sum(sol.ys), (sol.stats["num_nonstiff_steps"], sol.stats["num_stiff_steps"])

    gradient = jax.value_and_grad(loss, has_aux=True)
    (ours, counts), d_ours = gradient(20.0, nk.ReplayAdjoint())
    assert min(counts) > 0
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(van_der_pol), nk.AutoSwitch(), 0.0, 20.0, 0.01, jnp.array([2.0, 0.0]), 20.0,
        stepsize_controller=PID, max_steps=40_000, saveat=diffrax.SaveAt(t1=True),
    )  # fmt: skip
    assert sol.stats["num_accepted_steps"] > 0
    h = 1e-4
    by_hand = (
        (loss(20.0 + h, nk.ReplayAdjoint())[0] - loss(20.0 - h, nk.ReplayAdjoint())[0]) / h / 2
    )
    np.testing.assert_allclose(d_ours, by_hand, rtol=2e-2)


def test_lanes_each_have_their_own_choice():
    sol = jax.vmap(lambda mu: solve(mu, nk.AutoSwitch(), 20.0))(jnp.array([0.5, 50.0]))
    assert sol.stats["num_stiff_steps"][0] == 0 and sol.stats["num_stiff_steps"][1] > 0
    alone = solve(50.0, nk.AutoSwitch(), 20.0)
    np.testing.assert_allclose(sol.ys[1], alone.ys, rtol=1e-9)


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
        (dict(nonstiff=diffrax.Heun()), "needs a solver with two stages at the end"),
        (dict(nonstiff=diffrax.Kvaerno5()), "must be an explicit Runge-Kutta solver"),
        (dict(stiff=diffrax.KenCarp5()), "needs a solver with two stages at the end"),
        (dict(stiff=diffrax.Kvaerno3()), "error estimates of one order"),
    ],
)
def test_solvers_that_do_not_fit(choice, message):
    with pytest.raises(ValueError, match=message):
        nk.AutoSwitch(**choice)
