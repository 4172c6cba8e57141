"""The engine as an adjoint of diffrax, and what of diffrax's insides it leans on."""

import inspect

import diffrax
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import pytest
from support.problems import van_der_pol
from support.stiff_problems import robertson

import ndekit as nk
from ndekit.integrate.prepare.loop_inputs import LoopInputs
from ndekit.integrate.solvers.root_finders import GIVES_UP, mended

PID = diffrax.PIDController(rtol=1e-5, atol=1e-7)


@pytest.fixture(autouse=True)
def float64(x64):
    pass


@pytest.mark.parametrize(
    "solver",
    [
        diffrax.Tsit5(),
        pytest.param(diffrax.ReversibleHeun(), marks=pytest.mark.slow),
        pytest.param(diffrax.Kvaerno3(), marks=pytest.mark.slow),
    ],
)
def test_diffrax_takes_replay_as_its_adjoint(solver):
    def loss(mu, adjoint):
        sol = diffrax.diffeqsolve(
            diffrax.ODETerm(van_der_pol), solver, 0.0, 1.0, 0.01, jnp.array([2.0, 0.0]), mu,
            stepsize_controller=PID, adjoint=adjoint,
            saveat=diffrax.SaveAt(ts=jnp.linspace(0, 1, 5)),
        )  # fmt: skip
        return jnp.sum(jnp.sin(sol.ys)), sol.stats["num_steps"]

    gradient = jax.value_and_grad(loss, has_aux=True)
    (ours, n), d_ours = gradient(3.0, nk.ReplayAdjoint())
    (theirs, m), d_theirs = gradient(3.0, diffrax.RecursiveCheckpointAdjoint())
    assert n == m
    np.testing.assert_allclose([ours, d_ours], [theirs, d_theirs], rtol=1e-9)


def test_the_loop_gets_what_we_expect_of_diffrax():
    """`AbstractAdjoint.loop` is not documented: this fails when diffrax changes it."""
    names = set(inspect.signature(diffrax.AbstractAdjoint.loop).parameters) - {"self"}
    assert names == set(LoopInputs.__dataclass_fields__) - {"resets"}


def test_the_root_finder_is_still_broken_upstream():
    """When this fails, diffrax has been mended: take `root_finders.py` away."""

    def steps(solver):
        sol = diffrax.diffeqsolve(
            diffrax.ODETerm(robertson), solver, 0.0, 100.0, 1e-4, jnp.array([1.0, 0.0, 0.0]),
            stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-8),
        )  # fmt: skip
        return int(sol.stats["num_steps"])

    assert GIVES_UP
    assert steps(diffrax.Kvaerno5()) > 5 * steps(mended(diffrax.Kvaerno5()))


def test_ndekit_takes_the_better_root_finder_by_itself():
    sol = nk.diffeqsolve(
        diffrax.ODETerm(robertson), diffrax.Kvaerno5(), 0.0, 100.0, 1e-4,
        jnp.array([1.0, 0.0, 0.0]), stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-8),
    )  # fmt: skip
    assert sol.stats["num_steps"] < 60


def test_only_the_default_root_finder_is_replaced():
    taken = diffrax.with_stepsize_controller_tols(diffrax.VeryChord)(linear_solver=lx.QR())
    better = mended(diffrax.HalfSolver(diffrax.Kvaerno3(root_finder=taken))).solver.root_finder
    assert type(better) is optx.Chord
    assert better.linear_solver == lx.QR()
    own = diffrax.Kvaerno3(root_finder=diffrax.VeryChord(rtol=1e-3, atol=1e-4))
    assert mended(own) is own
    newton = diffrax.Kvaerno3(root_finder=optx.Newton(1e-3, 1e-3))
    assert mended(newton) is newton


def test_unsafe_brownian_paths_have_a_reverse_mode():
    """diffrax refuses it. Replay asks for the noise of the same step by the same key."""
    key = jax.random.key(3)

    def last(sigma):
        noise = diffrax.UnsafeBrownianPath((2,), key)
        drift = diffrax.ODETerm(lambda t, y, a: -y)
        terms = diffrax.MultiTerm(drift, diffrax.ControlTerm(lambda t, y, a: a * jnp.eye(2), noise))
        sol = nk.diffeqsolve(terms, diffrax.Euler(), 0.0, 1.0, 0.1, jnp.ones(2), sigma)
        return jnp.sum(sol.ys)

    slope = (last(0.5 + 1e-6) - last(0.5 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(last)(0.5), slope, rtol=1e-7)
