"""The reverse pass of one small state: many steps at once, or page by page."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close, close_to_rounding
from support.marks import slow_but

import ndekit as nk
from ndekit.integrate.forward.record import empty_record
from ndekit.integrate.replay.steps_at_once import STEPS

EXPLICIT = ("Tsit5", "Euler", "Heun", "Midpoint", "Ralston", "Bosh3", "Dopri5", "Dopri8")
COSTS = {
    "steps": nk.StepCount(),
    "error": nk.EveryStep(nk.StepError(), "mean"),
    "longest": nk.EveryStep(nk.StepError(power=2), "max"),
}


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def network(size, width=8, dtype=jnp.float64):
    keys = jr.split(jr.key(0), 2)
    shapes = (size + 1, width), (width, size)
    return [jr.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True)]


def swirl(t, y, weights):
    """A network of the state and of time: no field of a few additions."""
    inner, outer = weights
    return jnp.tanh(jnp.concatenate([y, jnp.sin(3 * t)[None]]) @ inner) @ outer


def loss_of(
    solver="Tsit5", *, adjoint=None, saveat=None, costs=None, size=2, rtol=1e-5, steps=None, **more
):
    """`(weights, y0, t0, t1) -> number`, adaptive or with `steps` of one size."""
    controller = diffrax.PIDController(rtol=rtol, atol=rtol)
    method = getattr(diffrax, solver)()

    def loss(weights, y0, t0, t1, places=np.linspace(0, 1, 7)):
        at = t0 + (t1 - t0) * places
        fixed = steps is not None or solver == "Euler"
        sol = nk.diffeqsolve(
            diffrax.ODETerm(swirl), method, t0, t1,
            (t1 - t0) / (steps or 40) if fixed else 0.1, y0, weights,
            saveat=saveat(at) if saveat else diffrax.SaveAt(t1=True),
            stepsize_controller=diffrax.ConstantStepSize() if fixed else controller,
            adjoint=adjoint or nk.ReplayAdjoint(),
            costs=costs, **more,
        )  # fmt: skip
        values = sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(sol.ys))
        return values + sum(0.1 * cost for cost in sol.costs.values())

    return loss


def given(size=2):
    return network(size), jnp.linspace(0.5, 1.0, size), jnp.array(0.2), jnp.array(2.2)


def gradient(loss, *arguments, by=(0, 1)):
    """Not by `t0` and `t1`: where these are differentiated, steps are followed one by one."""
    return jax.jit(jax.grad(loss, argnums=by))(*arguments)


# Asked for checkpoints, the reverse pass goes step by step.
ONE_BY_ONE = nk.ReplayAdjoint(checkpoints=50)
SAVES = {
    "end": None,
    "ts": lambda ts: diffrax.SaveAt(ts=ts),
    "ends and ts": lambda ts: diffrax.SaveAt(t0=True, ts=ts, t1=True),
    "fn": lambda ts: diffrax.SaveAt(ts=ts, fn=lambda t, y, args: t * y[:1]),
    "subs": lambda ts: diffrax.SaveAt(
        subs=[diffrax.SubSaveAt(t1=True), diffrax.SubSaveAt(ts=ts[2:])]
    ),
}


@pytest.mark.parametrize("solver", slow_but(("Tsit5",), EXPLICIT))
def test_many_steps_at_once_are_as_one_by_one(solver):
    with_costs = {} if solver == "Euler" else dict(costs=COSTS)
    for more in ({}, dict(saveat=SAVES["ts"], **with_costs)):
        many, single = (loss_of(solver, adjoint=how, **more) for how in (None, ONE_BY_ONE))
        # Roots of small errors multiply what is rounded.
        assert_tree_close(gradient(many, *given()), gradient(single, *given()), 1e-7, 1e-8)


@pytest.mark.parametrize("name", slow_but(("ts",), list(SAVES)))
def test_saved_values_reach_their_steps(name):
    arguments, by = (*given(), jnp.linspace(0, 1, 7)), (0, 1, 4)
    many, single = (
        gradient(loss_of(adjoint=how, saveat=SAVES[name]), *arguments, by=by)
        for how in (None, ONE_BY_ONE)
    )
    assert_tree_close(many, single, 1e-10, 1e-11)


LENGTHS = (1, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS + 3)


@pytest.mark.parametrize("steps", slow_but((1, STEPS + 1), LENGTHS))
def test_stretches_of_any_length_give_diffrax_gradient(steps):
    weights, y0, t0, t1 = given()

    def by_diffrax(weights, y0):
        return jnp.sum(jnp.sin(diffrax.diffeqsolve(
            diffrax.ODETerm(swirl), diffrax.Heun(), t0, t1, (t1 - t0) / steps, y0, weights,
            max_steps=64, adjoint=diffrax.DirectAdjoint(),
        ).ys))  # fmt: skip

    ours = loss_of("Heun", steps=steps, max_steps=64)
    mine = gradient(lambda weights, y0: ours(weights, y0, t0, t1), weights, y0)
    assert_tree_close(mine, gradient(by_diffrax, weights, y0), 1e-11, 1e-12)


class Early(nk.AbstractStepCost):
    """Largest in the first steps, which are the last that the reverse pass comes to."""

    def of_step(self, step):
        return jnp.sum(step.y1**2) * jnp.exp(-9 * step.t0)


def test_costs_of_more_steps_than_go_at_once_are_as_one_by_one():
    largest = {"largest": nk.EveryStep(Early(), "max")}
    many, single = (
        gradient(loss_of("Heun", adjoint=how, steps=STEPS + 9, costs=largest), *given())
        for how in (None, ONE_BY_ONE)
    )
    assert_tree_close(many, single, 1e-10, 1e-11)


@pytest.mark.parametrize("size", slow_but((8,), (1, 8, 9)))
def test_states_of_any_size_have_the_same_gradient(size):
    many, single = (loss_of(adjoint=how, size=size) for how in (None, ONE_BY_ONE))
    assert_tree_close(gradient(many, *given(size)), gradient(single, *given(size)), 1e-10, 1e-11)


def test_a_state_of_leaves_of_several_dtypes():
    def field(t, y, args):
        first, second = y
        return jnp.tanh(args * first), -second * jnp.sin(first.astype(second.dtype))

    def loss(args, adjoint):
        y0 = jnp.ones(2), jnp.ones(2, jnp.float32)
        sol = nk.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, 0.1, y0, args, adjoint=adjoint,
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4),
        )  # fmt: skip
        return jnp.sum(sol.ys[0]) + jnp.sum(sol.ys[1]).astype(jnp.float64)

    many, single = (jax.grad(loss)(0.7, how) for how in (nk.ReplayAdjoint(), ONE_BY_ONE))
    assert np.allclose(many, single, rtol=1e-6)


def test_each_sample_has_its_gradient_under_vmap():
    """There the lanes go step by step, and no stage is noted in any of them."""
    weights, _, t0, t1 = given()
    y0s = jr.normal(jr.key(1), (5, 2))
    of_one = jax.grad(lambda weights, y0: loss_of(costs=COSTS)(weights, y0, t0, t1), (0, 1))
    mapped = jax.jit(jax.vmap(of_one, (None, 0)))
    one_by_one = [of_one(weights, y0) for y0 in y0s]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one)
    assert_tree_close(mapped(weights, y0s), stacked, 1e-7, 1e-8)
    memory = mapped.lower(weights, y0s).compile().memory_analysis()
    of_the_stages = 5 * 4096 * 7 * 2 * 8
    assert memory.temp_size_in_bytes < of_the_stages


def test_second_derivatives_go_step_by_step():
    weights, y0, t0, t1 = given()
    many, single = (
        jax.hessian(lambda y0, how=how: loss_of(adjoint=how)(weights, y0, t0, t1))(y0)
        for how in (None, ONE_BY_ONE)
    )
    assert_tree_close(many, single, 1e-9, 1e-10)


def test_jumps_of_the_field_are_seen():
    def loss(rate, adjoint):
        field = lambda t, y, args: jnp.where(t < 0.437, jnp.tanh(args), -args * jnp.sin(y))
        return nk.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, 0.1, jnp.ones(1), rate,
            stepsize_controller=diffrax.ClipStepSizeController(
                diffrax.PIDController(rtol=1e-6, atol=1e-6), jump_ts=[0.437]
            ),
            adjoint=adjoint,
        ).ys[0, 0]  # fmt: skip

    many, single = (jax.grad(loss)(0.7, how) for how in (nk.ReplayAdjoint(), ONE_BY_ONE))
    assert np.allclose(many, single, rtol=1e-12)


def test_a_field_that_calls_back_is_called_once_at_a_time():
    @jax.custom_vjp
    def outside(y):
        sine = lambda y: np.sin(np.asarray(y))
        return jax.pure_callback(sine, jax.ShapeDtypeStruct(y.shape, y.dtype), y)

    outside.defvjp(lambda y: (outside(y), y), lambda y, ct: (jnp.cos(y) * ct,))

    def end(y0, sine):
        field = lambda t, y, args: sine(y)
        t0, t1, dt0 = map(jnp.float32, (0.0, 1.0, 0.25))
        return nk.diffeqsolve(diffrax.ODETerm(field), diffrax.Heun(), t0, t1, dt0, y0).ys[0, 0]

    y0 = jnp.ones(1, jnp.float32)
    assert close_to_rounding(jax.grad(end)(y0, outside), jax.grad(end)(y0, jnp.sin))


def test_the_reverse_pass_does_not_grow_with_the_stages():
    """All stages are one batch: thirteen of them are as long a program as seven."""

    def products(solver):
        jaxpr = jax.make_jaxpr(jax.grad(loss_of(solver, max_steps=64)))(*given()).jaxpr
        (pull,) = (e for e in _all_equations(jaxpr) if e.primitive.name == "ndekit_pull")
        backward = pull.params["program"].traced.jaxpr
        return sum(e.primitive.name == "dot_general" for e in _all_equations(backward))

    assert products("Dopri8") == products("Tsit5") > 0


def _all_equations(jaxpr, within=()):
    """Of a program and what it calls, but not `within` some of its equations."""
    for eqn in jaxpr.eqns:
        yield eqn
        if eqn.primitive.name not in within:
            for inner in jax.extend.core.jaxprs_in_params(eqn.params):
                yield from _all_equations(inner, within)


@pytest.mark.parametrize("solver", slow_but(("Tsit5",), ("Tsit5", "Heun", "Dopri8")))
def test_pages_hold_solves_of_any_length(solver):
    """The record of a field of a few additions is written and read in pages of 8 or 16 steps."""

    def end(rate, y0, steps, solve):
        field = lambda t, y, args: jnp.stack([y[1], -args * y[0] * y[1]])
        return jnp.sum(solve(
            diffrax.ODETerm(field), getattr(diffrax, solver)(), 0.0, 1.0, 1.0 / steps, y0, rate,
            max_steps=64,
        ).ys)  # fmt: skip

    direct = functools.partial(diffrax.diffeqsolve, adjoint=diffrax.DirectAdjoint())
    arguments = jnp.array(2.0), jnp.array([1.0, 0.5])
    ours, theirs = (
        jax.jit(jax.grad(lambda *xs, solve=solve: end(*xs, solve), (0, 1)))
        for solve in (nk.diffeqsolve, direct)
    )
    for steps in (1.0, 7.0, 8.0, 9.0, 16.0, 17.0, 31.0, 50.0):
        assert_tree_close(ours(*arguments, steps), theirs(*arguments, steps), 1e-12, 1e-13)


@pytest.mark.parametrize("bytes_a_row, page", [(16, 16), (48, 8), (96, 4), (200, 0)])
def test_length_of_pages(bytes_a_row, page):
    time, state = jnp.zeros(()), jnp.zeros((bytes_a_row - 8) // 8)
    assert empty_record(time, state, None, None, 256, checkpoints=256).page == page


def test_the_first_stage_is_not_differentiated_where_nobody_reads_it():
    """It is part of the first step, so outside of the loops the field is evaluated, once."""
    weights, y0, t0, t1 = given()
    program = jax.make_jaxpr(jax.grad(loss_of()))(weights, y0, t0, t1).jaxpr
    loops = ("while", "ndekit_record", "ndekit_pull")
    names = [e.primitive.name for e in _all_equations(program, within=loops)]
    assert names.count("dot_general") == 2  # that of each layer
