"""The experiment on latent ODEs: what is read and asked, how it is judged, that it trains."""

import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close

from ndekit.cli import main
from ndekit.data import Series
from ndekit.experiments import latent_ode
from ndekit.experiments.harness import readings, registry, row
from ndekit.experiments.harness.loss import make_loss
from ndekit.experiments.harness.measuring import measure, rows_of
from ndekit.experiments.harness.registry import find_regularizer
from ndekit.models import Normal

SIZES = (12, 4, 6)
DATA = Path(os.environ.get("NDEKIT_DATA", "/nowhere"))
needs = lambda name: pytest.mark.skipif(
    not (DATA / name).exists(), reason=f"$NDEKIT_DATA/{name} is absent"
)


def small(preset, **changes):
    defaults = dict(width=8, depth=1, batch_size=4, predict_batch=4, epochs=2, updates_per_call=3)
    load = lambda folder: readings.twin(SIZES)
    return latent_ode.PRESETS[preset]._replace(**{**defaults, "load": load, **changes})


TWIN, GRU, ODE_RNN = small("twin"), small("hopper_10_gru"), small("hopper_10")
VISITS = small("nafld")


def model_of(config, regularizer="none"):
    data, entry = config.load(None), find_regularizer(regularizer)
    return config.task.build_model(config, entry, data, key=jr.key(0)), data, entry


def batch_of(tree, size=4):
    return jax.tree.map(jnp.asarray, rows_of(tree, slice(size)))


@pytest.mark.parametrize(
    ("config", "regularizer"),
    [(TWIN, "error"), (TWIN, "local_time"), (GRU, "steps"), (ODE_RNN, "stiffness"),
     (VISITS, "none")],
    ids=["together", "local", "gru", "ode_rnn", "visits"],
)  # fmt: skip
def test_the_loss_and_its_gradients_are_finite(config, regularizer):
    model, data, entry = model_of(config, regularizer)
    loss_fn = make_loss(config.task, entry, 0.5, 10)
    batch = (batch_of(data.train_x), batch_of(data.train_y))

    def loss_of(model):
        loss, metrics, *_ = loss_fn(model, batch, jnp.asarray(200), key=jr.key(1))
        return loss, metrics

    (loss, metrics), grads = eqx.filter_value_and_grad(loss_of, has_aux=True)(model)
    added = sum(entry.weights[name] * metrics[f"cost_{name}"] for name in entry.costs)
    assert_tree_close(loss, metrics["task"] + 0.5 * added, rtol=1e-5)
    leaves = jax.tree.leaves(grads)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves)
    reached = lambda tree: any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(tree))
    latent = grads.latent if config is TWIN else grads.ode
    assert reached(grads.ode.field) and reached(latent.encoder) and reached(latent.decoder)


def test_a_batch_of_the_twin_is_one_state():
    model, data, _ = model_of(TWIN)
    _, solution = model(batch_of(data.test_x))
    assert solution.stats["num_steps"].shape == ()
    table = TWIN.task.see_solver(model, 100, rows_of(data.test_x, slice(4)))
    assert len(table.t0) == int(solution.stats["num_steps"])
    assert_tree_close(float(table.t1[-1]), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    "config", [GRU, pytest.param(ODE_RNN, marks=pytest.mark.slow)], ids=["gru", "ode_rnn"]
)
def test_each_series_is_solved_for_itself(config):
    model, data, _ = model_of(config)
    x = batch_of(data.test_x)
    said, work = model(x)
    alone = [model.ode(x.series[i], x.ts[i]) for i in range(4)]
    assert_tree_close(
        said.values, jnp.stack([path.values[0] for path, _ in alone]), rtol=1e-3, atol=1e-6
    )
    counted = [
        int(sol.stats["num_evals"][0])
        + (0 if path.encoder is None else int(path.encoder.stats["num_evals"]))
        for path, sol in alone
    ]
    assert work.stats["num_evals"].tolist() == counted
    # The steps of the encoder are work, and are not drawn.
    more = work.stats["num_steps"] > work.stats["num_accepted_steps"]
    assert bool(jnp.all(more)) == (config is ODE_RNN)


def test_the_posterior_is_narrow_at_first():
    for config in (TWIN, GRU, ODE_RNN):
        model, data, _ = model_of(config)
        said, _ = model(batch_of(data.test_x))
        widths = jnp.exp(said.posterior.log_std)
        assert bool(jnp.all((widths > 0.02) & (widths < 0.12)))


def test_what_is_judged_are_squares_and_a_divergence_that_comes_in_late():
    xs = jnp.array([[[1.0, 2.0], [3.0, 0.0]]])
    trained = jnp.array([[[0.5, 0.0], [0.5, 0.0]]])
    asked = jnp.array([[[0.0, 1.0], [0.0, 0.0]]])
    mean, log_std = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 0.0]])
    said = latent_ode.Said(jnp.zeros_like(xs), Normal(mean, log_std))
    judge = lambda step: TWIN.task.judge(said, readings.Wanted(xs, trained, asked), step)
    loss, error = judge(None)
    assert float(error) == pytest.approx(4.0)
    assert float(loss) == pytest.approx(5.0 / (2 * 0.01**2) + 0.25)
    assert float(judge(99)[0]) == pytest.approx(25000.0)
    assert float(VISITS.task.judge(said, readings.Wanted(xs, trained, asked))[0]) == pytest.approx(
        5.0 / (2 * 0.8**2) + 0.25
    )


def test_yardsticks_of_the_twin_are_its_noise_and_its_variance():
    data = readings.twin((200, 20, 300))
    mean, best = data.yardsticks.values()
    assert best == pytest.approx(readings.NOISE**2, rel=0.03)
    assert mean == pytest.approx(0.2**2 + readings.NOISE**2, rel=0.15)
    share = data.train_x.series.mask.mean()
    assert share == pytest.approx(readings.SHARE, rel=0.05)
    within = np.mean((data.train_y.xs >= 0) & (data.train_y.xs <= 1))
    assert within > 0.95


def test_metrics_of_batches_make_up_that_of_all():
    model, data, _ = model_of(TWIN)
    values, _ = model(jax.tree.map(jnp.asarray, data.test_x))
    found = measure(TWIN.task, model, data.test_x, data.test_y, 4)
    whole = readings.error_of(np.asarray(values.values), data.test_y)
    assert found.metric == pytest.approx(whole, rel=0.02)


def test_readings_count_alike_within_their_channel():
    mask = np.array([[[1, 1], [1, 0]], [[1, 0], [0, 0]]], bool)
    weights = readings.mask_weights(mask)
    # The mean over two series of their sums: half of each channel's mean.
    assert_tree_close(weights.sum((0, 1)) / 2, np.array([0.5, 0.5], np.float32), rtol=1e-6)
    assert len(set(weights[mask[..., 0], 0].tolist())) == 1 and np.all(weights[~mask] == 0)


def test_an_average_begins_with_the_first_reading_and_passes_over_what_is_missing():
    xs = np.array([[[np.nan, np.nan], [4.0, np.nan], [np.nan, np.nan], [8.0, np.nan]]])
    xs[0, 0, 1] = 2.0
    found = readings.smoothed(Series(np.arange(4.0), xs), 0.25)
    assert found.tolist() == [[5.0, 2.0]]


@needs("nafld.npz")
@pytest.mark.slow
def test_forecasts_are_told_the_first_half_and_asked_the_second():
    data = readings.visits(str(DATA))
    ends = data.test_x.ts[:, -1:]
    series = data.test_x.series
    real = np.arange(series.ts.shape[1]) < series.length[:, None]
    early, late = series.ts <= 0.5 * ends + 1e-6, data.test_x.ts > 0.5 * ends
    assert np.all(early[real])
    assert np.all(data.test_y.asked[~late] == 0)
    names = list(data.yardsticks)
    assert names[0] == "the mean of all patients"
    best = data.yardsticks["the patient's shrunken average"]
    assert best == min(data.yardsticks.values())


@needs("hopper.npz")
def test_a_share_of_the_rows_and_the_first_are_read():
    data = readings.hopping(0.1, str(DATA))
    assert set(data.train_x.series.length.tolist()) == {11}
    assert np.all(data.train_x.series.ts[:, 0] == 0)
    assert data.test_y.xs.shape == (400, 100, 14)
    assert_tree_close(data.test_y.asked.sum((1, 2)), np.ones(400, np.float32), rtol=1e-5)
    straight = data.yardsticks["straight lines between rows"]
    assert 0 < straight < data.yardsticks["each channel's mean"]


@pytest.mark.slow
def test_every_preset_trains_to_a_row(monkeypatch, tmp_path, capsys):
    presets = {"twin": TWIN, "gru": GRU, "ode_rnn": ODE_RNN}
    monkeypatch.setitem(registry.EXPERIMENTS, "latent_ode", presets)
    command = ["compare", "latent_ode", "--seeds", "1", "--regularizers", "none"]
    assert main([*command, "--preset", "twin,gru,ode_rnn", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "the path without noise" in out
    together, gru, ode_rnn = row.read_rows(tmp_path)
    assert together.steps == together.most_steps
    assert ode_rnn.evals > gru.evals > 0
