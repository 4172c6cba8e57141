"""Flow-and-reset models: padding, streams, causality, closed forms, losses."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk

pytestmark = pytest.mark.usefixtures("x64")
CHANNELS = 2
# Each by its name, and with a way of stepping that is not the default.
MODELS = {
    "ODERNN": lambda **kw: nk.models.ODERNN(CHANNELS, 5, 3, width=8, key=jr.key(0), **kw),
    "ODERNN in equal steps": lambda **kw: nk.models.ODERNN(
        CHANNELS, 5, 3, gap=True, steps_per_gap=2, solver=diffrax.Heun(), key=jr.key(0), **kw
    ),
    "GRUDt": lambda **kw: nk.models.GRUDt(CHANNELS, 5, 3, key=jr.key(1), **kw),
    "GRUD": lambda **kw: nk.models.GRUD(CHANNELS, 5, 3, readout_width=4, key=jr.key(2), **kw),
    "GRUODEBayes": lambda **kw: nk.models.GRUODEBayes(
        CHANNELS, hidden_size=6, prediction_width=5, prepared=3, key=jr.key(3), **kw
    ),
    "GRUODEBayes, imputing": lambda **kw: nk.models.GRUODEBayes(
        CHANNELS, hidden_size=6, impute=True, static_size=2, key=jr.key(4), **kw
    ),
    "JumpODE": lambda **kw: nk.models.JumpODE(CHANNELS, hidden_size=3, key=jr.key(5), **kw),
    "JumpODE in equal steps": lambda **kw: nk.models.JumpODE(
        CHANNELS, hidden_size=3, solver=diffrax.Euler(), steps_per_gap=1, key=jr.key(5), **kw
    ),
}
OFTEN = ("ODERNN", "GRUD", "GRUODEBayes", "JumpODE in equal steps")
each_model = pytest.mark.parametrize("name", slow_but(OFTEN, list(MODELS)))


def in_float64(model):
    return jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, model)


def built(name, **options):
    return in_float64(MODELS[name](**options))


def static_of(name):
    return {"static": jnp.array([0.3, -0.7])} if "imputing" in name else {}


def series_of(length, seed=0, rows=None):
    """Irregular times, gaps, and one row without any reading."""
    rng = np.random.default_rng(seed)
    ts = np.cumsum(rng.uniform(0.05, 0.4, length)) - 0.3
    xs = np.where(rng.random((length, CHANNELS)) < 0.3, np.nan, rng.normal(size=(length, CHANNELS)))
    xs[0] = rng.normal(size=CHANNELS)
    if length > 3:
        xs[2] = np.nan
    return nk.data.Series(ts, xs)


def with_rubbish(batch):
    """The batch with NaN in its padding, as no constructor would leave it."""
    real = np.asarray(batch.is_real)
    put = lambda x: np.where(real.reshape(real.shape + (1,) * (x.ndim - 2)), x, np.nan)
    where = lambda s: (s.ts, s.xs, s.mask)
    mask = np.where(real[..., None], batch.mask, True)
    return eqx.tree_at(where, batch, (put(np.asarray(batch.ts)), put(np.asarray(batch.xs)), mask))


def weighed(name, model, series, ts=None):
    said, sol = model(series, ts, **static_of(name))
    total = jnp.sum(jnp.sin(said.before)) + jnp.sum(said.after**2) + jnp.sum(said.last)
    if ts is not None:
        total = total + jnp.sum(jnp.cos(said.values))
    return total if sol is None or not sol.costs else total + sum(sol.costs.values())


@pytest.mark.parametrize("name", slow_but(["ODERNN in equal steps"], list(MODELS)))
def test_padding_is_harmless(name):
    """Each series of a batch has the value and the gradient that it has alone."""
    lengths = (6, 1, 4)
    each = [series_of(n, seed) for seed, n in enumerate(lengths)]
    batch = with_rubbish(nk.data.pad(each))
    model = built(name)
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)
    loss = lambda arrays, series: weighed(name, eqx.combine(arrays, rest), series)
    one = jax.jit(jax.value_and_grad(loss))
    alone = [one(arrays, series) for series in each]
    together = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(arrays, batch)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    assert_tree_close(together, stacked, rtol=1e-7, atol=1e-9)
    summed = lambda arrays: jnp.sum(jax.vmap(loss, (None, 0))(arrays, batch))
    of_sum = jax.jit(jax.grad(summed))(arrays)
    total = jax.tree.map(lambda x: jnp.sum(x, 0), stacked[1])
    assert_tree_close(of_sum, total, rtol=1e-7, atol=1e-9)


@each_model
def test_a_stream_says_what_the_batch_says(name):
    model, series = built(name), series_of(6, 3)
    said, _ = eqx.filter_jit(model)(series, **static_of(name))
    state, step = model.init(**static_of(name)), eqx.filter_jit(model.step)
    for row in range(6):
        x = np.where(series.mask[row], series.xs[row], np.nan)
        state, (before, after) = step(state, series.ts[row], x)
        np.testing.assert_allclose(before, said.before[row], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(after, said.after[row], rtol=1e-9, atol=1e-12)
    assert_tree_close(state.y, said.state, rtol=1e-9, atol=1e-12)
    with pytest.raises(Exception, match="in order of time"):
        jax.block_until_ready(step(state, series.ts[0], series.xs[0])[1])


@each_model
def test_nothing_is_known_of_what_comes_later(name):
    """The derivative of a forecast by a reading at or after its time is exactly zero; by one before
    it is not.
    """
    model, series = built(name), series_of(6, 4)

    def before(xs):
        changed = eqx.tree_at(lambda s: s.xs, series.clean(), xs)
        said = model(changed, **static_of(name))[0].before
        return jnp.sum(said.reshape(len(said), -1), axis=1)

    slopes = np.asarray(jax.jacrev(before)(jnp.asarray(series.xs)))
    for row in range(6):
        assert np.all(slopes[row, row:] == 0)
    # A jump ODE begins anew at each reading, and remembers what was missing there.
    read = [4] if name.startswith("JumpODE") else [0, 1, 3, 4]
    assert np.all(np.any(slopes[5] != 0, axis=-1)[read])


@each_model
def test_predictions_at_any_time(name):
    """Between rows, at a row (before it), and behind the last; derivatives by these times."""
    model, series = built(name), series_of(4, 5)
    ts = jnp.array([series.ts[0] + 0.01, series.ts[1], series.ts[3] + 0.5])
    said, sol = model(series, ts, **static_of(name))
    np.testing.assert_allclose(said.values[1], said.before[1], rtol=2e-3, atol=2e-4)
    if not name.startswith("GRUDt"):
        assert not np.allclose(said.values[2], said.last)
    total = lambda ts: jnp.sum(model(series, ts, **static_of(name))[0].values)
    slope = jax.grad(total)(ts)
    h = 1e-5
    by_difference = (total(ts.at[0].add(h)) - total(ts.at[0].add(-h))) / (2 * h)
    np.testing.assert_allclose(slope[0], by_difference, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name", [name for name in MODELS if not name.startswith(("GRUDt", "GRUD"))]
)
def test_costs_of_a_series(name):
    """Each regulariser is a number of its own for each series, mean and maximum included."""
    costs = {
        "error": nk.StepError(scaled=False), "stiffness": nk.EveryStep(nk.StepStiffness(), "max"),
        "kinetic": nk.EveryStep(nk.Kinetic(), "mean"),
        "local": nk.OneStep(nk.StepError(scaled=False)),
    }  # fmt: skip
    model = built(name, costs=costs)
    if "equal" in name:
        model = eqx.tree_at(lambda m: m.costs, model, {"kinetic": nk.Kinetic()})
    batch = nk.data.pad([series_of(5, 1), series_of(3, 2)])
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)

    def loss(arrays):
        run = lambda series: eqx.combine(arrays, rest)(series, key=jr.key(0), **static_of(name))[1]
        found = jax.vmap(run)(batch).costs
        assert all(cost.shape == (2,) for cost in found.values())
        return sum(jnp.mean(cost) + jnp.max(cost) for cost in found.values())

    value, grads = jax.jit(jax.value_and_grad(loss))(arrays)
    assert np.isfinite(value)
    flow = jax.tree.leaves(grads.flow)
    assert all(np.all(np.isfinite(g)) for g in flow) and any(np.any(g != 0) for g in flow)


def test_ode_rnn_by_hand():
    """A linear flow in closed form between GRU cells."""
    model = built("ODERNN", controller=diffrax.PIDController(rtol=1e-9, atol=1e-10))
    rate = np.array([0.3, -0.2, 0.5, 1.0, -0.4])
    model = eqx.tree_at(lambda m: m.flow, model, lambda t, y, args: -jnp.asarray(rate) * y)
    series = series_of(5, 7)
    said, _ = model(series)
    h, t = jnp.zeros(5), series.ts[0]
    for row in range(5):
        h = jnp.exp(-rate * (series.ts[row] - t)) * h
        np.testing.assert_allclose(said.before[row], model.readout(h), rtol=1e-7, atol=1e-9)
        if series.mask[row].any():
            seen = jnp.concatenate([series.xs[row], series.mask[row].astype(float)])
            h = model.reset.cell(seen, h)
        np.testing.assert_allclose(said.after[row], model.readout(h), rtol=1e-7, atol=1e-9)
        t = series.ts[row]


def test_gru_d_by_hand():
    """Decays of states and of last readings, as the paper has them."""
    model, series = built("GRUD"), series_of(5, 8)
    said, sol = model(series)
    assert sol is None
    h, last, read_at = jnp.zeros(5), np.zeros(2), np.full(2, series.ts[0])
    w, b = model.reset.weight, model.reset.bias
    for row in range(5):
        since = series.ts[row] - read_at
        decayed = jnp.exp(-jnp.maximum(0, model.flow.of_times(jnp.asarray(since)))) * h
        np.testing.assert_allclose(said.before[row], model.readout.net(decayed), rtol=1e-9)
        mask = series.mask[row]
        faded = jnp.exp(-jnp.maximum(0, w * since + b)) * last
        x = jnp.where(mask, series.xs[row], faded)
        if mask.any():
            h = model.reset.cell(jnp.concatenate([x, mask.astype(float)]), decayed)
        last = np.where(mask, series.xs[row], last)
        read_at = np.where(mask, series.ts[row], read_at)


def test_gru_ode_bayes_stays_between_minus_one_and_one():
    model, series = built("GRUODEBayes"), series_of(6, 9)
    ts = jnp.linspace(float(series.ts[0]), float(series.ts[-1]) + 20, 50)
    model = eqx.tree_at(lambda m: m.readout, model, lambda y: y)
    said, _ = model(series, ts)
    assert np.all(np.abs(said.values) <= 1)


def test_losses_by_hand():
    """Against SciPy's densities, reading by reading."""
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    series = series_of(6, 10)
    said = rng.normal(size=(2, 6, 2, 2))
    flowed = nk.models.Flowed(jnp.asarray(said[0]), jnp.asarray(said[1]), None, None, None)
    found = nk.models.bayes_loss(flowed, series, mixing=0.3, noise_std=0.5)
    mask, xs = np.asarray(series.mask), np.asarray(series.xs)
    mean, sd = said[0][:, 0], np.exp(0.5 * said[0][:, 1])
    expected = -norm.logpdf(xs, mean, sd)[mask].sum()
    mean, sd = said[1][:, 0], np.exp(0.5 * said[1][:, 1])
    kl = np.log(0.5 / sd) + (sd**2 + (mean - xs) ** 2) / (2 * 0.25) - 0.5
    np.testing.assert_allclose(found, expected + 0.3 * kl[mask].sum(), rtol=1e-10)
    before, after = said[:, :, 0]
    flowed = nk.models.Flowed(jnp.asarray(before), jnp.asarray(after), None, None, None)
    each = []
    for row in range(1, 6):
        if mask[row].any():
            off = np.linalg.norm((xs[row] - after[row])[mask[row]])
            jump = np.linalg.norm((after[row] - before[row])[mask[row]])
            each.append((1.2 * off + 0.8 * jump) ** 2)
    found = nk.models.jump_loss(flowed, series, weight=0.6)
    np.testing.assert_allclose(found, np.mean(each), rtol=1e-6)


@pytest.mark.parametrize("change, words", (
    (dict(channels=0), "channels"), (dict(steps_per_gap=0), "steps_per_gap"),
    (dict(max_steps=0), "max_steps"),
), ids=lambda x: str(x))  # fmt: skip
def test_bad_options(change, words):
    with pytest.raises(ValueError, match=words):
        nk.models.ODERNN(**(dict(channels=2, hidden_size=3, out_size=1, key=jr.key(0)) | change))


def test_bad_calls():
    model = built("ODERNN")
    with pytest.raises(ValueError, match="jax.vmap"):
        model(nk.data.pad([series_of(3), series_of(2)]))
    with pytest.raises(ValueError, match="was made for 2 channels"):
        model(nk.data.Series([0.0, 1.0], np.ones((2, 1))))
    with pytest.raises(ValueError, match="starts from `static`"):
        built("GRUODEBayes, imputing")(series_of(3))
    with pytest.raises(ValueError, match="takes no steps"):
        nk.models.GRUD(2, 3, 1, costs={"steps": nk.StepCount()}, key=jr.key(0))
    with pytest.raises(ValueError, match="`t0`"):
        built("ODERNN", t0=5.0)(series_of(3))
    with pytest.raises(ValueError, match="must have shape"):
        model.step(model.init(), 0.0, jnp.ones(3))


@each_model
def test_a_row_without_a_reading_changes_nothing(name):
    """The series with an empty row more says the same at its other rows, up to its steps."""
    tight = dict(controller=diffrax.PIDController(rtol=1e-9, atol=1e-10))
    options = {} if "equal" in name or name.startswith("GRUD") else tight
    model, series = built(name, **options), series_of(3, 12)
    ts = np.insert(series.ts, 2, 0.5 * (series.ts[1] + series.ts[2]))
    xs = np.insert(np.where(series.mask, series.xs, np.nan), 2, np.nan, axis=0)
    said, _ = model(series, **static_of(name))
    more, _ = model(nk.data.Series(ts, xs), **static_of(name))
    close = dict(rtol=2e-2 if "equal" in name else 1e-7, atol=1e-9)
    np.testing.assert_allclose(np.asarray(more.before)[[0, 1, 3]], said.before, **close)
    np.testing.assert_allclose(more.last, said.last, **close)


@each_model
def test_a_forecast_at_the_first_row_does_not_know_it(name):
    model, series = built(name), series_of(3, 13)
    said, _ = model(series, jnp.asarray(series.ts), **static_of(name))
    np.testing.assert_allclose(said.values[0], said.before[0], rtol=1e-12)


def test_what_streams_and_losses_refuse():
    steps = dict(controller=diffrax.ConstantStepSize(), dt0=0.1)
    model = built("ODERNN", **steps)
    with pytest.raises(ValueError, match="steps_per_gap"):
        model.step(model.init(), 0.0, jnp.ones(2))
    batch = nk.data.pad([series_of(3), series_of(2)])
    said, _ = jax.vmap(built("JumpODE in equal steps"))(batch)
    with pytest.raises(ValueError, match="jax.vmap"):
        nk.models.jump_loss(said, batch)
    with pytest.raises(ValueError, match="jax.vmap"):
        nk.models.bayes_loss(said, batch)
    late = built("GRUD", t0=5.0)
    with pytest.raises(ValueError, match="begin before `t0`"):
        late(series_of(3))
    with pytest.raises(ValueError, match="run in order"):
        built("GRUD")(series_of(3), jnp.array([1.0, 0.5]))
