"""What stands beyond a lane's own end is nobody's business: values and gradients are its own.

Lanes that have ended, that gave an attempt up or that wait run through the program beside the
others. Here whatever they would find there is not a number.
"""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk


@pytest.fixture(autouse=True)
def float64(x64):
    pass


LENGTHS = np.array([0.5, 1.0, 1.5])
PID = diffrax.PIDController(rtol=1e-6, atol=1e-6)
COARSE = diffrax.PIDController(rtol=1e-3, atol=1e-3)


def table(length, width=8):
    """Rates on a grid of times, not a number behind the lane's own end."""
    ts = np.linspace(0.0, 2.0, width + 1)[:-1]
    return np.where(ts <= length, 1.0 + np.sin(3 * ts), np.nan)


def looked_up(t, y, args):
    weight, rates, length = args
    rate = rates[jnp.clip(jnp.floor(t * 4).astype(int), 0, rates.shape[0] - 1)]
    # A product of matrices whose cotangent is shared by all lanes: where zero meets NaN.
    return -rate * jnp.tanh(weight @ y)


def outside(t, y, args):
    """Only defined up to the lane's own end."""
    weight, _, length = args
    return -jnp.sqrt(length - t) * jnp.tanh(weight @ y)


def rooted(t, y, args):
    """y = (1 - t / 3)^2 for all lanes; a step that leads below zero is given up."""
    weight, _, _ = args
    return -2 / 3 * (weight @ jnp.sqrt(y))


FIELDS = {"table": looked_up, "outside": outside, "rooted": rooted}
newton = lambda: optx.Newton(1e-10, 1e-10)
SOLVERS = {
    "Euler": lambda: diffrax.Euler(),
    "Tsit5": lambda: diffrax.Tsit5(),
    "ReversibleHeun": lambda: diffrax.ReversibleHeun(),
    "Kvaerno3": lambda: diffrax.Kvaerno3(root_finder=newton()),
    "ImplicitEuler": lambda: diffrax.ImplicitEuler(root_finder=newton()),
    "HalfSolver": lambda: diffrax.HalfSolver(diffrax.Midpoint()),
    "AutoSwitch": lambda: nk.AutoSwitch(),
}
KINDS = {
    # name: solver, controller, dt0, adjoint, costs, saveat
    "plain": ("Tsit5", PID, 0.1, nk.ReplayAdjoint(), False),
    "fixed": ("Euler", diffrax.ConstantStepSize(), 0.1, nk.ReplayAdjoint(), False),
    "fixed-tsit5": ("Tsit5", diffrax.ConstantStepSize(), 0.1, nk.ReplayAdjoint(), True),
    "costs": ("Tsit5", PID, None, nk.ReplayAdjoint(), True),
    "checkpoints": ("Tsit5", PID, 0.1, nk.ReplayAdjoint(checkpoints=2), False),
    "stages": ("Tsit5", PID, 0.1, nk.ReplayAdjoint(keep="stages"), True),
    "moving": ("Tsit5", PID, 0.1, nk.ReplayAdjoint(step_sizes="differentiable"), True),
    "opaque": ("ReversibleHeun", COARSE, 0.1, nk.ReplayAdjoint(), False),
    "undone": ("ReversibleHeun", COARSE, 0.1, nk.ReversibleAdjoint(), False),
    "halved": ("HalfSolver", COARSE, 0.1, nk.ReplayAdjoint(), False),
    "implicit": ("Kvaerno3", COARSE, 0.1, nk.ReplayAdjoint(), True),
    "implicit-stages": ("Kvaerno3", COARSE, 0.1, nk.ReplayAdjoint(keep="stages"), False),
    "implicit-opaque": ("ImplicitEuler", COARSE, 0.1, nk.ReplayAdjoint(), False),
    "switching": ("AutoSwitch", PID, 0.1, nk.ReplayAdjoint(), False),
}
# Where diffrax's loop over stages stands inside a branch or is linearized, it refuses lanes that
# `jax.vmap` adds outside of a gradient. An error, and no wrong number.
ONLY_INSIDE = ("implicit-stages", "switching")
FAST = ("plain", "fixed", "costs", "moving", "implicit")


def loss_of(kind, field):
    solver, controller, dt0, adjoint, with_costs = KINDS[kind]

    def loss(weight, y0, rates, length):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(FIELDS[field]), SOLVERS[solver](), 0.0, length, dt0, y0,
            (weight, rates, length), stepsize_controller=controller, adjoint=adjoint,
            costs={"kinetic": nk.Kinetic()} if with_costs else None, max_steps=512,
            saveat=diffrax.SaveAt(ts=length * jnp.array([0.3, 0.8]), t1=True),
        )  # fmt: skip
        return jnp.sum(sol.ys**2) + sum(sol.costs.values())

    return loss


def assert_lanes_are_alone(loss, y0s, rates, rtol=1e-8, outside=True):
    weight, lengths = jnp.array([[1.0, 0.2], [-0.1, 0.9]]), jnp.asarray(LENGTHS)
    value_and_grad = lambda loss: jax.value_and_grad(loss, argnums=(0, 1))
    of_lane = jax.jit(value_and_grad(loss))
    alone = [of_lane(weight, *each) for each in zip(y0s, rates, lengths, strict=True)]
    values, gradients = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradients))
    if outside:
        outer = jax.vmap(value_and_grad(loss), in_axes=(None, 0, 0, 0))
        got = jax.jit(outer)(weight, y0s, rates, lengths)
        assert_tree_close(got, (values, gradients), rtol=rtol, atol=rtol / 10)
    inner = jax.vmap(loss, in_axes=(None, 0, 0, 0))
    total = lambda *args: jnp.sum(inner(*args))
    got = jax.jit(value_and_grad(total))(weight, y0s, rates, lengths)
    wanted = jnp.sum(values), (jnp.sum(gradients[0], axis=0), gradients[1])
    assert_tree_close(got, wanted, rtol=rtol, atol=rtol / 10)


@pytest.mark.parametrize("field", slow_but(("table",), FIELDS))
@pytest.mark.parametrize("kind", slow_but(FAST, KINDS))
def test_lanes_are_what_they_are_alone(kind, field):
    y0s = jnp.array([[1.0, 0.5], [0.7, 1.0], [0.9, 0.8]])
    rates = jnp.asarray(np.stack([table(length) for length in LENGTHS]))
    # Where the size of a step is differentiated, so is its error, and the rounding in that.
    rtol = 1e-6 if kind == "moving" else 1e-8
    assert_lanes_are_alone(loss_of(kind, field), y0s, rates, rtol, kind not in ONLY_INSIDE)


@pytest.mark.parametrize("adaptive", slow_but((False,), (False, True)))
def test_so_are_lanes_of_noise(adaptive):
    def loss(weight, y0, rates, length):
        path = nk.BrownianMotion((2,), jax.random.key(0))
        diffusion = lambda t, y, args: 0.1 * jnp.diag(jnp.tanh(args[0] @ y))
        terms = diffrax.MultiTerm(diffrax.ODETerm(looked_up), diffrax.ControlTerm(diffusion, path))
        controller = diffrax.PIDController(rtol=1e-2, atol=1e-2, pcoeff=0.1, icoeff=0.3)
        # The lane's own end, as a constant: noise has no derivative by times.
        sol = nk.diffeqsolve(
            terms, diffrax.Heun() if adaptive else diffrax.EulerHeun(), 0.0, length, 0.1, y0,
            (weight, rates, length), max_steps=256,
            stepsize_controller=controller if adaptive else diffrax.ConstantStepSize(),
        )  # fmt: skip
        return jnp.sum(sol.ys**2)

    y0s = jnp.array([[1.0, 0.5], [0.7, 1.0], [0.9, 0.8]])
    rates = jnp.asarray(np.stack([table(length) for length in LENGTHS]))
    assert_lanes_are_alone(loss, y0s, rates)


@pytest.mark.slow
def test_a_control_may_be_anything_behind_the_end_of_its_series():
    ts = jnp.linspace(0.0, 1.0, 6)

    def loss(weight, y0, values, length):
        control = diffrax.LinearInterpolation(ts, values)
        term = diffrax.ControlTerm(lambda t, y, args: jnp.tanh(args @ y)[:, None], control)
        sol = nk.diffeqsolve(
            term, diffrax.Heun(), 0.0, length, 0.1, y0, weight, stepsize_controller=COARSE
        )
        return jnp.sum(sol.ys**2)

    known = jnp.sin(jnp.arange(6.0))[:, None]
    values = jnp.stack([known.at[n:].set(jnp.nan) for n in (4, 5, 6)])
    y0s = jnp.array([[1.0, 0.5], [0.7, 1.0], [0.9, 0.8]])
    weight, lengths = jnp.array([[1.0, 0.2], [-0.1, 0.9]]), jnp.array([0.55, 0.75, 1.0])
    gradient = jax.grad(loss)
    alone = [jax.jit(gradient)(weight, *x) for x in zip(y0s, values, lengths, strict=True)]
    inner = lambda w: jnp.sum(jax.vmap(loss, in_axes=(None, 0, 0, 0))(w, y0s, values, lengths))
    got = jax.jit(jax.grad(inner))(weight)
    assert_tree_close(got, sum(alone), rtol=1e-8, atol=1e-9)
