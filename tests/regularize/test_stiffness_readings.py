"""Stiffness readings of short steps: what stands near the rounding of the stages does not count."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close, close_to_rounding
from support.marks import slow_but
from support.problems import SOLVERS, WITH_PAIR

import ndekit as nk

DTYPES = ["float32", "float64"]
# Of y' = -3 y by Tsit5: the stages differ, by a few roundings.
SHORT = {"float32": 1e-3, "float64": 1e-7}


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def in_dtype(tree, dtype):
    cast = lambda x: x.astype(dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x
    return jax.tree.map(cast, tree)


@functools.cache
def readings_of(field, solver, form="rho", cost=nk.EachStep):
    """Compiled: readings of the steps between given times."""

    @jax.jit
    def run(ts, y0, args):
        return nk.diffeqsolve(
            diffrax.ODETerm(field), SOLVERS[solver], ts[0], ts[-1], None, y0, args,
            stepsize_controller=diffrax.StepTo(ts), max_steps=len(ts) - 1,
            costs={"stiffness": cost(nk.StepStiffness(form))},
        ).costs["stiffness"]  # fmt: skip

    return run


def decay(t, y, rate):
    return -rate * y


def layers(t, y, args):
    first, second = args
    return jnp.tanh(second @ jnp.tanh(first @ y))


def some_layers(size=32):
    keys = jr.split(jr.key(0), 3)
    shape = (size, size)
    weights = tuple(1.5 * jr.normal(key, shape) / np.sqrt(size) for key in keys[:2])
    return weights, jr.normal(keys[2], (size,))


def steps_of(sizes, dtype):
    return jnp.asarray(np.concatenate([[0.0], np.cumsum(sizes)]), dtype)


def growing_steps(dtype):
    """Forty, from where the stages differ by rounding alone to 1."""
    return steps_of(10.0 ** np.linspace({"float32": -6, "float64": -12}[dtype], 0, 40), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", slow_but(["Tsit5"], WITH_PAIR))
def test_no_step_reads_more_than_the_norm_of_the_jacobian(solver, dtype):
    weights, y0 = some_layers()
    readings = readings_of(layers, solver)(
        growing_steps(dtype), in_dtype(y0, dtype), in_dtype(weights, dtype)
    )
    # No tanh is steeper than 1. A reading that counts may be off by a quarter near the rounding.
    bound = np.prod([np.linalg.norm(np.asarray(w), 2) for w in weights])
    assert np.all(np.asarray(readings) <= 1.25 * bound)
    assert float(readings[0]) == 0 and np.all(readings[-5:] > 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", slow_but(["Tsit5"], WITH_PAIR))
def test_a_reading_is_the_rate_or_weighed_down(solver, dtype):
    rate = jnp.asarray(3.0, dtype)
    ts = growing_steps(dtype)
    readings = np.asarray(readings_of(decay, solver)(ts, jnp.asarray([1.0, -0.7], dtype), rate))
    assert np.all(readings >= 0) and np.all(readings <= 3 * 1.25)
    # From some size on all count in full, and below some size none does.
    full = np.abs(readings - 3) < 3 * 0.05
    assert full[-5:].all() and not np.any(readings[:5])
    assert np.sum(~full & (readings > 0)) <= 6


@pytest.mark.parametrize("form", ["rho", "rho_h", "relative"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_that_does_not_count_has_no_derivative(form, dtype):
    run = readings_of(decay, "Tsit5", form, nk.EveryStep)
    given = (
        steps_of([SHORT[dtype]], dtype),
        jnp.asarray([1.0, -0.7], dtype),
        jnp.asarray(3.0, dtype),
    )
    value, slopes = jax.jit(jax.value_and_grad(run, argnums=(1, 2)))(*given)
    assert float(value) == 0
    assert all(np.all(np.asarray(slope) == 0) for slope in slopes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_that_counts_has_the_derivative_of_its_reading(dtype):
    # Of lambda by lambda: 1 a step.
    run = readings_of(decay, "Tsit5", "rho", nk.EveryStep)
    ts, y0 = steps_of([0.3, 0.2, 0.25], dtype), jnp.asarray([1.0, -0.7], dtype)
    slope = jax.grad(run, argnums=2)(ts, y0, jnp.asarray(3.0, dtype))
    assert_tree_close(np.float64(slope), np.float64(3.0), rtol=2e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_weight_of_a_reading_is_a_constant_for_its_derivative(dtype):
    # Of steps between those that do not count and those that do in full: w lambda by lambda is w.
    rate, first = jnp.asarray(3.0, dtype), {"float32": -5, "float64": -10}[dtype]
    ends = 10.0 ** np.linspace(first, first + 5, 400)
    ts = jnp.asarray(np.stack([0 * ends, ends], 1), dtype)
    run, y0 = readings_of(decay, "Tsit5", "rho", nk.EveryStep), jnp.asarray([1.0, -0.7], dtype)
    of_step = jax.vmap(lambda ts: jax.value_and_grad(run, argnums=2)(ts, y0, rate))
    readings, slopes = map(np.asarray, of_step(ts))
    between = (readings > 0.3) & (readings < 2.7)
    assert np.sum(between) >= 2
    assert_tree_close(slopes[between], readings[between] / 3, rtol=0.5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("power", [-40, 40])
def test_the_size_of_the_state_does_not_matter(power, dtype):
    weights, y0 = some_layers(8)
    linear = lambda t, y, args: args[1] @ (args[0] @ y)
    run = readings_of(linear, "Tsit5")
    given = growing_steps(dtype), in_dtype(y0, dtype), in_dtype(weights, dtype)
    readings = run(*given)
    # Powers of two change no bit of the digits.
    assert np.array_equal(readings, run(given[0], given[1] * 2.0**power, given[2]))
    assert np.any(readings > 0) and np.any(readings == 0)


def test_a_large_constant_beside_a_small_state_hides_nothing():
    beside = lambda t, y, rate: {"rest": 0.0 * y["rest"], "moving": -rate * y["moving"]}
    y0 = {"rest": jnp.full(3, 1e6, "float32"), "moving": jnp.asarray([1.0, -0.7], "float32")}
    readings = readings_of(beside, "Tsit5")(
        steps_of([0.3, 0.2], "float32"), y0, jnp.asarray(3.0, "float32")
    )
    assert_tree_close(np.asarray(readings, float), np.full(2, 3.0), rtol=1e-3)


def test_lanes_count_each_by_itself():
    run = readings_of(decay, "Tsit5")
    y0, rate = jnp.asarray([1.0, -0.7], "float32"), jnp.asarray(3.0, "float32")
    ts = jnp.stack([steps_of(sizes, "float32") for sizes in ([0.3, 0.2], [SHORT["float32"], 0.3])])
    lanes = jax.vmap(run, in_axes=(0, None, None))(ts, y0, rate)
    alone = jnp.stack([run(each, y0, rate) for each in ts])
    assert close_to_rounding(lanes, alone)
    assert np.array_equal(lanes > 0, [[True, True], [False, True]])


@pytest.mark.parametrize(("reduce", "truth"), [("sum", 3.0), ("mean", 1.5), ("max", 3.0)])
def test_a_step_that_does_not_count_is_a_zero(reduce, truth):
    cost = functools.partial(nk.EveryStep, reduce=reduce)
    ts = steps_of([SHORT["float32"], 0.3], "float32")
    value = readings_of(decay, "Tsit5", "rho", cost)(
        ts, jnp.asarray([1.0, -0.7], "float32"), jnp.asarray(3.0, "float32")
    )
    assert_tree_close(np.float64(value), np.float64(truth), rtol=1e-3)


def test_the_recorder_counts_the_same_steps():
    ts = steps_of([SHORT["float32"], 0.3, 0.2], "float32")
    y0, rate = jnp.asarray([1.0, -0.7], "float32"), jnp.asarray(3.0, "float32")
    ours, theirs = (
        nk.diffeqsolve(
            diffrax.ODETerm(decay), diffrax.Tsit5(), ts[0], ts[-1], None, y0, rate,
            stepsize_controller=diffrax.StepTo(ts), costs={"s": nk.StepStiffness()},
            max_steps=3, adjoint=adjoint,
        ).costs["s"]
        for adjoint in (nk.ReplayAdjoint(), diffrax.RecursiveCheckpointAdjoint())
    )  # fmt: skip
    assert_tree_close(np.float64([ours, theirs]), np.full(2, 6.0), rtol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_drift_of_an_sde_is_read_where_it_moves(dtype):
    def reading(size, noise):
        t1 = jnp.asarray(size, dtype)
        path = nk.BrownianMotion((2,), key=jr.key(0))
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, y, args: -3 * y),
            diffrax.ControlTerm(lambda t, y, args: jnp.eye(2, dtype=dtype) * noise, path),
        )
        y0 = jnp.asarray([1.0, -0.7], dtype)
        sol = nk.diffeqsolve(
            terms, diffrax.Euler(), jnp.zeros((), dtype), t1, t1, y0,
            costs={"s": nk.StepStiffness()},
        )  # fmt: skip
        return float(sol.costs["s"])

    with jax.enable_x64(dtype == "float64"):
        assert reading(float(jnp.finfo(dtype).eps), noise=0.0) == 0
        assert_tree_close(np.float64(reading(0.01, noise=0.5)), np.float64(3.0), rtol=1e-3)


def test_a_table_of_steps_leaves_out_what_is_noise():
    with jax.enable_x64(False):
        weights, y0 = some_layers()
        ts = steps_of([3e-3, 0.1, 0.1], "float32")
        table = nk.diagnose.record_steps(
            diffrax.ODETerm(layers), diffrax.Tsit5(), ts[0], ts[-1], None, y0, weights,
            stepsize_controller=diffrax.StepTo(ts),
        )  # fmt: skip
    assert np.array_equal(np.isnan(table.stiffness), [True, False, False])
