"""Linear CDEs against matrix exponentials, and against the other ways to solve the same field."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.linalg
from jaxtyping import TypeCheckError
from support.close import assert_tree_close, close_to_rounding, close_to_solver

from ndekit.controls import Windows
from ndekit.data import Series
from ndekit.models import LinearCDE, NeuralCDE

KINDS = {
    "linear": {},
    "diagonal": dict(block_size=1),
    "dense": dict(block_size=8),
    "affine": dict(affine=True),
    "skew": dict(skew=True),
    "mean": dict(reduce="mean"),
    "euler": dict(flow="euler"),
    "rectilinear": dict(scheme="rectilinear", counts="each", per=10.0),
    "order 2": dict(order=2, windows=Windows.every(3)),
    "order 3": dict(order=3, windows=Windows.every(3), scheme="rectilinear"),
}

# The others take their time to compile.
QUICK = ("rectilinear",)
EACH_KIND = [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in KINDS]


def make(key, **options):
    model = LinearCDE(2, 8, 3, key=key, **dict(scale=1.0, chunk=4) | options)
    if model.field.offsets is None:
        return model
    offsets = lambda m: m.field.offsets
    return eqx.tree_at(offsets, model, jr.normal(key, model.field.offsets.shape))


def series(key, rows=11):
    keys = jr.split(key, 3)
    ts = jnp.sort(jr.uniform(keys[0], (rows,))) * 0.9 + jnp.linspace(0.0, 0.1, rows)
    xs = jnp.sin(5 * ts[:, None] + 3 * jr.uniform(keys[1], (1, 2)))
    return Series(ts, xs, jr.bernoulli(keys[2], 0.7, xs.shape).at[0].set(True))


def padded(one, rows):
    """With NaN in the padding."""
    behind = rows - len(one.ts)
    nan = lambda x, fill: np.pad(x, [(0, behind)] + [(0, 0)] * (x.ndim - 1), constant_values=fill)
    long = Series(
        np.concatenate([one.ts, one.ts[-1] + 1 + np.arange(behind, dtype=one.ts.dtype)]),
        nan(one.xs, 0), nan(one.mask, False), length=len(one.ts),
    )  # fmt: skip
    spoilt = nan(one.ts, np.nan), nan(one.xs, np.nan), nan(one.mask, True)
    spoilt = tuple(map(jnp.asarray, spoilt))
    return eqx.tree_at(lambda s: (s.ts, s.xs, s.mask), long, spoilt)


def dense(field):
    """The matrices A_i, written out, of the state with a 1 behind it."""
    size, eye = field.hidden_size, np.eye(field.hidden_size)
    rates = np.stack([np.asarray(field(0.0, jnp.asarray(e))) for e in eye])
    at_zero = np.asarray(field(0.0, jnp.zeros(size)))
    big = np.zeros((field.channels, size + 1, size + 1))
    big[:, :size, :size] = np.moveaxis(rates - at_zero, 0, 2).swapaxes(0, 1)
    big[:, :size, size] = at_zero.T
    return big


@pytest.mark.parametrize("kind", ["linear", "diagonal", "dense", "affine", "skew"])
@pytest.mark.parametrize("parallel", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_states_are_products_of_matrix_exponentials(kind, parallel, getkey, x64):
    model = make(getkey(), parallel=parallel, **KINDS[kind])
    one = series(getkey())
    one = Series(one.ts, np.sin(np.outer(np.asarray(one.ts), [5.0, 3.0])))
    path = np.concatenate([np.asarray(one.ts)[:, None], np.asarray(one.xs)], axis=1)
    y = np.append(np.asarray(model.initial(jnp.asarray(path[0]))), 1.0)
    matrices, expected = dense(model.field), [y[:-1]]
    for dx in np.diff(path, axis=0):
        y = scipy.linalg.expm(np.tensordot(dx, matrices, 1)) @ y
        expected.append(y[:-1])
    prediction, solution = model(one)
    assert_tree_close(solution.ys[0], expected[-1], rtol=1e-11, atol=1e-12)
    assert close_to_rounding(prediction, model.readout(solution.ys[0]))
    assert_tree_close(model(one, "readings")[1].ys, np.stack(expected), rtol=1e-11, atol=1e-12)
    halfway = (path[3] + path[4]) / 2
    flow = scipy.linalg.expm(np.tensordot(halfway - path[3], matrices, 1))
    at = model(one, jnp.asarray(halfway[:1]))[1]
    assert_tree_close(at.ys[0], (flow @ np.append(expected[3], 1.0))[:-1], rtol=1e-11)
    assert close_to_rounding(at.ts, halfway[:1])


def test_the_mean_is_that_of_the_states_behind_all_windows(getkey, x64):
    model, one = make(getkey(), reduce="mean"), series(getkey())
    behind = model(one, "readings")[1].ys[1:]
    for given in (one, padded(one, 17)):
        assert_tree_close(model(given)[0], model.readout(jnp.mean(behind, axis=0)), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("order", [2, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 3))])
def test_three_solvers_of_one_field_agree_as_windows_shrink(order, getkey, x64):
    """By exponentials, by steps along the log-field, and by steps along the control."""
    ts = np.linspace(0.0, 1.0, 97)
    one = Series(ts, np.stack([np.sin(9 * ts), np.cos(7 * ts)], axis=-1))
    key, gaps = getkey(), {}
    for count in (16, 8, 4):
        linear = make(key, order=order, windows=Windows.every(count))
        solved = lambda **options: eqx.tree_at(  # noqa: B023
            lambda m: m.initial,
            NeuralCDE(2, 8, 3, field=linear.field, solver=diffrax.Tsit5(), key=key, **options),  # noqa: B023
            linear.initial,  # noqa: B023
        )(one)[1].ys[-1]
        windows = dict(order=order, windows=Windows.every(count))
        by_steps, along = solved(substeps=16, **windows), solved(scheme="linear", substeps=4)
        end = linear(one)[1].ys[-1]
        assert_tree_close(end, by_steps, rtol=1e-6, atol=1e-6)
        gaps[count] = float(jnp.max(jnp.abs(end - along)))
    slope = np.log2(gaps[16] / gaps[4]) / 2
    assert slope > order - 0.4 and gaps[4] < gaps[8] < gaps[16], (slope, gaps)


def test_without_windows_all_ways_agree(getkey, x64):
    linear, one = make(getkey()), series(getkey())
    other = NeuralCDE(2, 8, 3, field=linear.field, scheme="linear", solver=diffrax.Tsit5(),
                      substeps=8, key=getkey())  # fmt: skip
    other = eqx.tree_at(lambda m: m.initial, other, linear.initial)
    assert_tree_close(linear(one)[1].ys, other(one)[1].ys, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("flow", [pytest.param("exp", marks=pytest.mark.slow), "euler"])
def test_chunks_and_trees_are_the_plain_scan_in_value_and_gradient(flow, getkey, x64):
    key, one = getkey(), series(getkey(), 23)
    plain = make(key, flow=flow, chunk=100, parallel=False)

    parts = lambda model: (model.initial, model.field, model.readout)

    def loss(given, options):
        model = eqx.tree_at(parts, make(key, flow=flow, **options), given)
        return jnp.sum(model(one)[0] ** 2) + jnp.sum(model(one, "readings")[0])

    value, gradient = jax.value_and_grad(loss)(parts(plain), dict(chunk=100, parallel=False))
    for options in (dict(chunk=5), dict(chunk=22), dict(chunk=7, parallel=True)):
        found, slopes = jax.value_and_grad(loss)(parts(plain), options)
        assert_tree_close(found, value, rtol=1e-10)
        assert_tree_close(slopes, gradient, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", EACH_KIND)
def test_gradients_are_finite_differences(kind, getkey, x64):
    model, one = make(getkey(), **KINDS[kind]), series(getkey())
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)

    def loss(arrays, xs):
        moved = eqx.tree_at(lambda s: s.xs, jax.tree.map(jnp.asarray, one), xs)
        prediction, solution = eqx.combine(arrays, rest)(moved)
        return jnp.sum(prediction**2) + solution.generator_size

    xs = jnp.asarray(one.xs)
    along = jax.tree.map(lambda x: jr.normal(getkey(), x.shape), (arrays, xs))
    along = (along[0], jnp.where(one.mask, along[1], 0))
    _, slope = jax.jvp(loss, (arrays, xs), along)
    pairs = zip(
        jax.tree.leaves(jax.grad(loss, (0, 1))(arrays, xs)), jax.tree.leaves(along), strict=True
    )
    assert_tree_close(sum(jnp.sum(g * a) for g, a in pairs), slope, rtol=1e-9)
    at = jax.jit(lambda h: loss(*jax.tree.map(lambda x, a: x + h * a, (arrays, xs), along)))
    assert_tree_close(slope, (at(1e-5) - at(-1e-5)) / 2e-5, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_neither_value_nor_gradient(kind, getkey):
    model = make(getkey(), **KINDS[kind])
    ones = [series(k, rows) for k, rows in zip(jr.split(getkey(), 3), (11, 7, 10), strict=True)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *[padded(one, 13) for one in ones])
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)

    def loss(arrays, one):
        model = eqx.combine(arrays, rest)
        at_end, solution = model(one)
        on_the_way, _ = model(one, "readings")
        on_the_way = jnp.where(one.is_real[:, None], on_the_way, 0)
        return jnp.sum(at_end**2) + jnp.sum(on_the_way**2) + solution.generator_size

    values, gradients = jax.vmap(jax.value_and_grad(loss), (None, 0))(arrays, batch)
    for i, one in enumerate(ones):
        value, gradient = jax.value_and_grad(loss)(arrays, jax.tree.map(jnp.asarray, one))
        assert close_to_solver(values[i], value, rtol=1e-7)
        of_lane = [g[i] for g in jax.tree.leaves(gradients)]
        assert close_to_solver(of_lane, jax.tree.leaves(gradient), rtol=1e-6)
    total = lambda arrays: jnp.sum(jax.vmap(loss, (None, 0))(arrays, batch))
    summed = [jnp.sum(g, axis=0) for g in jax.tree.leaves(gradients)]
    assert close_to_solver(jax.tree.leaves(jax.grad(total)(arrays)), summed, rtol=1e-6)


@pytest.mark.parametrize("kind", ["rectilinear", pytest.param("order 3", marks=pytest.mark.slow)])
def test_a_stream_is_the_batch_call_of_every_prefix(kind, getkey):
    model, one = make(getkey(), **KINDS[kind]), series(getkey(), 10)
    on_the_way, _ = model(one, "readings")
    state, step = model.init(), eqx.filter_jit(model.step)
    for i in range(10):
        state, prediction = step(state, one.ts[i], one.xs[i], one.mask[i])
        assert close_to_solver(prediction, on_the_way[i], rtol=1e-7)
        if i in (0, 3, 9):
            prefix = Series(one.ts[: i + 1], one.xs[: i + 1], one.mask[: i + 1])
            assert close_to_solver(prediction, model(prefix)[0], rtol=1e-7)
    with pytest.raises(Exception, match="in order of time"):
        jax.block_until_ready(step(state, one.ts[0], one.xs[0])[1])


@pytest.mark.slow
def test_skew_matrices_keep_the_norm_over_a_long_series(getkey):
    model = make(getkey(), skew=True)
    ts = jnp.arange(3000.0) / 100
    one = Series(ts, jnp.stack([jnp.sin(ts), jnp.cos(3 * ts)], axis=-1))
    ys = model(one, "readings")[1].ys
    norms = jnp.linalg.norm(ys, axis=-1)
    assert jnp.max(jnp.abs(norms / norms[0] - 1)) < 1e-3
    assert jnp.linalg.norm(ys[-1] - ys[0]) > 0.1


def test_depth_two_tells_the_order_of_events_where_matrices_do_not_commute(getkey, x64):
    """A loop has no increment: depth 1 sees nothing of it, and neither do diagonal matrices."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], float) + np.array([[0.5, -0.3]])
    loops = [Series(np.arange(5.0), way) for way in (corners, corners[::-1])]
    key = getkey()

    def gap(**options):
        model = make(key, windows=Windows.every(4), time=False, **options)
        ends = [model(one)[1].ys[-1] for one in loops]
        return float(jnp.max(jnp.abs(ends[0] - ends[1])))

    assert gap(order=2) > 0.1
    assert gap(order=1) < 1e-12 and gap(order=2, block_size=1) < 1e-12


def temporary_bytes(length, **options):
    model = LinearCDE(2, 64, 1, parallel=False, chunk=32, key=jr.key(0), **options)
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)

    def loss(arrays, xs):
        one = Series(jnp.arange(float(length)), xs)
        return jnp.sum(eqx.combine(arrays, rest)(one)[0])

    given = arrays, jnp.ones((length, 2))
    compiled = jax.jit(jax.grad(loss)).lower(*given).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_the_gradients_memory_is_that_of_a_chunk():
    """Of the length it has a few numbers a window and the states between chunks."""
    short, long = temporary_bytes(512), temporary_bytes(4096)
    matrices = 64 * 4 * 4  # bytes a window, were all of them kept
    assert (long - short) / (4096 - 512) < matrices / 4
    assert short > 32 * matrices


BAD = {
    "order": (dict(order=0), "at least 1"),
    "scheme": (dict(scheme="hermite"), "straight lines"),
    "flow": (dict(flow="rk4"), "flow"),
    "reduce": (dict(reduce="max"), "reduce"),
    "chunk": (dict(chunk=0), "chunk"),
    "blocks": (dict(block_size=3), "multiple of `block_size`"),
    "windows": (dict(windows=4), "windows"),
    "half precision": (dict(dtype=jnp.bfloat16), "32 bits"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_named(name, getkey):
    options, message = BAD[name]
    with pytest.raises((ValueError, TypeCheckError), match=message):
        LinearCDE(2, 8, 3, key=getkey(), **options)


def test_bad_calls_are_named(getkey):
    model, one = make(getkey()), series(getkey())
    calls = {
        "vmap": lambda: model(jax.tree.map(lambda x: jnp.stack([x, x]), one)),
        "made for 2 channels": lambda: model(Series(jnp.ones(1), jnp.ones((1, 3)))),
        "static_size=0": lambda: model(one, None, jnp.ones(2)),
        "rectilinear": lambda: model.init(),
        "reduce='last'": lambda: make(getkey(), scheme="rectilinear", reduce="mean").init(),
    }
    for message, call in calls.items():
        with pytest.raises((ValueError, TypeCheckError), match=message):
            call()
