"""Systems of a few unknowns, solved without a library: the same as with one."""

import diffrax
import jax.numpy as jnp
import jax.random as jr
import lineax as lx
import numpy as np
import optimistix as optx
import pytest
from support.close import assert_tree_close
from support.stiff_problems import robertson

import ndekit as nk
from ndekit.integrate.solvers.small_systems import ByInverse, by_inverses, inverse


@pytest.fixture(autouse=True)
def float64(x64):
    pass


CHORD = diffrax.with_stepsize_controller_tols(optx.Chord)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_inverses_are_those_of_numpy(size):
    m = jr.normal(jr.key(size), (20, size, size))
    assert_tree_close(inverse(m), jnp.asarray(np.linalg.inv(m)), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_zeros_on_the_diagonal_are_exchanged(size):
    """Every permutation of rows, scaled over twenty powers of ten."""
    scales = jnp.diag(10.0 ** jnp.linspace(-10, 10, size))
    m = jnp.stack([scales[jr.permutation(jr.key(i), size)] for i in range(20)])
    assert_tree_close(m @ inverse(m), jnp.stack([jnp.eye(size)] * 20), rtol=1e-14, atol=1e-14)


def test_a_singular_matrix_says_so():
    operator = lx.MatrixLinearOperator(jnp.ones((3, 3)))
    vector = jnp.array([1.0, 2.0, 3.0])
    solution = lx.linear_solve(operator, vector, ByInverse(), throw=False)
    assert solution.result != lx.RESULTS.successful


@pytest.mark.parametrize("solver", [diffrax.Kvaerno3, diffrax.Kvaerno5])
def test_an_implicit_solver_takes_the_same_steps(solver):
    def solve(diffeqsolve):
        return diffeqsolve(
            diffrax.ODETerm(robertson), solver(root_finder=CHORD()), 0.0, 1.0, 1e-4,
            jnp.array([1.0, 0.0, 0.0]), max_steps=512,
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-8),
        )  # fmt: skip

    ours, theirs = map(solve, (nk.diffeqsolve, diffrax.diffeqsolve))
    assert ours.stats["num_steps"] == theirs.stats["num_steps"]
    assert_tree_close(ours.ys, theirs.ys, rtol=1e-8, atol=1e-14)


def finder_of(solver):
    return type(solver.root_finder.linear_solver)


def test_large_states_and_other_solvers_of_systems_are_left_alone():
    solver, few, many = diffrax.Kvaerno5(root_finder=CHORD()), jnp.zeros(3), jnp.zeros(5)
    assert finder_of(by_inverses(solver, few)) is ByInverse
    assert finder_of(by_inverses(solver, many)) is lx.AutoLinearSolver
    own = diffrax.Kvaerno5(root_finder=CHORD(linear_solver=lx.GMRES(1e-8, 1e-8)))
    assert finder_of(by_inverses(own, few)) is lx.GMRES
    assert type(by_inverses(diffrax.Tsit5(), few)) is diffrax.Tsit5


def test_solvers_inside_of_solvers_are_reached():
    half = by_inverses(diffrax.HalfSolver(diffrax.Kvaerno3(root_finder=CHORD())), jnp.zeros(2))
    assert finder_of(half.solver) is ByInverse
    switch = nk.AutoSwitch(nonstiff=diffrax.Tsit5(), stiff=diffrax.Kvaerno5(root_finder=CHORD()))
    assert finder_of(by_inverses(switch, jnp.zeros(2)).stiff) is ByInverse
