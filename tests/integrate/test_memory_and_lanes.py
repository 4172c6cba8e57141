"""What the engine does below JAX's operations: memory left alone, lanes kept behind, outer
products put together.
"""

import re

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.close import assert_tree_close, close_to_rounding

import ndekit as nk
from ndekit.integrate.programs import uninitialized as module
from ndekit.integrate.programs.batch_axis import lanes_last
from ndekit.integrate.programs.outer_products import merge_outer_products
from ndekit.integrate.programs.uninitialized import uninitialized

LARGE = (1024, 1024)


def test_large_records_are_not_written_before_they_are_used():
    def fill(x):
        return jax.lax.fori_loop(
            0, 3, lambda i, b: b.at[i].set(x + i), uninitialized(LARGE, x.dtype)
        )

    x = jnp.ones(LARGE[1])
    np.testing.assert_array_equal(jax.jit(fill)(x)[:3], np.asarray(x) + np.arange(3.0)[:, None])
    assert module._is_left_alone(), "this jaxlib wants another way: memory is zeroed"
    program = jax.jit(fill).lower(x).compile().as_text()
    assert "getrf" in program


@pytest.mark.parametrize("outside", ["grad", "vmap", "vmap of grad of vmap"])
def test_a_record_of_all_steps_is_not_filled_before_they_are_made(outside):
    """Nothing but a step's own row is written to it, whatever maps the solve."""
    if jax.default_backend() != "cpu":
        pytest.skip("Elsewhere `jax.lax.empty` leaves memory alone, and XLA says so otherwise.")
    rate, y0 = jnp.float32(1.5), jnp.ones((5, 40))

    def end(rate, y0):
        return jnp.sum(nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -args * y), diffrax.Heun(), 0.0, 1.0, 0.1, y0, rate,
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3), max_steps=1000,
            adjoint=nk.ReplayAdjoint(checkpoints=1000) if outside == "vmap" else nk.ReplayAdjoint(),
            throw=False,
        ).ys)  # fmt: skip

    of_lanes = jax.grad(lambda rate, y0: jnp.sum(jax.vmap(end, (None, 0))(rate, y0)))
    wanted, args = {
        "grad": (of_lanes, (rate, y0)),
        "vmap": (jax.vmap(jax.grad(end), (None, 0)), (rate, y0)),
        "vmap of grad of vmap": (jax.vmap(of_lanes, (0, None)), (jnp.arange(3.0), y0)),
    }[outside]
    program = jax.jit(wanted).lower(*args).compile().as_text()
    made = [line for line in program.splitlines() if re.search(r"= f32\[[\d,]*1000,[\d,]*\]", line)]
    writes = [line for line in made if re.search(r" (broadcast|copy|transpose|fusion)\(", line)]
    assert any("custom-call" in line or "ffi_call" in line for line in made)
    assert any("dynamic-update-slice" in line for line in writes)
    assert not [line for line in writes if "dynamic-update-slice" not in line]


@pytest.mark.parametrize("shape", [(3, 2), LARGE])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.int32, jnp.bool_])
def test_untouched_has_the_shape_and_dtype_asked_for(shape, dtype):
    out = jax.jit(lambda: uninitialized(shape, dtype))()
    assert (out.shape, out.dtype) == (shape, dtype)
    # No lane axis of its own: it would be as large as all lanes.
    batched = jax.vmap(lambda x: (x, uninitialized(shape, dtype)), out_axes=(0, None))
    assert jax.eval_shape(batched, jnp.ones(4))[1].shape == shape
    # One where something beside it has one, and no derivative by that.
    beside = jax.vmap(lambda x: uninitialized(shape, dtype, [x, 1.0]))
    assert jax.eval_shape(beside, jnp.ones(4)).shape == (4, *shape)
    if dtype == jnp.float32:
        slope = jax.jvp(lambda x: 0 * uninitialized(shape, dtype, x), (1.0,), (1.0,))[1]
        np.testing.assert_array_equal(slope, np.zeros(shape))


def test_what_is_looked_for_nans_is_zeroed():
    with jax.debug_nans(True):
        assert not np.any(np.isnan(jax.jit(lambda: uninitialized(LARGE, jnp.float32))()))


def test_loops_of_a_few_numbers_are_compiled_whole():
    """XLA's CPU compiler makes a call of a loop that touches little memory: of the forward loop,
    which writes its record page by page.
    """

    def end(args):
        return jnp.sum(nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: jnp.stack([y[1], -args * y[0]])), diffrax.Tsit5(),
            0.0, 1.0, 0.1, jnp.ones(2), args, throw=False,
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3),
        ).ys)  # fmt: skip

    if jax.default_backend() != "cpu":
        pytest.skip("This is about XLA's CPU compiler.")
    program = jax.jit(jax.grad(end)).lower(1.0).compile().as_text()
    assert program.count(" call(") >= 1


def test_lanes_go_behind():
    y = jnp.arange(12.0).reshape(4, 3)
    mapped = jax.vmap(lambda y: lanes_last(y) ** 2, out_axes=1)
    np.testing.assert_array_equal(mapped(y), np.asarray(y).T ** 2)
    # One move, and none where they stand behind already.
    assert str(jax.make_jaxpr(mapped)(y)).count("transpose") == 1
    behind = jax.vmap(lambda y: lanes_last(y) ** 2, in_axes=1, out_axes=1)
    assert "transpose" not in str(jax.make_jaxpr(behind)(y))
    np.testing.assert_array_equal(jax.grad(lambda y: jnp.sum(mapped(y)))(y), 2 * y)


def count(name, fn, *args):
    return str(jax.make_jaxpr(fn)(*args)).count(name)


def test_outer_products_are_put_together_and_stay_the_same():
    def layers(weights, y):
        for _ in range(5):
            y = jnp.tanh(weights @ y) + y
        return y

    def pull(weights, y, ct):
        return jax.vjp(layers, weights, y)[1](ct)

    given = jax.random.normal(jax.random.key(0), (6, 6)), jnp.arange(6.0), jnp.ones(6)
    merged = lambda *given: merge_outer_products(pull, *given)
    assert close_to_rounding(merged(*given), pull(*given))
    # Five products forward, five backward to y, and one instead of five for the weights.
    assert count("dot_general", pull, *given) == 15
    assert count("dot_general", merged, *given) == 11


@pytest.mark.parametrize("lanes", [None, pytest.param(5, marks=pytest.mark.slow)])
def test_gradient_of_a_network_is_that_of_diffrax(lanes, x64):
    net = eqx.nn.MLP(3, 3, 8, 2, key=jax.random.key(0), activation=jnp.tanh)
    y0 = jax.random.normal(jax.random.key(1), (3,) if lanes is None else (lanes, 3))

    def loss(net, solve):
        term = diffrax.ODETerm(lambda t, y, net: net(y))
        one = lambda y0: solve(
            term, diffrax.Tsit5(), 0.0, 1.0, 0.1, y0, net, max_steps=64,
            stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
        ).ys  # fmt: skip
        return jnp.sum((one if lanes is None else jax.vmap(one))(y0) ** 2)

    gradient = eqx.filter_jit(eqx.filter_grad(loss))
    ours, theirs = gradient(net, nk.diffeqsolve), gradient(net, diffrax.diffeqsolve)
    assert_tree_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("y0", [(0,), (2,)])
def test_a_state_of_no_numbers_is_solved(y0):
    state = {"none": jnp.zeros(0), "some": jnp.ones(y0)}
    sol = nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: jax.tree.map(lambda x: -x, y)), diffrax.Tsit5(),
        0.0, 1.0, 0.1, state, stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5),
    )  # fmt: skip
    assert sol.ys["none"].shape == (1, 0)
    np.testing.assert_allclose(sol.ys["some"], np.full((1, *y0), np.exp(-1)), rtol=1e-4)
