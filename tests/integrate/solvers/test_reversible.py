"""Solvers that can be undone, and the gradient that keeps no states."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.marks import slow_but

import ndekit as nk

SOLVERS = {
    "Tsit5": nk.Reversible(diffrax.Tsit5()),
    "Bosh3": nk.Reversible(diffrax.Bosh3(), coupling=0.99),
    "Heun": diffrax.ReversibleHeun(),
    "leapfrog": nk.AsynchronousLeapfrog(),
}
PID = diffrax.PIDController(rtol=1e-4, atol=1e-6)
STEPPING = {"adaptive": (0.1, PID), "fixed": (0.02, diffrax.ConstantStepSize())}


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def lotka_volterra(t, y, a):
    return jnp.stack([y[0] * (a - y[1]), y[1] * (y[0] - 1.0)]) + 0.1 * jnp.sin(t)


def loss(inputs, solver, dt0, controller, adjoint, t1=3.0, **options):
    sol = nk.diffeqsolve(
        diffrax.ODETerm(lotka_volterra), solver, 0.0, t1, dt0, inputs[:2], inputs[2],
        stepsize_controller=controller, adjoint=adjoint, **options,
    )  # fmt: skip
    total = jnp.sum(jnp.sin(sol.ys)) + 0.1 * sum(sol.costs.values())
    return total, sol.stats["num_rejected_steps"]


@pytest.mark.parametrize("stepping", slow_but(("adaptive",), STEPPING))
@pytest.mark.parametrize("name", slow_but(("Tsit5", "leapfrog"), SOLVERS))
def test_gradient_is_that_of_the_states_kept(name, stepping):
    dt0, controller = STEPPING[stepping]
    options: dict = dict(saveat=diffrax.SaveAt(ts=jnp.linspace(0.0, 3.0, 5)), max_steps=512)
    if stepping == "adaptive":
        options["costs"] = {"steps": nk.StepCount(), "error": nk.StepError()}
    inputs = jnp.array([1.0, 2.0, 1.5])
    gradient = jax.grad(loss, has_aux=True)
    undone, _ = gradient(inputs, SOLVERS[name], dt0, controller, nk.ReversibleAdjoint(), **options)
    kept, _ = gradient(inputs, SOLVERS[name], dt0, controller, nk.ReplayAdjoint(512), **options)
    np.testing.assert_allclose(undone, kept, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", slow_but(("Bosh3",), SOLVERS))
def test_gradient_backwards_in_time_and_in_lanes(name):
    inputs = jnp.array([[1.0, 2.0, 1.5], [1.2, 2.2, 1.7], [1.4, 2.4, 1.9]])
    gradient = lambda adjoint: jax.vmap(
        lambda x: jax.grad(loss, has_aux=True)(
            x, SOLVERS[name], -0.1, PID, adjoint, -1.0, max_steps=256
        )[0]
    )(inputs)
    undone, kept = gradient(nk.ReversibleAdjoint()), gradient(nk.ReplayAdjoint(256))
    np.testing.assert_allclose(undone, kept, rtol=1e-8)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_step_undone_is_where_it_came_from(name, getkey):
    from ndekit.integrate.solvers.reversible import undo_of

    solver, term = SOLVERS[name], diffrax.ODETerm(lotka_volterra)
    y0 = jax.random.normal(getkey(), (2,))
    state0 = solver.init(term, 0.0, 0.1, y0, 1.5)
    y1, *_, state1, _ = solver.step(term, 0.0, 0.1, y0, 1.5, state0, False)
    y2, *_, state2, _ = solver.step(term, 0.1, 0.25, y1, 1.5, state1, False)
    undo = undo_of(solver, term, 1.5)
    back1 = undo(jnp.array(0.1), jnp.array(0.25), y2, state2)
    back0 = undo(jnp.array(0.0), jnp.array(0.1), *back1)
    for found, wanted in ((back1, (y1, state1)), (back0, (y0, state0))):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("name", "order"), [("Tsit5", 5), ("Bosh3", 3), ("leapfrog", 2)])
def test_order(name, order):
    """Halving the step divides the error by 2^order at least."""

    def error(h):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, a: jnp.cos(t) * y), SOLVERS[name], 0.0, 2.0, h,
            jnp.ones(1), max_steps=512,
        )  # fmt: skip
        return float(jnp.abs(sol.ys[0, 0] - jnp.exp(jnp.sin(2.0))))

    found = np.log2(error(0.2) / error(0.1))
    assert found > order - 0.4


def test_memory_does_not_grow_with_the_number_of_steps():
    """The states of 1000 numbers that the gradient of n steps keeps."""

    def states(adjoint, max_steps):
        def last(y):
            sol = nk.diffeqsolve(
                diffrax.ODETerm(lambda t, y, a: -jnp.sin(y)), nk.AsynchronousLeapfrog(), 0.0, 1.0,
                1 / max_steps, y, max_steps=max_steps + 1, adjoint=adjoint,
            )  # fmt: skip
            return jnp.sum(sol.ys)

        compiled = jax.jit(jax.grad(last)).lower(jnp.ones(1000)).compile()
        return compiled.memory_analysis().temp_size_in_bytes / 8000

    few, many = (states(nk.ReversibleAdjoint(), n) for n in (100, 2000))
    # One number a step for its time is left.
    assert many - few < 4 and many < 40
    assert states(nk.ReplayAdjoint(), 2000) > many + 20


def test_a_solver_that_cannot_be_undone_is_refused():
    with pytest.raises(ValueError, match="`Tsit5` cannot be undone. Wrap it"):
        nk.diffeqsolve(
            diffrax.ODETerm(lotka_volterra), diffrax.Tsit5(), 0.0, 1.0, 0.1, jnp.ones(2), 1.0,
            adjoint=nk.ReversibleAdjoint(),
        )  # fmt: skip


def test_jumps_are_refused():
    clip = diffrax.ClipStepSizeController(PID, jump_ts=[0.5])
    with pytest.raises(ValueError, match="cannot undo a jump"):
        nk.diffeqsolve(
            diffrax.ODETerm(lotka_volterra), diffrax.ReversibleHeun(), 0.0, 1.0, 0.1, jnp.ones(2),
            1.0, adjoint=nk.ReversibleAdjoint(), stepsize_controller=clip,
        )  # fmt: skip


def test_coupling_out_of_range():
    with pytest.raises(ValueError, match=r"`coupling` must be in \(0, 1\]"):
        nk.Reversible(diffrax.Tsit5(), coupling=1.5)
