"""What a field computes from the time alone is done for all stages of a step at once."""

from collections import Counter

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import pytest
from jax.extend import core as jex_core
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk
from ndekit.integrate.programs.closure_convert import convert
from ndekit.integrate.programs.time_only import at_times, time_only_part

SIZE, CHANNELS = 4, 3


def spline():
    ts = jnp.linspace(0.0, 1.0, 20)
    xs = jnp.sin(jnp.outer(ts, jnp.arange(1.0, 1 + CHANNELS)))
    return diffrax.CubicInterpolation(ts, diffrax.backward_hermite_coefficients(ts, xs))


def matrix(t, y, args):
    return jnp.tanh(y[:, None] * args)


def forced_by_table(t, y, args):
    table = jnp.arange(20.0)
    return -y + args[:, 0] * jnp.interp(t, table / 20, jnp.cos(table))


def with_schedule(t, y, args):
    """A network of the time: a product of matrices that does not wait for the state."""
    times = jnp.sin(t * jnp.arange(1.0, 1 + CHANNELS))
    return -y * jax.nn.sigmoid(args @ times)


def with_branch(t, y, args):
    """What a `cond` on the time chooses may not be computed in both branches."""
    table = jnp.arange(20.0)
    late = lambda: jnp.interp(t, table / 20, table)
    return y * jax.lax.cond(t > 0.5, late, lambda: jnp.zeros_like(t)) * args[:, 0]


FIELDS = {
    "control": lambda: diffrax.ControlTerm(matrix, spline()).to_ode().vector_field,
    "control inside jit": lambda: eqx.filter_jit(
        lambda t, y, args, path=spline(): matrix(t, y, args) @ path.derivative(t)
    ),
    "table": lambda: forced_by_table,
    "schedule": lambda: with_schedule,
}
WHOLE = {
    "autonomous": lambda t, y, args: args @ args.T @ y,
    "forced": lambda t, y, args: -y + jnp.sin(t),
    "table of the state": lambda t, y, args: jnp.interp(y, y + args[:, 0], y) * t,
    "branch": with_branch,
}


def given():
    return jnp.linspace(0.5, 1.0, SIZE), jr.normal(jr.key(0), (SIZE, CHANNELS))


def in_two(field):
    """The field as the engine has it, and its program in two."""
    y, args = given()
    converted, constants = convert(lambda t, y: field(t, y, args), jnp.array(0.0), y)
    return converted, constants, time_only_part(converted)


def no_fence(x):
    return x


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", FIELDS)
def test_both_programs_together_are_the_field(name):
    field, (y, args) = FIELDS[name](), given()
    converted, constants, ahead = in_two(field)
    assert ahead is not None
    timed = ahead.timed(constants, lambda t, y: converted(constants, t, y), no_fence)
    ts = jnp.linspace(-0.1, 1.1, 13)
    found = [at_times(timed, ts)(i, y) for i in range(len(ts))]
    expected = [field(t, y, args) for t in ts]
    assert_tree_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", WHOLE)
def test_a_field_that_has_nothing_to_gain_stays_whole(name):
    assert in_two(WHOLE[name])[2] is None


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", slow_but(["control inside jit", "schedule"], FIELDS))
def test_steps_values_and_gradients_are_those_of_diffrax(name):
    field, (y, args) = FIELDS[name](), given()

    def solve(diffeqsolve, args, y):
        sol = diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, None, y, args,
            stepsize_controller=diffrax.StepTo(jnp.linspace(0.0, 1.0, 12)),
        )  # fmt: skip
        return jnp.sum(sol.ys**2), sol.ys

    by = lambda door: jax.grad(lambda *a: solve(door, *a), argnums=(0, 1), has_aux=True)(args, y)
    assert_tree_close(by(nk.diffeqsolve), by(diffrax.diffeqsolve), rtol=1e-11, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_the_gradient_reaches_the_control_itself():
    y, args = given()

    def loss(coeffs, door):
        path = diffrax.CubicInterpolation(spline().ts, coeffs)
        sol = door(
            diffrax.ControlTerm(matrix, path).to_ode(), diffrax.Tsit5(), 0.0, 1.0, None, y, args,
            stepsize_controller=diffrax.StepTo(jnp.linspace(0.0, 1.0, 30)),
        )  # fmt: skip
        return jnp.sum(sol.ys**2)

    ours, theirs = (
        jax.grad(loss)(spline().coeffs, door) for door in (nk.diffeqsolve, diffrax.diffeqsolve)
    )
    assert_tree_close(ours, theirs, rtol=1e-11, atol=1e-13)


def test_a_path_is_looked_up_once_for_a_step():
    """One binary search in the program of a solve with six stages, and one for its first step."""
    y, args = given()
    term = diffrax.ControlTerm(matrix, spline()).to_ode()

    def solve(args):
        return nk.diffeqsolve(
            term, diffrax.Tsit5(), 0.0, 1.0, 0.01, y, args,
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6),
        ).ys  # fmt: skip

    program = jax.make_jaxpr(solve)(args).jaxpr
    assert count(program)["scan"] <= 2


def count(jaxpr):
    """How often each primitive stands in a program."""
    names = Counter()
    for eqn in jaxpr.eqns:
        names[eqn.primitive.name] += 1
        for inner in jex_core.jaxprs_in_params(eqn.params):
            names += count(inner)
    return names


def test_a_state_may_be_callable():
    """A network's weights flow downhill; the network is not taken for a function of the step."""
    weights = eqx.nn.Linear(2, 1, key=jr.key(0))

    def end(weights):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: jax.tree.map(jnp.negative, y)), diffrax.Tsit5(),
            0.0, 1.0, 0.25, weights, stepsize_controller=diffrax.ConstantStepSize(),
        )  # fmt: skip
        return jax.tree.map(lambda y: y[0], sol.ys)

    shrunk = jax.tree.map(lambda w: w * jnp.exp(-1.0), weights)
    assert_tree_close(jax.tree.leaves(end(weights)), jax.tree.leaves(shrunk), rtol=1e-5)
    slope = eqx.filter_grad(lambda w: jnp.sum(end(w).weight))(weights)
    assert_tree_close(slope.weight, jnp.full((1, 2), jnp.exp(-1.0)), rtol=1e-5)


def test_a_field_may_print_beside():
    seen = []

    def field(t, y, args):
        jax.debug.callback(seen.append, t)
        return jnp.interp(t, jnp.arange(3.0), jnp.ones(3)) * y

    sol = nk.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, 0.25, jnp.ones(2),
        stepsize_controller=diffrax.ConstantStepSize(),
    )  # fmt: skip
    jax.block_until_ready(sol.ys)
    jax.effects_barrier()
    assert len(seen) == sol.stats["num_evals"]


def test_a_field_that_asks_the_host_is_asked_for_one_stage_at_a_time():
    """A callback may refuse a batch."""
    wave = lambda t: jax.pure_callback(lambda t: jnp.cos(t), t, t)
    field = lambda t, y, args: wave(t) + 0 * y + jnp.interp(t, jnp.arange(3.0), jnp.ones(3))
    sol = nk.diffeqsolve(diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, 0.1, jnp.zeros(2))
    expected = jnp.sin(1.0) + 1.0
    assert_tree_close(sol.ys[0], jnp.full(2, expected), rtol=1e-5)
