"""Derivatives by the times that a user owns: both ends, a fixed grid, stops and jumps.

Held against finite differences of the solve itself, wherever the grid of steps is the user's.
"""

import itertools

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


def bent(t, y, args):
    return jnp.sin(y + 3 * t) - 0.6 * y[::-1]


def split():
    fast = diffrax.ODETerm(lambda t, y, args: -0.6 * y[::-1])
    return diffrax.MultiTerm(diffrax.ODETerm(lambda t, y, args: jnp.sin(y + 3 * t)), fast)


def pair():
    position = diffrax.ODETerm(lambda t, p, args: jnp.sin(p + 3 * t))
    return position, diffrax.ODETerm(lambda t, x, args: -x - t)


newton = lambda: optx.Newton(1e-11, 1e-11)
implicit = lambda name: getattr(diffrax, name)(root_finder=newton())
SOLVERS = {
    **{name: getattr(diffrax, name) for name in "Euler Heun Midpoint Ralston Bosh3 Tsit5".split()},
    **{name: getattr(diffrax, name) for name in "Dopri5 Dopri8 LeapfrogMidpoint".split()},
    "ReversibleHeun": diffrax.ReversibleHeun,
    "SemiImplicitEuler": diffrax.SemiImplicitEuler,
    "ImplicitEuler": lambda: implicit("ImplicitEuler"),
    "Kvaerno3": lambda: implicit("Kvaerno3"),
    "KenCarp3": lambda: implicit("KenCarp3"),
    "HalfSolver": lambda: diffrax.HalfSolver(diffrax.Heun()),
    "Reversible": lambda: nk.Reversible(diffrax.Bosh3()),
    "AsynchronousLeapfrog": nk.AsynchronousLeapfrog,
}
UNDONE = ("ReversibleHeun", "Reversible", "AsynchronousLeapfrog")
TERMS = {"KenCarp3": split, "SemiImplicitEuler": pair}


def weighed(sol):
    """A number that depends on every saved value and on every saved time."""
    finite = lambda x: jnp.where(jnp.isfinite(x), x, 0.0)
    places = lambda y: jnp.arange(1.0, 1 + y.size).reshape(y.shape)
    values = [jnp.sum(finite(y) * places(y)) for y in jax.tree.leaves(sol.ys)]
    return sum(values) + 0.3 * jnp.sum(jnp.sin(finite(sol.ts)))


def solve(name, t0, t1, dt0, **options):
    y0 = jnp.array([1.0, 0.3])
    terms = TERMS.get(name, lambda: diffrax.ODETerm(bent))()
    return nk.diffeqsolve(
        terms, SOLVERS[name](), t0, t1, dt0, (y0, y0) if name == "SemiImplicitEuler" else y0,
        max_steps=16, **options,
    )  # fmt: skip


def constant(name, times, **options):
    saveat = diffrax.SaveAt(ts=times[3:], t1=True)
    return weighed(solve(name, times[0], times[1], times[2], saveat=saveat, **options))


def step_to(name, times, **options):
    saveat = diffrax.SaveAt(ts=jnp.array([0.2, 0.9]), t1=True)
    options = dict(stepsize_controller=diffrax.StepTo(times), saveat=saveat) | options
    return weighed(solve(name, times[0], times[-1], None, **options))


GRIDS = {
    "constant": (constant, [0.1, 1.63, 0.4, 0.3, 1.1]),
    "backwards": (constant, [1.63, 0.1, -0.4, 1.1, 0.3]),
    "step_to": (step_to, [0.1, 0.35, 0.8, 1.2]),
}


def assert_derivative(of, times):
    times = jnp.asarray(times)
    run, h = jax.jit(of), 1e-6
    differences = [(run(times + h * e) - run(times - h * e)) / (2 * h) for e in jnp.eye(times.size)]
    assert_tree_close(jax.jit(jax.grad(run))(times), jnp.stack(differences), rtol=0, atol=2e-7)


QUICK = {("Tsit5", "constant"), ("Tsit5", "backwards"), ("Euler", "step_to")}
QUICK |= {("LeapfrogMidpoint", "constant"), ("LeapfrogMidpoint", "step_to")}


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow)
        for pair in itertools.product(SOLVERS, GRIDS)
    ],
)
def test_a_fixed_grid_moves_with_the_times_that_it_is_made_of(name, grid):
    of, times = GRIDS[grid]
    assert_derivative(lambda times: of(name, times), times)


@pytest.mark.parametrize("name", slow_but(("ReversibleHeun",), UNDONE))
def test_so_does_one_that_is_undone(name):
    adjoint = nk.ReversibleAdjoint()
    assert_derivative(lambda times: constant(name, times, adjoint=adjoint), GRIDS["constant"][1])


@pytest.mark.parametrize("name", slow_but((), ("Tsit5", "Kvaerno3", "SemiImplicitEuler")))
def test_so_does_one_whose_stages_are_kept(name):
    adjoint = nk.ReplayAdjoint(keep="stages")
    assert_derivative(lambda times: constant(name, times, adjoint=adjoint), GRIDS["constant"][1])


@pytest.mark.slow  # two more programs of what the tests above have
def test_checkpoints_and_costs_do_not_change_the_derivative_by_times():
    def of(times):
        sol = solve(
            "Bosh3", times[0], times[1], times[2], adjoint=nk.ReplayAdjoint(checkpoints=2),
            costs={"kinetic": nk.Kinetic()}, saveat=diffrax.SaveAt(steps=True),
        )  # fmt: skip
        return weighed(sol) + sol.costs["kinetic"]

    assert_derivative(of, [0.1, 1.63, 0.3])


@pytest.mark.slow
def test_lanes_have_the_derivatives_by_their_own_times():
    many = jnp.array([[0.1, 1.63, 0.4, 0.3, 1.1], [0.2, 1.0, 0.15, 0.25, 0.9]])
    of_lane = lambda times: constant("Tsit5", times)
    alone = jnp.stack([jax.jit(jax.grad(of_lane))(times) for times in many])
    together = jax.jit(jax.grad(lambda many: jnp.sum(jax.vmap(of_lane)(many))))(many)
    assert_tree_close(together, alone, rtol=1e-12, atol=1e-13)
    assert_tree_close(jax.jit(jax.vmap(jax.grad(of_lane)))(many), alone, rtol=1e-12, atol=1e-13)


def test_dense_output_knows_where_its_steps_end():
    def of(times):
        sol = solve("Bosh3", times[0], times[1], times[2], saveat=diffrax.SaveAt(dense=True))
        return jnp.sum(sol.evaluate(1.5) + 0.3 * sol.evaluate(0.3))

    assert_derivative(of, [0.1, 1.63, 0.4])


@pytest.mark.slow
def test_a_fixed_grid_has_second_derivatives():
    of = lambda times: constant("Bosh3", times)
    times, h = jnp.array(GRIDS["constant"][1]), 1e-5
    gradient = jax.jit(jax.grad(of))
    differences = [
        (gradient(times + h * e) - gradient(times - h * e)) / (2 * h) for e in jnp.eye(times.size)
    ]
    hessian = jax.jit(jax.hessian(of))(times)
    assert_tree_close(hessian, jnp.stack(differences), rtol=1e-6, atol=1e-6)


# Controllers of one's own.


class ByState(diffrax.AbstractStepSizeController):
    """Steps whose length is a smooth function of the state and of a number of the controller's."""

    factor: jax.Array

    def wrap(self, direction):
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        return t0 + dt0, None

    def adapt_step_size(self, t0, t1, y0, y1, args, y_error, error_order, state):
        h = self.factor / (1 + jnp.sum(y1**2))
        return True, t1, t1 + h, False, state, diffrax.RESULTS.successful


class Halving(ByState):
    """The same, but a step longer than `factor` is rejected and halved."""

    def adapt_step_size(self, t0, t1, y0, y1, args, y_error, error_order, state):
        keep = t1 - t0 < self.factor
        after = jnp.where(keep, t1 + 3 * (t1 - t0), t0 + 0.5 * (t1 - t0))
        return keep, jnp.where(keep, t1, t0), after, False, state, diffrax.RESULTS.successful


@pytest.mark.parametrize("kind", slow_but((ByState,), (ByState, Halving)))
def test_a_controller_of_ones_own_is_differentiated_as_it_is_written(kind):
    def of(x):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(bent), diffrax.Bosh3(), 0.1, x[0], x[1], x[3:], max_steps=32,
            stepsize_controller=kind(x[2]), saveat=diffrax.SaveAt(steps=True),
        )  # fmt: skip
        return weighed(sol)

    assert_derivative(of, [1.63, 0.17, 0.23, 1.0, 0.3])


# Times of a clipping controller.


def pid(**clips):
    controller = diffrax.PIDController(rtol=1e-9, atol=1e-9)
    return diffrax.ClipStepSizeController(controller, **clips) if clips else controller


def pushed(controller, place, saveat=None, **options):
    """y' = -y + [t >= place], u' = y from (1, 0): u(1) = 1 - exp(place - 1) + ..."""
    field = lambda t, y, args: (-y[0] + jnp.where(t < args, 0.0, 1.0), y[0])
    return nk.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, None, (1.0, 0.0), place,
        stepsize_controller=controller, **options,
    )  # fmt: skip


@pytest.mark.parametrize("which", slow_but(("step_ts",), ("step_ts", "jump_ts")))
def test_the_time_of_a_forcing_is_learnt_where_steps_end_on_it(which):
    def last(place):
        return pushed(pid(**{which: place[None]}), place).ys[1][-1]

    value, slope = jax.jit(jax.value_and_grad(last))(jnp.array(0.5))
    exact = lambda s: (1 - np.exp(-1)) + (1 - s) - (1 - np.exp(s - 1))
    # What is left out of a jump is one unit in the last place.
    assert_tree_close((value, slope), (exact(0.5), -(1 - np.exp(-0.5))), rtol=1e-6)


@pytest.mark.slow
def test_each_lane_learns_its_own_time():
    last = lambda place: pushed(pid(step_ts=place[None]), place).ys[1][-1]
    places = jnp.array([0.3, 0.5, 0.8])
    exact = -(1 - np.exp(np.asarray(places) - 1))
    for gradient in (jax.vmap(jax.grad(last)), jax.grad(lambda p: jnp.sum(jax.vmap(last)(p)))):
        assert_tree_close(jax.jit(gradient)(places), exact, rtol=1e-5)


@pytest.mark.slow
def test_stops_backwards_in_time_and_among_others():
    def last(places):
        field = lambda t, y, args: -y + jnp.where(t > args, 1.0, 0.0)
        sol = nk.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Dopri5(), 1.0, 0.0, None, jnp.array(1.0), places[1],
            stepsize_controller=pid(step_ts=places), saveat=diffrax.SaveAt(ts=[0.9, 0.1]),
        )  # fmt: skip
        return sol.ys[-1]

    # From 1 down to s the field is 1 - y, which y = 1 solves; below it -y: y(0.1) = exp(s - 0.1).
    slopes = jax.jit(jax.grad(last))(jnp.array([0.2, 0.6, 0.7]))
    assert_tree_close(slopes, np.array([0.0, np.exp(0.5), 0.0]), rtol=1e-5, atol=1e-6)


def test_a_clipped_end_that_is_rejected_moves_what_follows():
    # The first step wants to go beyond `t1`, is clipped to it and rejected there: its end is a
    # share of `t1` then, by the rule itself as by diffrax's constants.
    def of(t1, adjoint):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -40 * (y - jnp.cos(t))), diffrax.Heun(), 0.0, t1,
            5.0, jnp.array(0.0), stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4),
            saveat=diffrax.SaveAt(steps=True), max_steps=256, adjoint=adjoint,
        )  # fmt: skip
        return sol.ts[0], sol.stats["num_rejected_steps"]

    t1, h = jnp.array(0.3), 1e-6
    moving = jax.jit(lambda t1: of(t1, nk.ReplayAdjoint(step_sizes="differentiable")))
    first, rejected = moving(t1)
    assert rejected > 0
    slope = jax.jit(jax.grad(lambda t1: moving(t1)[0]))(t1)
    assert_tree_close(slope, (moving(t1 + h)[0] - moving(t1 - h)[0]) / (2 * h), rtol=0, atol=1e-4)
    frozen = jax.jit(jax.grad(lambda t1: of(t1, nk.ReplayAdjoint())[0]))(t1)
    assert_tree_close(frozen, first / t1, rtol=1e-9)


def test_values_of_a_solve_over_no_time_stand_at_its_start():
    def total(library, times):
        sol = library.diffeqsolve(
            diffrax.ODETerm(bent), diffrax.Tsit5(), times[0], times[1], 0.1, jnp.ones(2),
            saveat=diffrax.SaveAt(ts=times[2:], t1=True),
        )  # fmt: skip
        return weighed(sol)

    times = jnp.full(4, 0.3)
    ours, theirs = (jax.grad(lambda t, lib=lib: total(lib, t))(times) for lib in (nk, diffrax))
    assert_tree_close(ours, theirs, rtol=1e-12)
