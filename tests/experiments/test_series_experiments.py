"""Experiments on series: each sample is solved for itself, and yardsticks stand first."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close
from support.marks import slow_but

from ndekit import models
from ndekit.cli import main
from ndekit.data import Series, black_scholes, double_ou
from ndekit.experiments import known_answers, vowels
from ndekit.experiments.harness import compare, registry, row, runs
from ndekit.experiments.harness.errors import SettingError
from ndekit.experiments.harness.loss import first_carry, make_loss
from ndekit.experiments.harness.measuring import measure, rows_of
from ndekit.experiments.harness.registry import EXPERIMENTS, find_regularizer
from ndekit.experiments.harness.series import AbstractSeriesTask, NoSolve, OfSeries, SeriesParts

SIZES = (24, 6, 10)
CONFIGS = {
    f"{experiment}-{preset}": config
    for experiment, presets in EXPERIMENTS.items()
    for preset, config in presets.items()
    if isinstance(config.task, AbstractSeriesTask)
}


def small(config, **changes):
    defaults = dict(width=8, batch_size=8, predict_batch=4, epochs=2, updates_per_call=3)
    return config._replace(**{**defaults, "load": lambda folder: data_of(config), **changes})


def data_of(config):
    if isinstance(config.task, known_answers.Jumps):
        return known_answers._paths(black_scholes, SIZES)
    if isinstance(config.task, vowels.Vowels):
        return spoken()
    return known_answers._readings(0.0, SIZES)


def spoken():
    """Series of twelve channels whose class is where they start."""
    rng = np.random.default_rng(0)
    labels = (np.arange(40) % 9).astype(np.int32)
    xs = 0.1 * rng.standard_normal((40, 6, 12)).cumsum(axis=1)
    xs[..., :9] += 2 * np.eye(9)[labels][:, None]
    x = Series(np.linspace(0, 1, 6, dtype=np.float32), xs.astype(np.float32))
    parts = [slice(0, 24), slice(24, 30), slice(30, 40)]
    return SeriesParts(*[tree[part] for part in parts for tree in (x, labels)])


def model_of(config, regularizer="none"):
    data, entry = config.load(None), find_regularizer(regularizer)
    return config.task.build_model(config, entry, data, key=jr.key(0)), data, entry


JUMPS, ADAPTIVE, DOUBLE = (
    small(CONFIGS[f"known_answers-{name}"])
    for name in ("black_scholes", "black_scholes_adaptive", "double_ou")
)


OWN = [name for name in CONFIGS if not name.startswith("latent_ode")]  # which regularises more


@pytest.mark.parametrize("name", OWN)
def test_what_controls_an_error_can_be_regularised(name):
    """A random end means nothing where the ends are those of the data."""
    config = CONFIGS[name]
    of_fields = ("steer", "taylor", "rnode", "tpr", "local_time_", "local_step_")
    known = {name for name in registry.REGULARIZERS if not name.startswith(of_fields)} - {"none"}
    assert set(config.coefficients) == (known if config.equal_steps is None else set())


VOWELS = {name: small(CONFIGS[f"vowels-{name}_30"], width=32) for name in vowels.MODELS}


@pytest.mark.parametrize("name", VOWELS)
def test_models_of_vowels_have_as_many_parameters_and_learn(name):
    model, data, entry = model_of(VOWELS[name])
    number = sum(x.size for x in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
    assert number == pytest.approx(17641, rel=0.03)
    loss_fn = make_loss(VOWELS[name].task, entry, 0.0, 10)
    batch = jax.tree.map(jnp.asarray, tuple(rows_of(tree, slice(8)) for tree in data[:2]))
    loss_of = lambda model: loss_fn(model, batch, jnp.asarray(0), key=jr.key(0))
    (loss, metrics), grads = eqx.filter_value_and_grad(loss_of, has_aux=True)(model)
    assert jnp.isfinite(loss) and 0 <= metrics["accuracy"] <= 1
    leaves = jax.tree.leaves(grads)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves)
    # A step along the gradient makes the loss smaller.
    moved = eqx.apply_updates(model, jax.tree.map(lambda g: -1e-3 * g, grads))
    assert loss_of(moved)[0] < loss
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array)))


def test_vowels_are_stratified_and_dropped():
    found = vowels.vowels(70)
    parts = [found.train_y, found.validation_y, found.test_y]
    assert sum(map(len, parts)) == 640
    shares = [np.bincount(part, minlength=9) / len(part) for part in parts]
    assert np.max(np.abs(np.array(shares) - shares[0])) < 0.02
    assert found.train_x.ts.shape[1] <= 29 - 20 + 1
    assert found.yardsticks["the largest class"] < 0.3
    official = vowels.vowels(0, official=True)
    assert len(official.train_y) == 270 and len(official.test_y) == 370
    assert len(official.validation_y) == 0


@pytest.mark.parametrize("regularizer", slow_but(("steps",), ("steps", "budget", "local_time")))
def test_costs_are_means_of_those_of_each_series(regularizer):
    model, data, entry = model_of(ADAPTIVE, regularizer)
    strength = ADAPTIVE.coefficients[regularizer]
    loss_fn = make_loss(ADAPTIVE.task, entry, strength, 10)
    carry = first_carry(entry, strength)
    given = {} if carry is None else {"carry": carry}
    x, targets = (jax.tree.map(jnp.asarray, rows_of(t, slice(5))) for t in data[:2])

    def loss_of(model):
        loss, metrics, *_ = loss_fn(model, (x, targets), jnp.asarray(3), key=jr.key(1), **given)
        return loss, metrics

    (loss, metrics), grads = eqx.filter_value_and_grad(loss_of, has_aux=True)(model)
    assert jnp.isfinite(loss)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(grads))
    work = model(x, key=jr.key(1))[1]
    (name,) = entry.costs
    assert work.costs[name].shape == (5,) and len(set(work.costs[name].tolist())) == 5
    assert_tree_close(metrics[f"cost_{name}"], jnp.mean(work.costs[name]), rtol=1e-4)
    assert float(metrics["steps"]) == float(jnp.mean(work.stats["num_steps"]))


def test_each_series_is_solved_for_itself():
    model, data, _ = model_of(ADAPTIVE)
    x = jax.tree.map(jnp.asarray, rows_of(data.test_x, slice(4)))
    said, work = model(x)
    alone = [model.ode(series) for series in x]
    assert work.stats["num_steps"].tolist() == [int(sol.stats["num_steps"]) for _, sol in alone]
    assert_tree_close(said.last, jnp.stack([of_one.last for of_one, _ in alone]), rtol=1e-4)


def test_measures_are_means_over_series_and_the_most_of_one():
    model, data, _ = model_of(ADAPTIVE)
    found = measure(ADAPTIVE.task, model, data.test_x, data.test_y, 4)
    said, work = model(jax.tree.map(jnp.asarray, data.test_x))
    steps = np.asarray(work.stats["num_steps"])
    assert found.steps == pytest.approx(steps.mean()) and found.most_steps == steps.max()
    assert found.most_steps > found.steps
    loss, metric = ADAPTIVE.task.judge(said, data.test_y)
    assert found.metric == pytest.approx(float(metric), rel=1e-5)
    assert found.loss == pytest.approx(float(loss), rel=1e-5)


def test_a_model_that_solves_nothing_takes_no_steps():
    series = rows_of(double_ou(3, key=jr.key(0)).series, slice(3))
    linear = models.LinearCDE(2, 4, 3, key=jr.key(0))
    known = models.GRUD(2, 4, 3, key=jr.key(0))
    for model in (OfSeries(NoSolve(linear)), OfSeries(known, read=lambda said: said.last)):
        said, work = model(jax.tree.map(jnp.asarray, series))
        assert said.shape == (3, 3) and work.costs == {}
        assert work.stats["num_evals"].tolist() == [0, 0, 0]
        table = DOUBLE.task.see_solver(model, 10, series)
        assert len(table.t0) == 0


@pytest.mark.parametrize("config", [JUMPS, ADAPTIVE, DOUBLE], ids=["grid", "adaptive", "double"])
def test_steps_along_the_first_series_are_seen(config):
    model, data, _ = model_of(config)
    table = config.task.see_solver(model, config.max_steps, data.test_x)
    last = float(data.test_x.ts[0, data.test_x.length[0] - 1])
    assert_tree_close(float(table.t1[-1]), 1.0 if config is JUMPS else last, rtol=1e-5)
    assert np.all(table.h > 0) and table.accepted.all()
    assert np.isnan(table.scaled_error).all() == (config is JUMPS)


def test_jumps_are_solved_on_the_grid_and_do_not_train_it():
    model, data, _ = model_of(JUMPS)
    _, work = model(jax.tree.map(jnp.asarray, rows_of(data.test_x, slice(3))))
    assert work.stats["num_steps"].tolist() == [100, 100, 100]
    shapes = {leaf.shape for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))}
    assert not any(101 in shape for shape in shapes)


def test_the_conditional_expectation_has_the_ratio_one():
    """Said by a model that knows it: the reading after a row, its expectation before the next."""
    made = black_scholes(200, key=jr.key(5))
    xs, gaps = made.series.xs, np.diff(made.series.ts, axis=1)
    before = np.concatenate([xs[:, :1], xs[:, :-1] * np.exp(2.0 * gaps)[..., None]], axis=1)
    said = models.Flowed(before, xs, None, None, None)
    unit = np.full(200, made.optimal_loss, np.float32)
    loss, ratio = JUMPS.task.judge(said, known_answers.Asked(made.series, unit))
    assert float(ratio) == pytest.approx(1.0, abs=2e-3)
    assert float(loss) == pytest.approx(made.optimal_loss, rel=2e-3)
    stays = np.concatenate([xs[:, :1], xs[:, :-1]], axis=1)
    _, ratio = JUMPS.task.judge(
        dataclasses.replace(said, before=stays), known_answers.Asked(made.series, unit)
    )
    told = known_answers._of_last_reading(made.series) / made.optimal_loss
    assert float(ratio) == pytest.approx(told, rel=1e-3)


def test_the_filter_has_the_likelihood_of_the_floor():
    made = double_ou(50, key=jr.key(2), spread=0.0)
    from ndekit.data import double_ou_filter

    exact = double_ou_filter(made.series, [1.0, -1.0])
    both = np.stack([exact.mean, np.log(np.maximum(exact.variance, 1e-12))], axis=2)
    said = models.Flowed(both.astype(np.float32), both.astype(np.float32), None, None, None)
    unit = np.full(50, made.series.mask.sum() / 50, np.float32)
    _, nll = DOUBLE.task.judge(said, known_answers.Asked(made.series, unit))
    floor = exact.marginal_nll.sum() / made.series.mask.sum()
    assert float(nll) == pytest.approx(floor, abs=1e-3)


def test_yardsticks_are_in_order():
    for config in (JUMPS, DOUBLE):
        worse, best = data_of(config).yardsticks.values()
        assert best < worse


@pytest.fixture
def tiny(monkeypatch):
    presets = {"one": ADAPTIVE, "grid": JUMPS, "double": DOUBLE}
    monkeypatch.setitem(registry.EXPERIMENTS, "known_answers", presets)


@pytest.mark.slow
def test_rows_and_tables_have_yardsticks_and_the_most_steps(tiny, tmp_path, capsys):
    command = ["compare", "known_answers", "--seeds", "1", "--out", str(tmp_path)]
    assert main([*command, "--regularizers", "none,steps"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("the last reading") and lines[2].split()[-1] == "1.00"
    assert "most" in lines[3]
    none, steps = row.read_rows(tmp_path)
    assert none.yardsticks["the conditional expectation"] == 1.0
    assert none.most_steps > none.steps > 0
    # Several presets in one table, each by its name, beside the first.
    assert main([*command, "--regularizers", "none", "--preset", "one,grid"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("known_answers (one, grid), 2 epochs")
    first, second = out.splitlines()[4:6]
    assert first.startswith("one ") and "|" not in first
    assert second.startswith("grid ") and "  | " in second
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_presets_with_different_metrics_are_not_compared(tiny, tmp_path, capsys):
    command = ["compare", "known_answers", "--preset", "one,double", "--out", str(tmp_path)]
    assert main(command) == 2
    assert "`one` by ratio, `double` by NLL" in capsys.readouterr().err
    assert not row.read_rows(tmp_path)


@pytest.mark.slow
def test_a_search_and_turns_take_series(tiny, tmp_path, capsys):
    command = ["search", "known_answers", "--regularizer", "steps", "--coefficients", "0.1"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert "validation ratio" in capsys.readouterr().out
    command = ["time", "known_answers", "--updates", "3", "--regularizers", "none"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert "known_answers (one), first 3 updates" in capsys.readouterr().out


def test_a_row_of_an_older_version_is_read(tiny, tmp_path):
    assert row.Row._field_defaults == {"most_steps": None, "yardsticks": {}}
    with pytest.raises(SettingError):
        compare.metric_of_jobs(
            [registry.make_job("known_answers", "none", 0, preset=p) for p in ("one", "double")]
        )
    assert isinstance(data_of(DOUBLE), SeriesParts) and runs
