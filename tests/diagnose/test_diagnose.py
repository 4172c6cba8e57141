"""The record of a solve against diffrax's own loop and against known rates."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.close import assert_tree_close

from ndekit.diagnose import record_steps


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def van_der_pol(t, y, args):
    return jnp.stack([y[1], 20.0 * (1 - y[0] ** 2) * y[1] - y[0]])


def jump(t, y, args):
    return jnp.where(t < 0.5, 1.0, -100.0) * jnp.sin(10 * t) - y


PROBLEMS = {
    "smooth": (lambda t, y, args: jnp.cos(t) * y, [1.0]),
    "van der Pol": (van_der_pol, [2.0, 0.0]),
    "discontinuous": (jump, [0.0, 0.0]),
    "tree": (lambda t, y, args: {"a": -y["b"], "b": y["a"]}, {"a": [1.0, 2.0], "b": [0.0, 1.0]}),
}


def problem_of(name):
    """The field and its initial state, made now, in the dtype that holds now."""
    field, y0 = PROBLEMS[name]
    return field, jax.tree.map(jnp.array, y0, is_leaf=lambda x: isinstance(x, list))


CASES = [(problem, diffrax.Tsit5()) for problem in PROBLEMS]
CASES += [("van der Pol", diffrax.Bosh3()), ("smooth", diffrax.Heun()), ("tree", diffrax.Dopri8())]


@pytest.mark.parametrize(
    ("problem", "solver"), CASES, ids=[f"{name}-{type(s).__name__}" for name, s in CASES]
)
def test_the_steps_are_diffraxs(problem, solver):
    field, y0 = problem_of(problem)
    term, controller = diffrax.ODETerm(field), diffrax.PIDController(rtol=1e-5, atol=1e-6)
    table = record_steps(term, solver, 0.0, 2.0, None, y0, stepsize_controller=controller)
    sol = diffrax.diffeqsolve(
        term, solver, 0.0, 2.0, None, y0, stepsize_controller=controller,
        saveat=diffrax.SaveAt(steps=True),
    )  # fmt: skip
    assert int(sol.stats["num_accepted_steps"]) == table.accepted.sum()
    assert int(sol.stats["num_rejected_steps"]) == (~table.accepted).sum()
    ts = np.asarray(sol.ts)
    assert_tree_close(table.t1[table.accepted], ts[np.isfinite(ts)], rtol=1e-9)


def test_there_are_rejected_steps_to_tell_apart():
    field, y0 = problem_of("van der Pol")
    table = record_steps(
        diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 2.0, 0.5, y0,
        stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-6),
    )  # fmt: skip
    assert not table.accepted[0]
    assert np.all(table.scaled_error[~table.accepted] > 1)
    assert np.all(table.scaled_error[table.accepted] <= 1)
    assert table.t0[1] == table.t0[0] and table.h[1] < table.h[0]


@pytest.mark.parametrize("rate", [0.5, 30.0])
@pytest.mark.parametrize("solver", [diffrax.Tsit5(), diffrax.Dopri5(), diffrax.Dopri8()])
def test_stiffness_is_the_rate_of_a_linear_field(rate, solver):
    table = record_steps(
        diffrax.ODETerm(lambda t, y, args: -rate * y), solver, 0.0, 1.0, 0.2, jnp.ones(3),
        stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4),
    )  # fmt: skip
    assert_tree_close(table.stiffness, np.full_like(table.stiffness, rate), rtol=1e-4)


def test_stiffness_is_nan_for_solvers_that_cannot_tell():
    table = record_steps(
        diffrax.ODETerm(lambda t, y, args: -y), diffrax.Heun(), 0.0, 1.0, 0.25, jnp.ones(1)
    )
    assert np.all(np.isnan(table.stiffness))


def test_constant_steps_have_no_scaled_error():
    table = record_steps(
        diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 1.0, 0.25, jnp.ones(1)
    )
    assert_tree_close(table.h, np.full(4, 0.25), rtol=1e-9)
    assert np.all(np.isnan(table.scaled_error)) and np.all(table.accepted)


def test_scaled_error_is_the_true_local_errors_size():
    # Heun's estimate on y' = t^2 is (k1 - k0) h / 2 with k = t^2, from the first to the last node.
    table = record_steps(
        diffrax.ODETerm(lambda t, y, args: t**2 * jnp.ones_like(y)), diffrax.Heun(), 0.0, 1.0,
        0.1, jnp.zeros(2), stepsize_controller=diffrax.PIDController(rtol=0.0, atol=1e-2),
    )  # fmt: skip
    expected = np.abs(table.t1**2 - table.t0**2) * table.h / 2 / 1e-2
    assert_tree_close(table.scaled_error, expected, rtol=1e-9)


def test_backward_and_endless_solves_are_refused():
    term = diffrax.ODETerm(lambda t, y, args: -y)
    with pytest.raises(ValueError, match="goes forward in time, but got t0=1.0 and t1=0.0"):
        record_steps(term, diffrax.Tsit5(), 1.0, 0.0, -0.1, jnp.ones(1))
    with pytest.raises(RuntimeError, match="10 attempts reached t=0.1 of 1. Raise `max_steps`"):
        record_steps(term, diffrax.Tsit5(), 0.0, 1.0, 0.01, jnp.ones(1), max_steps=10)
