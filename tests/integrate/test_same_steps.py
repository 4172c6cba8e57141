"""In float64 the engine takes diffrax's own steps."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.close import assert_tree_close
from support.marks import slow_but
from support.problems import (
    ADAPTIVE,
    CONTROLLERS,
    FLAT,
    PROBLEMS,
    RTOL,
    SOLVERS,
    StepEnd,
    Weighed,
    any_flat_field,
    padded_state,
    random_weights,
    step_to,
)

import ndekit as nk

MAX_STEPS = 1024
COUNTS = ("num_steps", "num_accepted_steps", "num_rejected_steps")


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def assert_same_times(ours, theirs, rtol):
    """Diffrax's step ends: the random sum of ours equals that of theirs."""
    number = int(theirs.stats["num_accepted_steps"])
    sign = 1 if theirs.t1 > theirs.t0 else -1  # a cost sees time reflected
    lengths = sign * (np.asarray(theirs.ts[:number]) - float(theirs.t0))
    weights = random_weights(MAX_STEPS)[:number]
    ours_from_start = ours.costs["ends"] - np.sum(weights) * sign * float(theirs.t0)
    assert_tree_close(ours_from_start, np.sum(weights * lengths), rtol=rtol)


def assert_same_counts(ours, theirs):
    assert_tree_close(
        {name: ours.stats[name] for name in COUNTS},
        {name: theirs.stats[name] for name in COUNTS},
        rtol=0,
    )


def times_cost():
    return {"ends": Weighed(StepEnd(), jnp.asarray(random_weights(MAX_STEPS)))}


def reference(terms, solver, problem, dt0, y0, args, controller):
    return diffrax.diffeqsolve(
        terms, solver, problem.t0, problem.t1, dt0, y0, args, stepsize_controller=controller,
        saveat=diffrax.SaveAt(steps=True), max_steps=MAX_STEPS, throw=False,
    )  # fmt: skip


def ours_at(terms, solver, problem, dt0, y0, args, controller, ts, **options):
    return nk.diffeqsolve(
        terms, solver, problem.t0, problem.t1, dt0, y0, args, stepsize_controller=controller,
        saveat=diffrax.SaveAt(ts=ts), max_steps=MAX_STEPS, throw=False, **options,
    )  # fmt: skip


# One compiled pair of programs for each solver and kind of controller: the problem is an argument.


@functools.cache
def flat_solvers(solver_name, kind):
    solver, terms = SOLVERS[solver_name], diffrax.ODETerm(any_flat_field)

    def controller_of(grid):
        if kind == "step_to":
            return diffrax.StepTo(grid)
        if kind == "constant":
            return diffrax.ConstantStepSize()
        return diffrax.PIDController(rtol=RTOL[solver_name], atol=RTOL[solver_name] / 10)

    @jax.jit
    def theirs(index, t0, t1, y0, dt0, grid):
        return reference(terms, solver, Span(t0, t1), dt0, y0, index, controller_of(grid))

    @jax.jit
    def ours(index, t0, t1, y0, dt0, grid, ts):
        return ours_at(
            terms, solver, Span(t0, t1), dt0, y0, index, controller_of(grid), ts,
            costs=times_cost(),
        )  # fmt: skip

    return theirs, ours


class Span:
    def __init__(self, t0, t1):
        self.t0, self.t1 = t0, t1


@functools.cache
def flat_pair(solver_name, problem_name, kind):
    problem = PROBLEMS[problem_name]
    theirs, ours = flat_solvers(solver_name, kind)
    dt0 = (problem.t1 - problem.t0) / 57.3 if kind == "constant" else None
    grid = step_to(problem).ts
    t0, t1 = jnp.asarray(problem.t0), jnp.asarray(problem.t1)
    given = (jnp.asarray(FLAT.index(problem_name)), t0, t1, padded_state(problem), dt0, grid)
    sol = theirs(*given)
    # diffrax pads with infinity; the engine wants times inside the span.
    return sol, ours(*given, jnp.where(jnp.isfinite(sol.ts), sol.ts, t1))


FAST = {"adaptive": ["Heun", "Tsit5"], "constant": ["Euler"], "step_to": ["Ralston"]}


def cases():
    for kind in ("adaptive", "constant", "step_to"):
        for solver_name in ADAPTIVE if kind == "adaptive" else SOLVERS:
            marks = () if solver_name in FAST[kind] else pytest.mark.slow
            yield pytest.param(solver_name, kind, marks=marks)


@pytest.mark.parametrize("problem_name", FLAT)
@pytest.mark.parametrize(("solver_name", "kind"), list(cases()))
class TestEverySolverOnEveryFlatProblem:
    def test_counts_are_the_same(self, solver_name, kind, problem_name):
        theirs, ours = flat_pair(solver_name, problem_name, kind)
        assert int(theirs.stats["num_accepted_steps"]) >= 4
        assert_same_counts(ours, theirs)

    def test_times_are_the_same(self, solver_name, kind, problem_name):
        # An automatic first step is so short that its error estimate is mostly rounding, and the
        # next step with it.
        theirs, ours = flat_pair(solver_name, problem_name, kind)
        assert_same_times(ours, theirs, rtol=1e-3 if kind == "adaptive" else 1e-13)

    def test_states_are_the_same_after_each_step(self, solver_name, kind, problem_name):
        theirs, ours = flat_pair(solver_name, problem_name, kind)
        number = int(theirs.stats["num_accepted_steps"])
        assert np.all(np.isfinite(theirs.ys[:number]))
        # The weights of Dopri8 add up to hundreds, and multiply what is rounded.
        rounding = 1e-9 if solver_name == "Dopri8" else 1e-10
        assert_tree_close(ours.ys[:number], theirs.ys[:number], rtol=rounding, atol=rounding)


# Programs of their own: a first step that is given, so that every error estimate is well above
# rounding.


@functools.cache
def pair(solver_name, problem_name, controller_name):
    problem, solver = PROBLEMS[problem_name], SOLVERS[solver_name]
    terms, controller = diffrax.ODETerm(problem.field), CONTROLLERS[controller_name]
    # From where the steps of a scheme of order 8 still grow a few times.
    first = (problem.t1 - problem.t0) / (500 if solver_name == "Dopri8" else 20)
    given = (first, problem.state(), problem.parameters(), controller)
    sol = reference(terms, solver, problem, *given)
    ts = jnp.where(jnp.isfinite(sol.ts), sol.ts, problem.t1)
    return sol, ours_at(terms, solver, problem, *given, ts, costs=times_cost())


def assert_same_solve(theirs, ours):
    assert int(theirs.stats["num_accepted_steps"]) >= 5
    assert_same_counts(ours, theirs)
    assert_same_times(ours, theirs, rtol=1e-9)
    number = int(theirs.stats["num_accepted_steps"])
    ours_ys, ys = jax.tree.map(lambda y: y[:number], (ours.ys, theirs.ys))
    assert_tree_close(ours_ys, ys, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("problem_name", slow_but(("lorenz", "tree", "backward"), PROBLEMS))
def test_a_problem_compiled_by_itself_takes_diffrax_steps(problem_name):
    assert_same_solve(*pair("Tsit5", problem_name, "i"))


@pytest.mark.parametrize("solver_name", slow_but(("Bosh3",), ADAPTIVE))
def test_a_state_of_many_leaves_takes_diffrax_steps(solver_name):
    assert_same_solve(*pair(solver_name, "tree", "i"))


@pytest.mark.parametrize(
    "controller_name", slow_but(("pid", "force_dtmin", "factors"), CONTROLLERS)
)
def test_every_option_of_the_controller_takes_diffrax_steps(controller_name):
    assert_same_solve(*pair("Tsit5", "van_der_pol", controller_name))
