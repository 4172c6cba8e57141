"""Differentiable step sizes: the gradient of the adaptive solve itself."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.close import close_to_rounding
from support.marks import slow_but
from support.problems import van_der_pol

import ndekit as nk

MOVING = nk.ReplayAdjoint(step_sizes="differentiable", checkpoints=16)
CONTROLLERS = {
    "I": diffrax.PIDController(rtol=1e-3, atol=1e-5),
    "PI": diffrax.PIDController(rtol=1e-3, atol=1e-5, pcoeff=0.3, icoeff=0.4),
    "PID": diffrax.PIDController(rtol=1e-3, atol=1e-5, pcoeff=0.1, icoeff=0.3, dcoeff=0.05),
    "dtmax": diffrax.PIDController(rtol=1e-3, atol=1e-5, dtmax=0.2),
    "dtmin": diffrax.PIDController(rtol=1e-3, atol=1e-5, dtmin=0.1, force_dtmin=True),
    "own norm": diffrax.PIDController(
        rtol=1e-3, atol=1e-5, norm=lambda x: jnp.sqrt(jnp.sum(x**2) + 0.0)
    ),
}
INPUTS = jnp.array([0.0, 5.0, 0.7, 3.0, 2.2, 2.0])  # t0, t1, dt0, mu, a saved time, y0


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def numbers(inputs, controller, adjoint=MOVING, solver=diffrax.Dopri5()):
    """Values at three times, and the costs: everything that a loss may see."""
    t0, t1, dt0, mu, t, y = inputs
    sol = nk.diffeqsolve(
        diffrax.ODETerm(van_der_pol), solver, t0, t1, dt0, jnp.stack([y, 0.0 * y]), mu,
        stepsize_controller=controller, adjoint=adjoint, max_steps=256,
        saveat=diffrax.SaveAt(ts=jnp.stack([t0 + 0.3, t, t1])),
        costs={"steps": nk.StepCount(), "error": nk.EveryStep(nk.StepError(), "mean")},
    )  # fmt: skip
    seen = jnp.stack([jnp.sum(jnp.sin(sol.ys)), sol.costs["steps"], sol.costs["error"]])
    return seen, sol.stats


def slopes(fn, inputs, h=1e-6):
    """Central differences through the adaptive solve, one column for each input."""
    columns = [(fn(inputs + h * e) - fn(inputs - h * e)) / (2 * h) for e in jnp.eye(len(inputs))]
    return jnp.stack(columns, 1)


@pytest.mark.parametrize("name", slow_but(("PID",), CONTROLLERS))
def test_gradient_is_that_of_finite_differences_through_the_adaptive_solve(name):
    controller = CONTROLLERS[name]
    seen = jax.jit(lambda x: numbers(x, controller)[0])
    inputs = jnp.asarray(np.asarray(INPUTS, np.float64))
    _, stats = numbers(inputs, controller)
    if name != "dtmin":
        assert stats["num_rejected_steps"] >= 2  # they belong to the chain
    np.testing.assert_allclose(
        jax.jit(jax.jacrev(seen))(inputs), slopes(seen, inputs), rtol=2e-5, atol=2e-5
    )


def test_values_and_steps_are_those_of_frozen_step_sizes():
    inputs = jnp.asarray(np.asarray(INPUTS, np.float64))
    moving, frozen = (numbers(inputs, CONTROLLERS["PI"], a) for a in (MOVING, nk.ReplayAdjoint()))
    np.testing.assert_array_equal(moving[0], frozen[0])
    assert moving[1]["num_steps"] == frozen[1]["num_steps"]


def test_lanes_are_as_alone():
    inputs = jnp.asarray(np.asarray(INPUTS, np.float64))
    spread = jnp.outer(jnp.arange(3.0), jnp.array([0.1, 0.1, 0.01, 0.3, 0.05, 0.1]))
    lanes = inputs[None] + spread
    gradient = jax.jacrev(lambda x: numbers(x, CONTROLLERS["PI"])[0])
    alone = jnp.stack([jax.jit(gradient)(x) for x in lanes])
    np.testing.assert_allclose(jax.jit(jax.vmap(gradient))(lanes), alone, rtol=1e-9, atol=1e-9)


def test_an_implicit_solver_and_automatic_first_step():
    controller = diffrax.PIDController(rtol=1e-4, atol=1e-6)

    def count(mu):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(van_der_pol), diffrax.Kvaerno3(), 0.0, 3.0, None,
            jnp.array([2.0, 0.0]), mu, stepsize_controller=controller, adjoint=MOVING,
            max_steps=256, costs={"steps": nk.StepCount()},
        )  # fmt: skip
        return sol.costs["steps"]

    count = jax.jit(count)
    slope = (count(5.0 + 1e-5) - count(5.0 - 1e-5)) / 2e-5
    # Newton's iteration stops at its own tolerance, which the finite difference sees.
    np.testing.assert_allclose(jax.grad(count)(5.0), slope, rtol=2e-2)


def lorenz(t, y, rho):
    x, y, z = y[0], y[1], y[2]
    return jnp.stack([10 * (y - x), x * (rho - z) - y, x * y - 8 / 3 * z])


@pytest.mark.parametrize("tolerance", [1e-6, pytest.param(1e-8, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("field", "y0", "t1", "parameters"),
    [
        (van_der_pol, (2.0, 0.0), 10.0, (2.5, 3.5)),
        (lorenz, (-8.0, 7.0, 27.0), 1.5, (27.0, 29.0)),
        (lambda t, y, a: -a * (y - jnp.cos(t)), (2.0,), 1.0, (95.0, 105.0)),
    ],
    ids=["van der Pol", "Lorenz", "stiff line"],
)
def test_where_decisions_flip_it_is_the_slope_of_the_whole(field, y0, t1, parameters, tolerance):
    """A flipped decision makes a jump, and near one the derivative is large: so the median over a
    range of the parameter, against least squares over the same."""

    def count(parameter):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, t1, 0.01, jnp.array(y0), parameter,
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            adjoint=MOVING, costs={"steps": nk.StepCount()}, max_steps=1024,
        )  # fmt: skip
        return sol.costs["steps"]

    parameters = jnp.linspace(*parameters, 51)
    counts, gradients = jax.jit(jax.vmap(jax.value_and_grad(count)))(parameters)
    slope = np.polyfit(parameters, counts, 1)[0]
    np.testing.assert_allclose(np.median(gradients), slope, rtol=0.25)


def test_no_blow_up_over_thousands_of_steps():
    def count(mu):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(van_der_pol), diffrax.Tsit5(), 0.0, 300.0, 0.1, jnp.array([2.0, 0.0]),
            mu, stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6), adjoint=MOVING,
            costs={"steps": nk.StepCount()}, max_steps=10_000,
        )  # fmt: skip
        return sol.costs["steps"], sol.stats["num_accepted_steps"]

    (value, steps), gradient = jax.jit(jax.value_and_grad(count, has_aux=True))(5.0)
    assert steps > 3000 and 0.6 * float(steps) < value < float(steps)
    # Some steps more for each unit of mu, not powers of ten.
    assert 0 < gradient < float(steps)


def test_nan_in_a_rejected_attempt_leaves_no_trace():
    def last(rate):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, a: -a * jnp.sqrt(y)), diffrax.Tsit5(), 0.0, 1.9, 1.5,
            jnp.ones(1), rate, adjoint=MOVING, max_steps=256,
            stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
        )  # fmt: skip
        return sol.ys[0, 0], sol.stats["num_rejected_steps"]

    (value, rejected), gradient = jax.jit(jax.value_and_grad(last, has_aux=True))(1.0)
    assert rejected > 0
    # y = (1 - a t / 2)^2.
    np.testing.assert_allclose(value, 0.05**2, rtol=1e-2)
    np.testing.assert_allclose(gradient, -1.9 * 0.05, rtol=1e-2)


def test_constant_steps_are_constants():
    args = diffrax.ODETerm(lambda t, y, a: -a * y), diffrax.Heun(), 0.0, 1.0, 0.1, jnp.ones(1)
    last = lambda a, adjoint: nk.diffeqsolve(*args, a, adjoint=adjoint).ys[0, 0]
    moving, frozen = (jax.grad(last)(1.0, adjoint) for adjoint in (MOVING, nk.ReplayAdjoint()))
    assert close_to_rounding(moving, frozen)


def test_a_controller_of_unknown_rule_is_refused():
    inner = diffrax.PIDController(rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="knows the rule of `diffrax.PIDController` alone"):
        nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, a: -y), diffrax.Tsit5(), 0.0, 1.0, 0.1, jnp.ones(1),
            stepsize_controller=diffrax.ClipStepSizeController(inner, step_ts=[0.5]),
            adjoint=MOVING,
        )  # fmt: skip


def test_any_other_word_is_refused():
    with pytest.raises(ValueError, match="must be 'frozen' or 'differentiable'"):
        nk.ReplayAdjoint(step_sizes="moving")
