"""Second derivatives through the default adjoint, against diffrax's direct one."""

import diffrax
import jax
import jax.numpy as jnp
import pytest
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk

PID = diffrax.PIDController(rtol=1e-5, atol=1e-5)
FIXED = diffrax.ConstantStepSize()


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def bent(t, y, args):
    return jnp.sin(y) * y[::-1]


def controlled():
    path = diffrax.LinearInterpolation(jnp.linspace(0, 1, 5), jnp.sin(jnp.arange(5.0))[:, None])
    return diffrax.ControlTerm(lambda t, y, args: jnp.sin(y)[:, None], path)


def loss(adjoint, solver, controller, *, costs=None, saveat=None, terms=None):
    def of(y0):
        sol = nk.diffeqsolve(
            terms or diffrax.ODETerm(bent), solver, 0.0, 1.0, 0.1, y0, adjoint=adjoint,
            stepsize_controller=controller, costs=costs, max_steps=64,
            saveat=saveat or diffrax.SaveAt(t1=True),
        )  # fmt: skip
        total = sum(jnp.sum(cost) for cost in sol.costs.values())
        return jnp.sum(jnp.where(jnp.isfinite(sol.ys), sol.ys, 0.0) ** 2) + total

    return of


def at_five_times():
    return diffrax.SaveAt(ts=jnp.linspace(0, 1, 5))


ALL_COSTS = dict(error=nk.StepError(), steps=nk.StepCount(), stiffness=nk.StepStiffness())
# The third derivative of a step's error, of the size of the tolerance, stands in the costs.
CASES = {
    "adaptive": lambda: (dict(solver=diffrax.Tsit5(), controller=PID), 1e-10),
    "costs": lambda: (dict(solver=diffrax.Tsit5(), controller=PID, costs=ALL_COSTS), 1e-7),
    "ts": lambda: (dict(solver=diffrax.Tsit5(), controller=PID, saveat=at_five_times()), 1e-10),
    "steps": lambda: (
        dict(solver=diffrax.Bosh3(), controller=PID, saveat=diffrax.SaveAt(steps=True)), 1e-8
    ),
    "control": lambda: (
        dict(solver=diffrax.Heun(), controller=FIXED, terms=controlled()), 1e-10
    ),
    "any solver": lambda: (dict(solver=diffrax.ReversibleHeun(), controller=FIXED), 1e-10),
}  # fmt: skip


@pytest.mark.parametrize("name", slow_but(("control",), CASES))
def test_hessian_is_that_of_diffrax(name):
    options, rtol = CASES[name]()
    y0 = jnp.array([0.3, 0.7, 0.2])
    ours = jax.jit(jax.hessian(loss(nk.ReplayAdjoint(), **options)))(y0)
    theirs = jax.jit(jax.hessian(loss(diffrax.DirectAdjoint(), **options)))(y0)
    assert_tree_close(ours, theirs, rtol=rtol, atol=10 * rtol)


@pytest.mark.slow
def test_hessian_of_moving_steps_is_that_of_the_gradient():
    adjoint = nk.ReplayAdjoint(step_sizes="differentiable")
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-3)
    of = loss(adjoint, diffrax.Tsit5(), controller, costs=dict(steps=nk.StepCount()))
    y0, h = jnp.array([0.3, 0.7, 0.2]), 1e-4
    hessian, gradient = jax.jit(jax.hessian(of))(y0), jax.jit(jax.grad(of))
    differences = [(gradient(y0 + h * e) - gradient(y0 - h * e)) / (2 * h) for e in jnp.eye(3)]
    assert_tree_close(hessian, jnp.stack(differences), rtol=1e-4, atol=1e-4)


def test_a_replayed_implicit_step_is_not_differentiated_twice():
    of = loss(nk.ReplayAdjoint(), diffrax.Kvaerno3(), PID)
    with pytest.raises(Exception, match="cannot be differentiated again|custom_vjp"):
        jax.hessian(of)(jnp.array([0.3, 0.7, 0.2]))


def test_hessian_of_a_solution_in_closed_form_with_moving_steps():
    # y' = -a y^2: y(1) = 1 / (1 + a), whose second derivative is 2 / (1 + a)^3. Found: the first
    # stage of each replayed step was a constant of every derivative, and not of one.
    def last(a):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, a: -a * y**2), diffrax.Tsit5(), 0.0, 1.0, 0.05,
            jnp.array(1.0), a, adjoint=nk.ReplayAdjoint(step_sizes="differentiable"), max_steps=64,
            stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-8),
        )  # fmt: skip
        return sol.ys[-1]

    forward_over_reverse = lambda a: jax.jvp(jax.grad(last), (a,), (1.0,))[1]
    for second in (jax.hessian(last), forward_over_reverse):
        assert_tree_close(jax.jit(second)(1.5), 2 / 2.5**3, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["Heun", "Bosh3", "Tsit5"])
@pytest.mark.parametrize("keep", ["states", "stages"])
def test_hessian_of_steps_and_their_times_is_that_of_the_gradient(solver, keep):
    """Rejected attempts, costs and step times included."""

    def of(x):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: args * bent(t, y, args)), getattr(diffrax, solver)(),
            0.0, 1.0, 0.9, x[:3], 3 * x[3], costs=dict(steps=nk.StepCount()), max_steps=64,
            adjoint=nk.ReplayAdjoint(step_sizes="differentiable", keep=keep),
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3),
            saveat=diffrax.SaveAt(steps=True),
        )  # fmt: skip
        finite = lambda y: jnp.where(jnp.isfinite(y), y, 0.0)
        total = jnp.sum(finite(sol.ys) ** 2) + jnp.sum(jnp.sin(finite(sol.ts)))
        return total + sol.costs["steps"], sol.stats["num_rejected_steps"]

    x, h = jnp.array([0.3, 0.7, 0.2, 1.1]), 1e-5
    gradient = jax.jit(jax.grad(of, has_aux=True))
    assert gradient(x)[1] > 0
    hessian = jax.jit(jax.hessian(lambda x: of(x)[0]))(x)
    differences = [(gradient(x + h * e)[0] - gradient(x - h * e)[0]) / (2 * h) for e in jnp.eye(4)]
    assert_tree_close(hessian, jnp.stack(differences), rtol=1e-4, atol=1e-4)
