"""What is done for accelerators: rounding is told of, short loops are written out. There is none
here, so JAX is made to say that there is.
"""

import warnings

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import lineax as lx
import pytest
from jax import lax
from jax.extend import core as jex_core
from support.close import assert_tree_close

import ndekit as nk
from ndekit.integrate.programs.equations import primitive_names
from ndekit.integrate.programs.unrolled_loops import without_short_loops

WEIGHTS = jnp.array([[-1.0, 0.5], [-0.5, -1.0]])


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def solve(field, tolerance, solver=diffrax.Tsit5(), term=diffrax.ODETerm, controller=None):
    if controller is None:
        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
    terms = term(lambda t, y, args: field(y))
    y0 = jnp.ones(2)
    return nk.diffeqsolve(terms, solver, 0.0, 1.0, 0.1, y0, stepsize_controller=controller)


def product(y):
    return WEIGHTS @ y


def test_rounded_products_are_told_of(accelerator):
    with pytest.warns(UserWarning, match="rtol=1e-06, .*jax_default_matmul_precision"):
        solve(product, 1e-6)
    with pytest.warns(UserWarning, match="rounding"):
        solve(jax.checkpoint(lambda y: jnp.tanh(product(y))), 1e-4, diffrax.Kvaerno5())


def test_products_of_noise_are_told_of(accelerator):
    def terms(field):
        path = nk.BrownianMotion((2,), jr.key(0))
        noise = lambda t, y, args: lx.DiagonalLinearOperator(0.1 * y)
        return diffrax.MultiTerm(diffrax.ODETerm(field), diffrax.ControlTerm(noise, path))

    with pytest.warns(UserWarning, match="rounding"):
        solve(product, 1e-3, diffrax.Heun(), terms)


@pytest.mark.parametrize("precision", ["default", "tensorfloat32", "highest"])
def test_nothing_is_said_of_a_precision_that_somebody_chose(accelerator, precision):
    with warnings.catch_warnings(), jax.default_matmul_precision(precision):
        warnings.simplefilter("error")
        solve(product, 1e-6)


def test_nothing_is_said_where_nothing_is_rounded(accelerator, x64):
    in_float64 = WEIGHTS.astype(jnp.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(lambda y: -y, 1e-6)
        solve(lambda y: in_float64 @ y, 1e-6)


def test_nothing_is_said_where_it_hardly_matters(accelerator):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(product, 1e-2)
        loose = diffrax.PIDController(rtol=0.0, atol=0.1)
        solve(product, None, controller=loose)
        solve(product, None, controller=diffrax.ConstantStepSize())


def test_nothing_is_said_on_a_cpu():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(product, 1e-6)


def along_a_path(weights):
    """A neural CDE whose path is searched for at every stage."""
    ts = jnp.linspace(0.0, 1.0, 20)
    xs = jnp.stack([ts, jnp.sin(5 * ts)], axis=-1)
    path = diffrax.CubicInterpolation(ts, diffrax.backward_hermite_coefficients(ts, xs))
    matrix = lambda t, z, args: jnp.tanh(weights @ z)[:, None] * jnp.ones((2, 2))
    term = diffrax.ControlTerm(matrix, path).to_ode()
    controller = diffrax.PIDController(rtol=1e-2, atol=1e-4)
    return jnp.sum(
        nk.diffeqsolve(
            term, diffrax.Tsit5(), 0.0, 1.0, 0.1, jnp.ones(2), stepsize_controller=controller
        ).ys
    )


def test_a_search_is_written_out_and_finds_the_same(monkeypatch):
    value_and_slope = lambda: jax.jit(jax.value_and_grad(along_a_path))
    expected = value_and_slope()(WEIGHTS)
    loops = str(value_and_slope().trace(WEIGHTS).jaxpr).count("scan[")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()
    program = value_and_slope()
    assert_tree_close(program(WEIGHTS), expected, rtol=1e-5)
    assert program.lower(WEIGHTS).as_text().count("while") < loops
    jax.clear_caches()


def test_only_short_loops_over_little_are_written_out():
    ts = jnp.linspace(0.0, 1.0, 100)
    search = lambda t: jnp.searchsorted(ts, t)
    turns = lambda number, body: lambda y: lax.fori_loop(0, number, lambda _, y: body(y), y)
    short, long = turns(5, jnp.sin), turns(50, jnp.sin)
    heavy = turns(5, product)
    for fn, y, is_written_out in (
        (search, jnp.array(0.3), True),
        (short, jnp.ones(2), True),
        (long, jnp.ones(2), False),
        (heavy, jnp.ones(2), False),
        (lambda y: lax.scan(lambda c, x: (c + x, c), 0.0, y)[1], jnp.ones(5), False),
    ):
        before = jax.make_jaxpr(fn)(y)
        after = without_short_loops(before)
        run = jax.jit(jex_core.jaxpr_as_fun(after))
        assert_tree_close(run(y)[0], fn(y), rtol=1e-6)
        assert ("while" in run.lower(y).as_text()) != is_written_out
        assert (after is not before) == is_written_out
        assert primitive_names(after.jaxpr) == primitive_names(before.jaxpr)
