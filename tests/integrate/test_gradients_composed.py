"""Gradients of the engine under JAX's transformations, and past the checkpoints that it keeps."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.close import assert_tree_close
from support.marks import slow_but
from support.problems import PROBLEMS, SOLVERS

import ndekit as nk

COSTS = {"count": nk.StepCount(), "error": nk.EveryStep(nk.StepError(), "mean")}
PROBLEM = PROBLEMS["lotka_volterra"]
forced = lambda t, y, args: PROBLEM.field(t, y, args) * (1 + 0.3 * jnp.sin(5 * t))
LANES = 4


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def loss(y0, args, t1, ts, adjoint=None, rtol=1e-5, solver="Tsit5"):
    """Saved values, the end and two costs of one solve in one number."""
    sol = nk.diffeqsolve(
        diffrax.ODETerm(PROBLEM.field), SOLVERS[solver], 0.0, t1, 0.1, y0, args,
        saveat=diffrax.SaveAt(ts=ts, t1=True), costs=COSTS, max_steps=128,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol / 10),
        adjoint=nk.ReplayAdjoint() if adjoint is None else adjoint,
    )  # fmt: skip
    number = sol.ts.shape[0]
    weights = jnp.asarray(np.cos(np.arange(2.0 * number)).reshape(number, 2), sol.ys.dtype)
    return jnp.sum(weights * sol.ys) + 0.1 * sol.costs["count"] + sol.costs["error"]


def lanes():
    """Different starts, parameters and spans, so that every lane has steps of its own."""
    y0 = jnp.asarray(np.linspace([1.0, 1.0], [2.0, 0.3], LANES))
    args = jnp.asarray(np.linspace([1.5, 1.0, 3.0, 1.0], [1.0, 1.5, 2.0, 2.0], LANES))
    t1 = jnp.asarray(np.linspace(1.0, 3.0, LANES))
    ts = t1[:, None] * jnp.asarray(np.linspace(0.05, 0.95, 5))[None]
    return y0, args, t1, ts


@functools.cache
def one_by_one():
    """d loss / d everything for each lane and, as [i][j], start i under parameters j of span 0."""
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))
        y0, args, t1, ts = lanes()
        own = [gradient(y0[i], args[i], t1[i], ts[i]) for i in range(LANES)]
        cross = [[gradient(y, a, t1[0], ts[0]) for a in args] for y in y0]
    return own, cross


def stacked(rows):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def summed(rows):
    return jax.tree.map(lambda leaves: jnp.sum(leaves, axis=0), stacked(rows))


def assert_gradients_close(ours, truth):
    assert_tree_close(ours, truth, rtol=1e-8, atol=1e-8)


def test_the_lanes_take_different_numbers_of_steps():
    y0, args, t1, _ = lanes()
    steps = [
        int(nk.diffeqsolve(
            diffrax.ODETerm(PROBLEM.field), SOLVERS["Tsit5"], 0.0, t1[i], 0.1, y0[i], args[i],
            stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-6),
        ).stats["num_steps"])
        for i in (0, LANES - 1)
    ]  # fmt: skip
    assert steps[1] > steps[0] + 5


def test_vmap_of_grad_is_a_loop():
    ours = jax.jit(jax.vmap(jax.grad(loss, argnums=(0, 1, 2, 3))))(*lanes())
    assert_gradients_close(ours, stacked(one_by_one()[0]))


def test_grad_of_vmap_with_parameters_of_each_lane_is_a_loop():
    total = lambda *given: jnp.sum(jax.vmap(loss)(*given))
    ours = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))(*lanes())
    assert_gradients_close(ours, stacked(one_by_one()[0]))


def test_grad_of_vmap_with_shared_parameters_is_the_sum_of_a_loop():
    y0, args, t1, ts = lanes()
    total = lambda y0, args: jnp.sum(jax.vmap(lambda y: loss(y, args, t1[0], ts[0]))(y0))
    d_y0, d_args = jax.jit(jax.grad(total, argnums=(0, 1)))(y0, args[1])
    column = [row[1] for row in one_by_one()[1]]
    assert_gradients_close((d_y0, d_args), (stacked(column)[0], summed(column)[1]))


def test_grad_of_vmap_with_a_shared_start_is_the_sum_of_a_loop():
    y0, args, t1, ts = lanes()
    total = lambda y0, args: jnp.sum(jax.vmap(lambda a: loss(y0, a, t1[0], ts[0]))(args))
    d_y0, d_args = jax.jit(jax.grad(total, argnums=(0, 1)))(y0[2], args)
    row = one_by_one()[1][2]
    assert_gradients_close((d_y0, d_args), (summed(row)[0], stacked(row)[1]))


def test_grad_of_nested_vmap_is_a_double_loop():
    y0, args, t1, ts = lanes()

    def total(y0, args, t1, ts):
        over_starts = jax.vmap(lambda y, a: loss(y, a, t1, ts), in_axes=(0, None))
        return jnp.sum(jax.vmap(over_starts, in_axes=(None, 0))(y0, args))

    ours = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))(y0, args, t1[0], ts[0])
    table = one_by_one()[1]
    flat = [gradient for row in table for gradient in row]
    truth = (
        stacked([summed(row)[0] for row in table]),
        stacked([summed([row[j] for row in table])[1] for j in range(LANES)]),
        summed(flat)[2],
        summed(flat)[3],
    )
    assert_gradients_close(ours, truth)


def test_vmap_over_times_alone_is_a_loop():
    y0, args, t1, ts = lanes()
    ts = t1[:, None] * jnp.asarray([[0.3, 0.9]])
    gradient = jax.grad(loss, argnums=(0, 2, 3))
    ours = jax.jit(jax.vmap(gradient, in_axes=(None, None, 0, 0)))(y0[0], args[0], t1, ts)
    compiled = jax.jit(gradient)
    loop = [compiled(y0[0], args[0], t1[i], ts[i]) for i in range(LANES)]
    assert_gradients_close(ours, stacked(loop))


def test_vmap_of_the_pulled_back_directions_is_a_loop():
    y0, args, t1, ts = lanes()

    def saved(y0):
        return nk.diffeqsolve(
            diffrax.ODETerm(PROBLEM.field), SOLVERS["Bosh3"], 0.0, t1[0], 0.1, y0, args[0],
            saveat=diffrax.SaveAt(ts=ts[0]), stepsize_controller=diffrax.PIDController(1e-3, 1e-4),
        ).ys  # fmt: skip

    ours = jax.jit(jax.jacrev(saved))(y0[0])
    row = jax.jit(jax.grad(lambda y0, weights: jnp.sum(weights * saved(y0))))
    basis = jnp.eye(10).reshape(5, 2, 5, 2)
    loop = jnp.stack([jnp.stack([row(y0[0], basis[i, j]) for j in range(2)]) for i in range(5)])
    assert_gradients_close(ours, loop)


def test_jit_outside_and_inside_of_grad_agree():
    y0, args, t1, ts = [x[0] for x in lanes()]
    inside = jax.grad(jax.jit(loss), argnums=(0, 1, 2, 3))(y0, args, t1, ts)
    assert_gradients_close(inside, one_by_one()[0][0])


def test_a_scan_of_solves_is_a_loop():
    _, args, t1, ts = lanes()

    def end(y0, args):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(PROBLEM.field), SOLVERS["Bosh3"], 0.0, 0.5, 0.1, y0, args,
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-5), costs=COSTS,
        )  # fmt: skip
        return sol.ys[-1], sol.costs["count"]

    def by_scan(y0, args):
        y, counts = jax.lax.scan(lambda y, a: end(y, a), y0, args)
        return jnp.sum(y) + jnp.sum(counts)

    def by_loop(y0, args):
        total = jnp.zeros(())
        for a in args:
            y0, count = end(y0, a)
            total = total + count
        return jnp.sum(y0) + total

    y0, few = jnp.array([1.0, 0.5]), args[:2]
    ours = jax.jit(jax.grad(by_scan, argnums=(0, 1)))(y0, few)
    assert_gradients_close(ours, jax.grad(by_loop, argnums=(0, 1))(y0, few))


def test_a_rematerialised_solve_has_the_same_gradient():
    y0, args, t1, ts = [x[0] for x in lanes()]
    ours = jax.jit(jax.grad(jax.checkpoint(loss), argnums=(0, 1, 2, 3)))(y0, args, t1, ts)
    assert_gradients_close(ours, one_by_one()[0][0])


@functools.cache
def by_diffrax():
    """diffrax's gradient of the longest lane, by y0, args and ts (not costs)."""
    with jax.enable_x64(True):
        y0, args, t1, ts = [x[-1] for x in lanes()]

        def function(y0, args, ts):
            sol = diffrax.diffeqsolve(
                diffrax.ODETerm(forced), SOLVERS["Tsit5"], 0.0, t1, 0.1, y0, args,
                saveat=diffrax.SaveAt(ts=ts), max_steps=128,
                stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-9),
            )  # fmt: skip
            return jnp.sum(jnp.sin(sol.ys))

        return jax.jit(jax.grad(function, argnums=(0, 1, 2)))(y0, args, ts)


@pytest.mark.parametrize("checkpoints", slow_but([1, 3, None], [1, 2, 3, 7, None]))
def test_gradient_is_right_whatever_the_number_of_checkpoints(checkpoints):
    y0, args, t1, ts = [x[-1] for x in lanes()]

    def function(y0, args, ts):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(forced), SOLVERS["Tsit5"], 0.0, t1, 0.1, y0, args,
            saveat=diffrax.SaveAt(ts=ts), max_steps=128,
            stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-9),
            adjoint=nk.ReplayAdjoint(checkpoints=checkpoints),
        )  # fmt: skip
        return jnp.sum(jnp.sin(sol.ys)), sol.stats["num_accepted_steps"]

    gradient = jax.jit(jax.grad(function, argnums=(0, 1, 2), has_aux=True))
    ours, steps = gradient(y0, args, ts)
    assert int(steps) > 20  # well past the checkpoints
    assert_gradients_close(ours, by_diffrax())


@pytest.mark.parametrize("checkpoints", [5, None])
def test_gradient_over_thousands_of_steps_is_the_closed_form(checkpoints):
    # y' = -r y: y(t1) = y0 e^(-r t1), and a fourth-order step of 1e-3 is exact to rounding.
    def end(y0, rate):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -args * y), SOLVERS["Dopri5"], 0.0, 3.0, 1e-3, y0,
            rate, adjoint=nk.ReplayAdjoint(checkpoints=checkpoints),
        )  # fmt: skip
        return sol.ys[0], sol.stats["num_steps"]

    gradient = jax.jit(jax.grad(end, argnums=(0, 1), has_aux=True))
    (d_y0, d_rate), steps = gradient(jnp.asarray(2.0), jnp.asarray(0.4))
    assert int(steps) == 3000
    truth = np.exp(-1.2), -3.0 * 2.0 * np.exp(-1.2)
    assert_tree_close((d_y0, d_rate), truth, rtol=1e-10)


def test_lanes_keep_to_themselves_where_one_runs_out_of_steps():
    def end(y0, rate):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -args * y), SOLVERS["Bosh3"], 0.0, 1.0, 0.05, y0,
            rate, stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-6), max_steps=30,
            throw=False, costs={"count": nk.StepCount()},
        )  # fmt: skip
        return sol.ys[-1] + sol.costs["count"], sol.result == diffrax.RESULTS.successful

    gradient = jax.jit(jax.vmap(jax.grad(end, argnums=(0, 1), has_aux=True)))
    y0, rates = jnp.ones(2), jnp.array([1.0, 1000.0])
    together, finished = gradient(y0, rates)
    assert finished.tolist() == [True, False]
    alone, _ = gradient(y0[:1], rates[:1])
    assert_tree_close(jax.tree.map(lambda g: g[:1], together), alone, rtol=1e-10)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in together)


def test_gradient_in_float32_is_that_in_float64():
    def total(y0, args, t1, ts):
        # Fixed steps: an adaptive grid is another one in float32.
        sol = nk.diffeqsolve(
            diffrax.ODETerm(PROBLEM.field), SOLVERS["Tsit5"], 0.0, t1, 0.1, y0, args,
            saveat=diffrax.SaveAt(ts=ts, t1=True),
        )  # fmt: skip
        return jnp.sum(jnp.sin(sol.ys))

    found = {}
    for dtype in (jnp.float32, jnp.float64):
        with jax.enable_x64(dtype is jnp.float64):
            given = [jnp.asarray(np.asarray(x[0]), dtype) for x in lanes()]
            found[dtype] = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))(*given)
    assert {leaf.dtype for leaf in found[jnp.float32]} == {jnp.dtype("float32")}
    assert_tree_close(found[jnp.float32], found[jnp.float64], rtol=1e-4, atol=1e-5)


def test_gradient_of_costs_in_float32_is_finite():
    with jax.enable_x64(False):
        given = [x[0].astype(jnp.float32) for x in lanes()]
        gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(*given)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in gradient)
