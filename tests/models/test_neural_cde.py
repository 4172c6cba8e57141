"""Neural CDEs against diffrax on fine grids, and against themselves in other forms."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from support.close import assert_tree_close, close_to_rounding, close_to_solver

import ndekit as nk
from ndekit import controls
from ndekit.controls import Windows
from ndekit.data import Series
from ndekit.models import NeuralCDE

PID = diffrax.PIDController(rtol=1e-4, atol=1e-6)
FINE = diffrax.PIDController(rtol=1e-11, atol=1e-11)
KINDS = {
    "hermite": dict(scheme="hermite"),
    "linear": {},
    "rectilinear": dict(scheme="rectilinear", counts="each", per=10.0),
    "order 2": dict(order=2, windows=Windows.every(3)),
    "order 3": dict(order=3, windows=Windows.every(3), scheme="rectilinear", counts="rows"),
    "by duration": dict(order=2, windows=Windows.of(0.3, num=4, start=0.0)),
    "adaptive": dict(solver=diffrax.Tsit5(), controller=PID),
    "adaptive in windows": dict(scheme="linear", solver=diffrax.Tsit5(), controller=PID),
}

# The others take their time to compile.
QUICK = ("rectilinear",)
EACH_KIND = [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in KINDS]


def make(key, **options):
    options = dict(width=8, substeps=2) | options
    if "controller" in options:
        del options["substeps"]
    model = NeuralCDE(2, 4, 3, key=key, **options)
    # Not near rest, where mistakes are small.
    last = lambda m: m.field.layers[-1].weight
    return eqx.tree_at(last, model, 10 * last(model))


def series(key, rows=9, gaps=True):
    """Readings of smooth channels at irregular times in [0, 1], a third of them missing."""
    keys = jr.split(key, 3)
    ts = jnp.sort(jr.uniform(keys[0], (rows,))) * 0.9 + jnp.linspace(0.0, 0.1, rows)
    shift = jr.uniform(keys[1], (2,))
    xs = jnp.sin(5 * ts[:, None] + 3 * shift[None])
    mask = jr.bernoulli(keys[2], 0.67, xs.shape).at[0].set(True) if gaps else None
    return Series(ts, xs, mask)


def padded(one, rows, with_nan=True):
    """The same series with padding, NaN in it."""
    at = [(0, rows - one.ts.shape[-1])]
    long = Series(
        np.concatenate([one.ts, one.ts[-1] + 1 + np.arange(at[0][1], dtype=one.ts.dtype)]),
        np.pad(one.xs, [*at, (0, 0)]), np.pad(one.mask, [*at, (0, 0)]), length=len(one.ts),
    )  # fmt: skip
    if not with_nan:
        return long
    real = np.arange(rows) < len(one.ts)
    spoilt = (
        jnp.where(real, long.ts, jnp.nan),
        jnp.where(real[:, None], long.xs, jnp.nan),
        jnp.where(real[:, None], long.mask, True),
    )
    return eqx.tree_at(lambda s: (s.ts, s.xs, s.mask), long, spoilt)


def fine(model, one, depth=None):
    """The state at the end, by diffrax on a fine grid of the path; of windows, each by an ODE."""
    control = controls.channels(one, model.time, model.counts, per=model.per)
    scheme = {"hermite": controls.hermite, "linear": controls.linear}.get(
        model.scheme, controls.rectilinear
    )
    path = scheme(control, start=model.start)
    y = model.initial(path.evaluate(path.t0))
    if model.windows is None:
        term = diffrax.ControlTerm(model.field, path)
        gaps = zip(path.knots[:-1], path.knots[1:], strict=True)
        grid = jnp.concatenate([jnp.linspace(a, b, 201)[:-1] for a, b in gaps])
        steps = diffrax.StepTo(jnp.append(grid, path.t1))
        sol = diffrax.diffeqsolve(
            term, diffrax.Heun(), path.t0, path.t1, None, y, stepsize_controller=steps,
            max_steps=None,
        )  # fmt: skip
        return sol.ys[-1]
    found = controls.logsignature(control, model.order, model.windows, control=functools.partial(
        scheme, start=model.start
    ))  # fmt: skip
    inner = nk.fields.LogField(model.field, model.order)
    for k in range(len(found.durations)):
        row = jax.tree.map(lambda x, k=k: x[k], found)
        sol = diffrax.diffeqsolve(
            diffrax.ODETerm(inner), diffrax.Tsit5(), 0.0, 1.0, 0.02, y, row,
        )  # fmt: skip
        y = sol.ys[-1]
    return y


@pytest.mark.parametrize("kind", EACH_KIND)
def test_end_is_that_of_diffrax_on_a_fine_grid(kind, getkey, x64):
    options = KINDS[kind] if "controller" in KINDS[kind] else KINDS[kind] | dict(substeps=64)
    model, one = make(getkey(), **options), series(getkey())
    prediction, solution = model(one)
    expected = fine(model, one)
    rtol = 3e-3 if "controller" in options else 1e-4
    assert_tree_close(solution.ys[-1], expected, rtol=rtol, atol=rtol)
    assert close_to_rounding(prediction, model.readout(solution.ys[-1]))
    assert np.max(np.abs(expected - model.initial(jnp.zeros(model.initial.weight.shape[0])))) > 0.1


@pytest.mark.parametrize("kind", EACH_KIND)
def test_padding_changes_neither_value_nor_gradient(kind, getkey, request):
    options, rtol = KINDS[kind], 1e-6
    if "controller" in options:
        # Rounding decides whether a stage falls before or behind a corner of the control, and so
        # which steps are taken: what is left in common is the tolerance.
        request.getfixturevalue("x64")
        options, rtol = options | dict(controller=FINE), 1e-5
    model, key = make(getkey(), **options), getkey()
    ones = [series(k, rows) for k, rows in zip(jr.split(key, 3), (9, 6, 11), strict=True)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *[padded(one, 13) for one in ones])
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)

    def loss(arrays, one):
        at_end, _ = eqx.combine(arrays, rest)(one)
        on_the_way, _ = eqx.combine(arrays, rest)(one, "readings")
        real = one.is_real[:, None]
        return jnp.sum(at_end**2) + jnp.sum(jnp.where(real, on_the_way, 0) ** 2)

    each = jax.jit(jax.value_and_grad(loss))
    alone = [each(arrays, jax.tree.map(jnp.asarray, one)) for one in ones]
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(arrays, batch)
    for i, (value, gradient) in enumerate(alone):
        assert close_to_solver(values[i], value, rtol=rtol / 10)
        of_lane = [g[i] for g in jax.tree.leaves(gradients)]
        assert close_to_solver(of_lane, jax.tree.leaves(gradient), rtol=rtol)
    total = lambda arrays: jnp.sum(jax.vmap(loss, (None, 0))(arrays, batch))
    summed = [jnp.sum(g, axis=0) for g in jax.tree.leaves(gradients)]
    of_total = jax.jit(jax.grad(total))(arrays)
    assert close_to_solver(jax.tree.leaves(of_total), summed, rtol=rtol)


@pytest.mark.parametrize("kind", EACH_KIND)
def test_gradients_are_finite_differences(kind, getkey, x64):
    options = KINDS[kind]
    if "controller" in options:  # on its own grid the slope is another question
        options = options | dict(controller=FINE)
    model, one = make(getkey(), **options), series(getkey())
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)

    def loss(arrays, xs):
        moved = eqx.tree_at(lambda s: s.xs, jax.tree.map(jnp.asarray, one), xs)
        model = eqx.combine(arrays, rest)
        return jnp.sum(model(moved, jnp.array([0.3, 0.8]))[0] ** 2) + jnp.sum(model(moved)[0])

    xs = jnp.asarray(one.xs)
    along = jax.tree.map(lambda x: jr.normal(getkey(), x.shape), (arrays, xs))
    along = (along[0], jnp.where(one.mask, along[1], 0))
    gradient = jax.grad(loss, (0, 1))(arrays, xs)
    slope = sum(
        jnp.sum(g * a) for g, a in zip(*map(jax.tree.leaves, (gradient, along)), strict=True)
    )
    at = jax.jit(lambda h: loss(*jax.tree.map(lambda x, a: x + h * a, (arrays, xs), along)))
    # Steps of another length leave differences of the tolerance's size, to be divided by h.
    h, rtol = (1e-4, 1e-4) if "controller" in options else (1e-5, 1e-5)
    assert_tree_close(slope, (at(h) - at(-h)) / (2 * h), rtol=rtol)
    assert not np.any(np.asarray(gradient[1])[~np.asarray(one.mask)])


@pytest.mark.parametrize("kind", ["rectilinear", pytest.param("order 3", marks=pytest.mark.slow)])
@pytest.mark.parametrize("static", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_stream_is_the_batch_call_of_every_prefix(kind, static, getkey):
    model = make(getkey(), static_size=static, start=0.3, **KINDS[kind])
    one = series(getkey(), 10)
    one = Series(one.ts, one.xs, one.mask.at[0, 1].set(False))
    extra = jr.normal(getkey(), (static,)) if static else None
    on_the_way, _ = model(one, "readings", extra)
    state, step = model.init(extra), eqx.filter_jit(model.step)
    for i in range(10):
        nan = jnp.where(one.mask[i], one.xs[i], jnp.nan)
        state, prediction = step(state, one.ts[i], nan)
        assert close_to_solver(prediction, on_the_way[i], rtol=1e-7)
        if i in (0, 3, 6, 9):
            prefix = Series(one.ts[: i + 1], one.xs[: i + 1], one.mask[: i + 1])
            assert close_to_solver(prediction, model(prefix, static=extra)[0], rtol=1e-7)
    assert np.std(on_the_way, axis=0).min() > 1e-3
    with pytest.raises(Exception, match="in order of time"):
        jax.block_until_ready(step(state, one.ts[0], one.xs[0])[1])


@pytest.mark.parametrize("kind", ["rectilinear", pytest.param("order 3", marks=pytest.mark.slow)])
def test_a_prediction_knows_nothing_of_what_comes_later(kind, getkey):
    model, one = make(getkey(), **KINDS[kind]), series(getkey(), 8, gaps=False)
    one = jax.tree.map(jnp.asarray, one)

    def predicted(xs, at):
        return model(eqx.tree_at(lambda s: s.xs, one, xs), at)[0][:, 0]

    jacobian = jax.jacrev(predicted)(one.xs, one.ts)  # (time, time, channel)
    known = np.tril(np.ones((8, 8), bool))
    assert not np.any(np.asarray(jacobian)[~known])
    assert np.all(np.any(np.asarray(jacobian) != 0, axis=-1)[known])
    between = (one.ts[1:] + one.ts[:-1]) / 2
    assert not np.any(np.asarray(jax.jacrev(predicted)(one.xs, between))[~known[:-1]])


def test_the_schemes_that_read_ahead_are_found_to(getkey):
    model, one = make(getkey(), scheme="linear"), series(getkey(), 8)
    one = jax.tree.map(jnp.asarray, one)
    between = (one.ts[1:] + one.ts[:-1]) / 2
    predicted = lambda xs: model(eqx.tree_at(lambda s: s.xs, one, xs), between)[0][:, 0]
    assert np.any(np.asarray(jax.jacrev(predicted)(one.xs))[~np.tril(np.ones((7, 8), bool))])


def test_on_heisenbergs_fields_depth_two_is_exact_and_depth_one_misses_the_area(getkey, x64):
    """dy1 = dx1, dy2 = dx2, dy3 = y1 dx2, whatever the path and the windows."""
    field = lambda t, y, args: jnp.stack([
        jnp.stack([jnp.ones(()), jnp.zeros(())]), jnp.stack([jnp.zeros(()), jnp.ones(())]),
        jnp.stack([jnp.zeros(()), y[0]]),
    ])  # fmt: skip
    one = Series(np.arange(20.0), np.asarray(jr.normal(getkey(), (20, 2))))
    x = np.asarray(one.xs, np.float64)
    ends = {}
    for order in (1, 2, 3):
        model = NeuralCDE(
            2, 3, 1, order=order, windows=Windows.every(7), field=field, time=False,
            solver=diffrax.Tsit5(), key=getkey(),
        )  # fmt: skip
        y0 = np.asarray(model.initial(jnp.asarray(one.xs[0])))
        middle = (x[1:, 0] + x[:-1, 0]) / 2 - x[0, 0] + y0[0]
        exact = y0 + [*(x[-1] - x[0]), np.sum(middle * np.diff(x[:, 1]))]
        ends[order] = np.abs(model(one)[1].ys[-1] - exact).max()
    assert ends[2] < 1e-12 and ends[3] < 1e-12 < 0.1 < ends[1]


@pytest.mark.slow
def test_errors_of_deeper_log_signatures_fall_faster(getkey, x64):
    """The global order of depth N on a smooth path is N."""
    ts = np.linspace(0.0, 1.0, 129)
    one = Series(ts, np.stack([np.sin(9 * ts), np.cos(7 * ts)], axis=-1))
    key, errors = getkey(), {}
    truth = fine(make(key, scheme="linear"), one)
    for order in (1, 2, 3):
        for count in (8, 16):
            model = make(
                key, order=order, windows=Windows.every(count), solver=diffrax.Tsit5(), substeps=8
            )
            errors[order, count] = float(jnp.max(jnp.abs(model(one)[1].ys[-1] - truth)))
    slopes = [np.log2(errors[order, 16] / errors[order, 8]) for order in (1, 2, 3)]
    assert slopes[1] > 1.6 and slopes[2] > 2.6, slopes
    assert errors[3, 8] < errors[2, 8] < errors[1, 8]


@pytest.mark.slow
def test_a_field_that_knows_the_time_is_told_that_of_the_series(getkey, x64):
    """dy = sin(t) dt, through every form of the solve."""
    one = Series(np.linspace(1.0, 3.0, 40), np.zeros((40, 1)))
    field = lambda t, y, args: jnp.stack([jnp.sin(t), jnp.zeros(())])[None]
    kinds = [dict(scheme=s) for s in ("hermite", "linear", "rectilinear")]
    kinds += [dict(order=2), dict(solver=diffrax.Tsit5(), controller=PID)]
    for options in kinds:
        model = NeuralCDE(1, 1, 1, field=field, key=getkey(), **options)
        end = model(one)[1].ys[-1] - model.initial(jnp.array([1.0, 0.0]))
        # Brackets do not see that the field moves in time: order 2 is only as good as 1.
        tolerance = 3e-2 if "order" in options else 1e-3
        assert abs(end[0] - (np.cos(1.0) - np.cos(3.0))) < tolerance, options


COSTS = {
    "kinetic": nk.Kinetic(),
    "error": nk.EveryStep(nk.StepError(scaled=False), "mean"),
    "stiffness": nk.EveryStep(nk.StepStiffness(), "max"),
    "jacobian": nk.JacobianNorm(),
    "taylor": nk.Taylor(2),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "kind", ["linear", *(pytest.param(k, marks=pytest.mark.slow) for k in ("hermite", "order 2"))]
)
def test_every_regularizer_works_and_is_that_of_each_sample(kind, getkey):
    options = KINDS[kind] | dict(solver=diffrax.Tsit5(), costs=COSTS)
    model, key = make(getkey(), **options), getkey()
    ones = [series(k, rows) for k, rows in zip(jr.split(getkey(), 2), (9, 5), strict=True)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *[padded(one, 12) for one in ones])
    together = jax.vmap(lambda s: model(s, key=key)[1].costs)(batch)
    for i, one in enumerate(ones):
        alone = model(one, key=key)[1].costs
        assert close_to_solver({n: c[i] for n, c in together.items()}, alone, rtol=1e-6)
        assert all(float(c) > 0 for c in alone.values())

    def mean(model):
        return jnp.mean(sum(jax.vmap(lambda s: model(s, key=key)[1].costs)(batch).values()))

    gradient = eqx.filter_grad(mean)(model)
    leaves = jax.tree.leaves(gradient.field)
    assert all(jnp.all(jnp.isfinite(g)) and jnp.any(g != 0) for g in leaves)


@pytest.mark.usefixtures("x64")  # float32 rounds error estimates, and steps follow
@pytest.mark.parametrize("scheme", ["hermite", "linear"])
def test_steps_are_counted_of_each_sample(scheme, getkey):
    model = make(getkey(), scheme=scheme, solver=diffrax.Tsit5(), controller=PID,
                 costs={"steps": nk.StepCount()})  # fmt: skip
    ones = [series(k, rows) for k, rows in zip(jr.split(getkey(), 2), (9, 5), strict=True)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *[padded(one, 12) for one in ones])
    together = jax.vmap(model)(batch)[1]
    alone = [model(one)[1] for one in ones]
    assert together.stats["num_steps"].tolist() == [int(s.stats["num_steps"]) for s in alone]
    for i, solution in enumerate(alone):
        # A count is smooth in errors, down to those of rounding.
        assert close_to_solver(together.costs["steps"][i], solution.costs["steps"], rtol=1e-5)
        assert 0 < float(solution.costs["steps"])


@pytest.mark.slow
def test_equal_steps_are_as_many_as_said(getkey):
    one = series(getkey(), 9)
    for options, number in (({}, 8), (dict(scheme="rectilinear"), 16), (dict(order=2), 1),
                            (dict(order=2, windows=Windows.every(3)), 3)):  # fmt: skip
        for substeps in (1, 3, 7):
            model = make(getkey(), **options | dict(substeps=substeps))
            assert int(model(padded(one, 13))[1].stats["num_steps"]) == number * substeps


@pytest.mark.parametrize("kind", EACH_KIND)
def test_one_reading_gives_the_read_out_of_the_first_state(kind, getkey):
    model = make(getkey(), **KINDS[kind])
    one = Series(jnp.array([0.4]), jnp.array([[1.0, -2.0]]))
    prediction, solution = model(one)
    counts = {"none": [], "each": [0.1, 0.1], "rows": [1.0]}[model.counts]
    y0 = model.initial(jnp.array([0.4, *counts, 1.0, -2.0]))
    assert close_to_rounding(prediction, model.readout(y0))
    assert close_to_rounding(model(padded(one, 4))[0], prediction)


def test_first_same_as_last_stages_are_taken_anew_in_each_window(getkey):
    """Bosh3 keeps its last stage, which belongs to the piece before; Kutta's third does not."""
    one = series(getkey(), 30, gaps=False)
    key = getkey()
    ends = [
        make(key, scheme="linear", solver=solver, substeps=16)(one)[1].ys[-1]
        for solver in (diffrax.Bosh3(), diffrax.Tsit5(), diffrax.Heun())
    ]
    assert_tree_close(ends[0], ends[1], rtol=1e-5, atol=1e-5)
    assert_tree_close(ends[2], ends[1], rtol=1e-3, atol=1e-3)


BAD = {
    "order": (dict(order=4), "1, 2 or 3"),
    "hermite in windows": (dict(order=2, scheme="hermite"), "straight lines"),
    "windows": (dict(windows=3), "nk.controls.Windows|windows"),
    "scheme": (dict(scheme="cubic"), "scheme"),
    "counts": (dict(counts="missing"), "counts"),
    "per": (dict(per=0.0), "per"),
    "substeps": (dict(substeps=0), "substeps"),
    "both": (dict(substeps=2, controller=PID), "substeps"),
    "dt0 alone": (dict(dt0=0.1), "dt0"),
    "no adaptive controller": (dict(controller=diffrax.ConstantStepSize()), "adaptive"),
    "max_steps": (dict(max_steps=0), "max_steps"),
    "static": (dict(static_size=-1), "static_size"),
    "half precision": (dict(dtype=jnp.float16), "32 bits"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_named(name, getkey):
    options, message = BAD[name]
    with pytest.raises((ValueError, TypeCheckError), match=message):
        NeuralCDE(2, 4, 3, key=getkey(), **options)


def test_bad_calls_are_named(getkey):
    model, one = make(getkey()), series(getkey())
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), one)
    calls = {
        "vmap": lambda: model(batch),
        "made for 2 channels": lambda: model(Series(jnp.ones(1), jnp.ones((1, 3)))),
        "nk.data.Series|Series": lambda: model(jnp.ones((4, 2))),
        "static_size=0": lambda: model(one, None, jnp.ones(2)),
        "ts": lambda: model(one, "times"),
        "scheme='rectilinear'": lambda: model.init(),
        "every": lambda: make(
            getkey(), order=2, scheme="rectilinear", windows=Windows.of(0.2, num=3)
        ).init(),
        r"\(2,\)": lambda: (m := make(getkey(), scheme="rectilinear")).step(
            m.init(), 0.0, jnp.ones(3)
        ),
    }
    for message, call in calls.items():
        with pytest.raises((ValueError, TypeCheckError), match=message):
            call()
