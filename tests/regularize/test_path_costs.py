"""Integrals along the path against an augmented ODE and nested jvps; a random end."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def field(t, y, args):
    return jnp.tanh(args @ y) * jnp.cos(t)


def given():
    return jnp.array([0.5, -0.3, 0.8]), jr.normal(jr.key(0), (3, 3), jnp.float64)


def total_derivative(order, args):
    """The derivative of the state of some order, by jvps of jvps along the trajectory."""
    rate = lambda t, y: field(t, y, args)
    derivative = rate
    for _ in range(order - 1):
        inner = derivative
        derivative = lambda t, y, inner=inner: jax.jvp(
            inner, (t, y), (jnp.ones_like(t), rate(t, y))
        )[1]
    return derivative


INTEGRANDS = {
    "kinetic": lambda t, y, args: 0.5 * jnp.mean(field(t, y, args) ** 2),
    "jacobian": lambda t, y, args: jnp.sum(jax.jacfwd(field, 1)(t, y, args) ** 2) / y.size,
    "taylor1": lambda t, y, args: jnp.mean(total_derivative(1, args)(t, y) ** 2),
    "taylor2": lambda t, y, args: jnp.mean(total_derivative(2, args)(t, y) ** 2),
    "taylor3": lambda t, y, args: jnp.mean(total_derivative(3, args)(t, y) ** 2),
}
COSTS = {
    "kinetic": nk.Kinetic(),
    "jacobian": nk.JacobianNorm(exact=True),
    "taylor1": nk.Taylor(1),
    "taylor2": nk.Taylor(2),
    "taylor3": nk.Taylor(3),
}


def solve(y0, args, costs, *, vector_field=field, t1=1.0, rtol=1e-9, solver=None, **options):
    return nk.diffeqsolve(
        diffrax.ODETerm(vector_field), diffrax.Tsit5() if solver is None else solver, 0.0, t1, None,
        y0, args, stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol), costs=costs,
        **options,
    )  # fmt: skip


def augmented(y0, args, name):
    """The integral as one more state, to a finer tolerance, by diffrax."""
    both = lambda t, z, args: (field(t, z[0], args), INTEGRANDS[name](t, z[0], args))
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(both), diffrax.Dopri8(), 0.0, 1.0, None, (y0, jnp.zeros(())), args,
        stepsize_controller=diffrax.PIDController(rtol=1e-11, atol=1e-11),
    )  # fmt: skip
    return sol.ys[1][0]


@pytest.mark.parametrize("name", slow_but(("jacobian", "taylor2"), COSTS))
def test_value_and_gradient_are_those_of_an_augmented_ode(name):
    ours = lambda y0, args: solve(y0, args, {name: COSTS[name]}).costs[name]
    theirs = lambda y0, args: augmented(y0, args, name)
    found = [jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(*given()) for f in (ours, theirs)]
    assert_tree_close(*found, rtol=1e-6, atol=1e-7)


def test_the_kinetic_energy_of_a_decay_is_its_closed_form():
    # y' = -y from (1, 3): the mean of y^2 / 2 is 5 exp(-2 t) / 2.
    sol = solve(
        jnp.array([1.0, 3.0]), None, {"kinetic": nk.Kinetic()},
        vector_field=lambda t, y, args: -y,
    )  # fmt: skip
    assert_tree_close(sol.costs["kinetic"], 1.25 * (1 - np.exp(-2)), rtol=1e-7)


def test_a_probe_gives_the_norm_on_average():
    y0, args = given()
    one = lambda key: solve(y0, args, {"j": nk.JacobianNorm()}, rtol=1e-4, key=key).costs["j"]
    draws = jax.jit(jax.vmap(one))(jr.split(jr.key(3), 4000))
    exact = solve(y0, args, {"j": nk.JacobianNorm(exact=True)}, rtol=1e-4).costs["j"]
    standard_error = np.std(draws) / np.sqrt(draws.size)
    assert abs(np.mean(draws) - exact) < 4 * standard_error
    assert np.std(draws) > 0.1 * exact


@pytest.mark.parametrize("solver", [diffrax.Tsit5(), diffrax.Bosh3()])
def test_a_batch_that_is_one_state_is_averaged_over(solver):
    y0s, (_, args) = jr.normal(jr.key(1), (4, 3), jnp.float64), given()
    rows = lambda t, y, args: jax.vmap(field, in_axes=(None, 0, None))(t, y, args)
    controller = diffrax.ConstantStepSize()

    def costs_of(y0, vector_field):
        return nk.diffeqsolve(
            diffrax.ODETerm(vector_field), solver, 0.0, 1.0, 0.1, y0, args, costs=COSTS,
            stepsize_controller=controller,
        ).costs  # fmt: skip

    alone = jax.vmap(lambda y0: costs_of(y0, field))(y0s)
    mean = jax.tree.map(jnp.mean, alone)
    assert_tree_close(costs_of(y0s, rows), mean, rtol=1e-9)
    assert_tree_close(costs_of(y0s[::-1], rows), mean, rtol=1e-9)


def test_a_state_may_be_a_tree_and_time_may_run_backwards():
    split = lambda t, y, args: dict(zip("ab", jnp.split(field(t, join(y), args), [1]), strict=True))
    join = lambda y: jnp.concatenate([y["a"], y["b"]])
    y0, args = given()
    tree = solve({"a": y0[:1], "b": y0[1:]}, args, COSTS, vector_field=split, t1=-1.0)
    assert_tree_close(tree.costs, solve(y0, args, COSTS, t1=-1.0).costs, rtol=1e-6)


def test_a_field_at_rest_costs_nothing_and_has_finite_derivatives_in_float32():
    costs = COSTS | {"probe": nk.JacobianNorm()}

    def total(scale):
        sol = solve(
            jnp.ones(3), scale, costs, vector_field=lambda t, y, scale: scale * jnp.tanh(y),
            rtol=1e-4, key=jr.key(0),
        )  # fmt: skip
        return sum(sol.costs.values())

    with jax.enable_x64(False):
        value, slope = jax.value_and_grad(total)(jnp.zeros(()))
    assert value.dtype == jnp.float32
    assert value == 0
    assert jnp.isfinite(slope)


@pytest.mark.parametrize("adjoint", [diffrax.RecursiveCheckpointAdjoint(), nk.ReplayAdjoint()])
def test_the_probe_is_the_same_in_both_loops(adjoint):
    y0, args = given()
    sol = solve(y0, args, {"j": nk.JacobianNorm()}, key=jr.key(5), adjoint=adjoint)
    probe = jr.normal(jr.key(5), (3,), jnp.float64)
    squared = lambda t, y: jnp.sum((probe @ jax.jacfwd(field, 1)(t, y, args)) ** 2) / 3
    both = lambda t, z, _: (field(t, z[0], args), squared(t, z[0]))
    truth = diffrax.diffeqsolve(
        diffrax.ODETerm(both), diffrax.Dopri8(), 0.0, 1.0, None, (y0, jnp.zeros(())),
        stepsize_controller=diffrax.PIDController(rtol=1e-11, atol=1e-11),
    ).ys[1][0]  # fmt: skip
    assert_tree_close(sol.costs["j"], truth, rtol=1e-6)


def test_the_end_is_drawn_evenly():
    draw = lambda key: nk.Steer(0.25).draw(0.0, 1.0, key=key)[1]
    ends = np.sort(jax.vmap(draw)(jr.split(jr.key(0), 4000)))
    ranks = (np.arange(ends.size) + 0.5) / ends.size
    # Kolmogorov and Smirnov at the level 1e-3.
    assert np.max(np.abs((ends - 0.75) / 0.5 - ranks)) < 1.95 / np.sqrt(ends.size)


def test_bad_input_is_refused():
    y0, args = given()
    with pytest.raises(ValueError, match="needs a key"):
        solve(y0, args, {"j": nk.JacobianNorm()})
    with pytest.raises(ValueError, match="does not show"):
        solve(y0, args, {"k": nk.Kinetic()}, solver=diffrax.ReversibleHeun())
    with pytest.raises(ValueError, match="`order` must be at least 1"):
        nk.Taylor(0)
    with pytest.raises(ValueError, match="must be positive"):
        nk.Steer(0.0)
    with pytest.raises(ValueError, match="less than the span"):
        nk.Steer(1.0).draw(0.0, 1.0, key=jr.key(0))
