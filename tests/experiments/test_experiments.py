"""Every experiment with every regulariser, and the rows that they leave."""

import json
import math
import os
import shutil
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.stats import wasserstein_distance
from support.close import assert_tree_close, close_to_rounding
from support.marks import slow_but

from ndekit.data import Dataset
from ndekit.experiments.cnf_digits import Pixels
from ndekit.experiments.cnf_toys import Toy
from ndekit.experiments.harness import compare, registry, row, runs, search, turns
from ndekit.experiments.harness.classification import Classification
from ndekit.experiments.harness.distances import marginal_distance
from ndekit.experiments.harness.errors import SettingError, UnknownNameError
from ndekit.experiments.harness.loss import first_carry, make_loss
from ndekit.experiments.harness.measuring import measure, time_predictions, without_costs
from ndekit.experiments.harness.registry import (
    ABLATION,
    EXPERIMENTS,
    REGULARIZERS,
    find_regularizer,
    make_job,
)
from ndekit.experiments.harness.series import AbstractSeriesTask
from ndekit.experiments.harness.simulated import Timed, parts_of_series, simulated
from ndekit.experiments.harness.task import AbstractSDETask
from ndekit.experiments.harness.training import Trainer
from ndekit.experiments.harness.trajectories import TrajectoryFit, sample_trajectories
from ndekit.experiments.latent_ode import Twin
from ndekit.experiments.learnt_solvers import SameNoise
from ndekit.experiments.lorenz_latent_sde import LatentFit
from ndekit.experiments.nested_circles import Circles
from ndekit.experiments.ou_gan import GAN
from ndekit.experiments.pendulum import PendulumFit
from ndekit.experiments.spiral_sde import MomentFit, simulated_moments, spiral_moments
from ndekit.experiments.two_dimensions import Transport
from ndekit.train import column

CONFIGS = {
    f"{experiment}-{preset}": config
    for experiment, presets in EXPERIMENTS.items()
    for preset, config in presets.items()
    # Those on series, those that compare fields and densities have tests of their own.
    if not isinstance(config.task, (AbstractSeriesTask, Twin, Circles, PendulumFit))
    and not isinstance(config.task, (Toy, Pixels, SameNoise, Transport))
}


def small_data(features=12, classes=3):
    """Blobs that a linear map tells apart."""
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 1, (classes, features))

    def part(size):
        labels = np.arange(size) % classes
        x = centres[labels] + 0.05 * rng.standard_normal((size, features))
        return x.astype(np.float32), labels.astype(np.int32)

    return Dataset("blobs", classes, *part(48), *part(12), *part(18))


def small_trajectories():
    starts = np.random.default_rng(0).standard_normal((14, 2))
    return sample_trajectories(lambda y: np.array([y[1], -np.sin(y[0])]), starts, 1.0, 0)


def small_moments():
    mean, variance = simulated_moments(50, 29 * 4)
    x = np.tile(np.array([2.0, 0.0], np.float32), (16, 1))
    y = np.tile(np.concatenate([mean, variance], axis=1)[::7], (16, 1, 1))
    return Timed(tuple(np.linspace(0, 1, y.shape[1]).tolist()), x, y, x, y, x, y)


def small_series(missing):
    ts = np.linspace(0.0, 1.0, 5)
    starts = np.random.default_rng(0).standard_normal((96, 2))
    return parts_of_series(
        ts, simulated(lambda t, y: -y, lambda y: 0.3, starts, ts, 1), missing=missing
    )


def data_for(config):
    if isinstance(config.task, MomentFit):
        return small_moments()
    if isinstance(config.task, (GAN, LatentFit)):
        return small_series(0.2 if isinstance(config.task, GAN) else 0.0)
    return small_trajectories() if isinstance(config.task, TrajectoryFit) else small_data()


def small(config, **changes):
    defaults = dict(width=8, batch_size=16, predict_batch=9, rtol=1e-4, atol=1e-4, max_steps=64)
    if isinstance(config.task, AbstractSDETask):
        # SOSRI's estimate is about how far a step goes.
        defaults |= dict(rtol=0.3, atol=0.3)
    return config._replace(load=lambda folder: data_for(config), **{**defaults, **changes})


DEFAULTS = [
    name
    for experiment, presets in EXPERIMENTS.items()
    if (name := f"{experiment}-{next(iter(presets))}") in CONFIGS
]
QUICK = [name for name in DEFAULTS if not name.startswith(("ou_gan", "lorenz"))]
# One of each kind; the others differ by a cost that has tests of its own.
KINDS = (
    "none",
    "steps",
    "budget",
    "rnode",
    "steer+error",
)
PAIRS = [
    pytest.param(DEFAULTS[0], name, marks=() if name in KINDS else pytest.mark.slow)
    for name in REGULARIZERS
]
# Another preset changes numbers and data, not what is combined: one regulariser shows that it
# holds together.
PAIRS += [
    pytest.param(name, "error+stiffness", marks=() if name in QUICK else pytest.mark.slow)
    for name in CONFIGS
    if name != DEFAULTS[0]
]
PAIRS += [
    pytest.param("spiral-default", "local_step_published", marks=pytest.mark.slow),
    pytest.param(DEFAULTS[0], "local_time_frozen_solver_state", marks=pytest.mark.slow),
    pytest.param(DEFAULTS[0], "steps_differentiable", marks=pytest.mark.slow),
]


def parts_of(name, regularizer):
    """The regulariser's entry, a model and a batch."""
    config = small(CONFIGS[name])
    data, entry = data_for(config), find_regularizer(regularizer)
    model = config.task.build_model(config, entry, data, key=jr.key(0))
    batch = (jnp.asarray(data.train_x[:8]), jnp.asarray(data.train_y[:8]))
    return config, entry, model, batch


@pytest.mark.parametrize(("name", "regularizer"), PAIRS)
def test_every_pair_has_a_finite_loss_and_finite_gradients(name, regularizer):
    config, entry, model, batch = parts_of(name, regularizer)
    strength = config.coefficients.get(regularizer, 0.5)
    loss_fn = make_loss(config.task, entry, strength, 10)
    carry = first_carry(entry, strength)
    given = {} if carry is None else {"carry": carry}

    def loss_of(model):
        loss, metrics, *_ = loss_fn(model, batch, jnp.asarray(3), key=jr.key(1), **given)
        return loss, metrics

    (loss, metrics), grads = eqx.filter_value_and_grad(loss_of, has_aux=True)(model)
    assert jnp.isfinite(loss)
    assert {f"cost_{cost}" for cost in entry.costs} <= set(metrics)
    leaves = jax.tree.leaves(grads)
    assert leaves and all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves)
    assert any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(grads.ode))


@pytest.mark.parametrize(
    "name", slow_but(["mnist_sde-small"], ["spiral_sde-default", "mnist_sde-small"])
)
def test_steps_of_an_sde_are_seen(name):
    config, _, model, (x, _) = parts_of(name, "none")
    table = config.task.see_solver(model, config.max_steps, np.asarray(x))
    assert_tree_close(float(table.t1[-1]), 1.0, rtol=1e-5)
    assert np.all(table.h > 0) and np.all(table.scaled_error <= 1.0001)
    assert np.all(np.isfinite(table.stiffness))


PUBLISHED_DATA = Path(os.environ.get("NDEKIT_DATA", "/nowhere"))


@pytest.mark.skipif(
    not (PUBLISHED_DATA / "spiral_sde.npz").exists(), reason="$NDEKIT_DATA/spiral_sde.npz is absent"
)
def test_simulated_moments_are_the_published_ones():
    """The signs of beta are those of the data, not those printed."""
    found = np.concatenate(simulated_moments(3000), axis=1)
    assert np.max(np.abs(found - spiral_moments(str(PUBLISHED_DATA)).train_y[0])) < 0.12


def test_distance_of_marginals_is_that_of_scipy():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(400, 3, 2)), rng.normal(0.3, 2, size=(400, 3, 2))
    truth = [
        wasserstein_distance(ours[:, i, j], theirs[:, i, j]) for i in range(3) for j in range(2)
    ]
    found = marginal_distance(jnp.asarray(ours, jnp.float32), jnp.asarray(theirs, jnp.float32))
    assert_tree_close(float(found), np.mean(truth), rtol=1e-5)
    # A number that is missing is left out: with a quarter of them gone a quarter counts for less.
    theirs[300:] = np.nan
    truth = [
        wasserstein_distance(ours[:, i, j], theirs[:300, i, j]) for i in range(3) for j in range(2)
    ]
    found = marginal_distance(jnp.asarray(ours, jnp.float32), jnp.asarray(theirs, jnp.float32))
    assert_tree_close(float(found), np.mean(truth), rtol=0.02)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_regularizer_has_a_default_coefficient(name):
    task, apart = CONFIGS[name].task, {"none"}
    if isinstance(task, (TrajectoryFit, AbstractSDETask)):
        # A random end means nothing where the ends are those of the data.
        apart |= {name for name in REGULARIZERS if name.startswith("steer")}
    if isinstance(task, AbstractSDETask):
        # What is known of an SDE's step is its ends, its error and its drift.
        of_odes = ("taylor", "rnode", "tpr", "local_time_", "local_step_")
        apart |= {name for name in REGULARIZERS if name.startswith(of_odes)}
    assert set(CONFIGS[name].coefficients) == set(REGULARIZERS) - apart


@pytest.mark.parametrize(
    "regularizer",
    slow_but(
        ["steps", "rnode"],
        [name for name, entry in REGULARIZERS.items() if entry.costs and entry.means == "factor"],
    ),
)
def test_loss_is_task_and_weighted_costs(regularizer):
    config, entry, model, batch = parts_of("digits-default", regularizer)
    loss_fn = make_loss(config.task, entry, (4.0, 1.0), 2)  # 4 falls to 1, so 2 in the middle
    loss, metrics = loss_fn(model, batch, jnp.asarray(1), key=jr.key(0))
    costs = sum(entry.weights[name] * metrics[f"cost_{name}"] for name in entry.costs)
    assert costs > 0
    assert close_to_rounding(loss, metrics["task"] + 2.0 * costs)


@pytest.mark.parametrize("name", ABLATION)
def test_an_ablation_takes_the_coefficient_of_its_family(name):
    coefficients = CONFIGS["digits-default"].coefficients
    family = "local_time" if name.startswith("local") else name.removesuffix("_differentiable")
    assert make_job("digits", name, 0).coefficient == coefficients[family]


def test_a_schedule_is_no_budget_and_no_width():
    for name in ("budget", "steer"):
        with pytest.raises(ValueError, match="schedule"):
            make_loss(Classification(), REGULARIZERS[name], (4.0, 1.0), 2)


def test_the_bias_is_the_relative_error_of_the_field():
    data = small_trajectories()
    config = small(CONFIGS["spiral-default"])
    model = config.task.build_model(config, REGULARIZERS["none"], data, key=jr.key(0))
    scale = np.asarray(data.rates) * 1.1
    told = lambda field: eqx.tree_at(lambda m: m.ode.field, model, field)
    off = told(lambda t, y, args: jnp.asarray(scale))
    assert config.task.bias(off, data) == pytest.approx(0.1, rel=1e-4)
    assert config.task.bias(told(lambda t, y, args: 0 * y), data) == pytest.approx(1.0)


def test_trajectories_are_those_of_the_field():
    data = small_trajectories()
    assert data.train_y.shape == (8, 24, 2) and data.test_y.shape == (4, 24, 2)
    steps = np.diff(data.test_y, axis=1)
    middle = 0.5 * (data.rates[:, 1:] + data.rates[:, :-1])
    h = np.diff(np.array(data.ts))[None, :, None]
    np.testing.assert_allclose(steps, h * middle, atol=2e-3)


def test_cross_entropy_and_accuracy_are_their_definitions():
    logits, labels = jnp.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]), jnp.array([0, 1, 1])
    loss, accuracy = Classification().judge(logits, labels)
    expected = np.mean([math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1)),
                        math.log(1 + math.exp(3))])  # fmt: skip
    assert close_to_rounding(loss, np.float32(expected))
    assert close_to_rounding(accuracy, np.float32(2 / 3))


def model_and_data(regularizer="steps"):
    config, data = small(CONFIGS["digits-default"]), small_data()
    model = config.task.build_model(config, REGULARIZERS[regularizer], data, key=jr.key(0))
    return model, config, data


def test_measure_weighs_a_last_batch_that_is_not_full():
    model, _, data = model_and_data()
    x, labels = data.test_x, np.array(data.test_y)
    labels[:7] = 1 - labels[:7]
    whole = measure(Classification(), model, x, labels, 18)
    parts = measure(Classification(), model, x, labels, 7)
    logits, _ = model(jnp.asarray(x))
    assert whole.metric == pytest.approx(float(np.mean(np.argmax(logits, -1) == labels)))
    assert_tree_close(
        np.float32([parts.metric, parts.loss]),
        np.float32([whole.metric, whole.loss]), rtol=1e-3,
    )  # fmt: skip


def test_steps_are_counted_with_the_rejected_ones():
    model, config, data = model_and_data()
    # A field that is still for half of the time and then fast makes the controller reject steps.
    field = lambda t, y, args: 40 * jnp.maximum(t - 0.5, 0) * jnp.sin(40 * t) * jnp.ones_like(y)
    model = eqx.tree_at(lambda m: m.ode.field, model, field)
    table = config.task.see_solver(model, config.max_steps, data.test_x)
    counted = measure(Classification(), model, data.test_x, data.test_y, 18)
    assert (~table.accepted).sum() > 0
    assert counted.steps == len(table.accepted)
    # Tsit5 takes its first stage from the step before: six evaluations an attempt, one to begin.
    assert counted.evals == 6 * len(table.accepted) + 1


def test_a_prediction_measures_nothing():
    model, _, data = model_and_data("error+stiffness")
    assert without_costs(model).ode.costs == {}
    x = jnp.asarray(data.test_x)
    assert close_to_rounding(without_costs(model)(x)[0], model(x)[0])


def test_prediction_time_is_that_of_one_call():
    model, _, data = model_and_data()
    assert 0 < time_predictions([model], data.test_x)[0] < 1


TINY = small(CONFIGS["digits-default"], epochs=2, updates_per_call=3)


@pytest.fixture
def tiny(monkeypatch):
    """The experiment `digits` with blobs for digits."""
    monkeypatch.setitem(registry.EXPERIMENTS, "digits", {"default": TINY})
    return TINY


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with two finished jobs, `none` and `steps`; training is the slow part."""
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.EXPERIMENTS, "digits", {"default": TINY})
        runs.run_jobs(jobs_of("none", "steps"), out, progress=False)
    return out


@pytest.fixture
def out(finished, tmp_path):
    """A copy of it, to change."""
    return shutil.copytree(finished, tmp_path / "out")


def jobs_of(*regularizers, seeds=1):
    return [make_job("digits", name, seed) for name in regularizers for seed in range(seeds)]


def test_training_learns_the_blobs(tiny, tmp_path):
    (done,) = runs.run_jobs([make_job("digits", "steps", 0, epochs=30)], tmp_path, progress=False)
    assert done.test_metric > 0.9


def test_a_row_says_what_was_done(finished):
    _, done = row.read_rows(finished)
    assert done.job[:4] == ("digits", "default", "steps", 0.1)
    assert done.num_updates == 2 * 3
    assert done.predict_batch == 9
    assert done.device.startswith(jax.devices()[0].platform)
    assert set(done.versions) >= {"jax", "diffrax", "equinox"}
    line = (finished / "rows.jsonl").read_text().splitlines()[1]
    assert set(json.loads(line)) >= {
        "experiment", "regularizer", "coefficient", "seed", "train_metric", "test_metric",
        "steps", "evals", "train_seconds", "predict_seconds", "compile_seconds", "device",
    }  # fmt: skip


def test_a_comparison_does_only_what_is_missing(tiny, out):
    none, steps = row.read_rows(out)
    (out / "rows.jsonl").unlink()
    row.append_row(out, none)
    said = []
    rows = runs.run_jobs(jobs_of("none", "steps"), out, progress=False, say=said.append)
    assert rows[0] == none
    assert rows[1].test_loss == steps.test_loss  # its finished checkpoint was read, not trained
    assert [line.split(": ")[1].split()[0] for line in said] == ["already", "training"]
    assert row.read_rows(out) == rows


def test_fresh_starts_over(tiny, out, monkeypatch):
    steps = jobs_of("steps")
    folder = runs.folder_of(steps[0], out)
    seen = []

    def train(self, seed, folder, *, progress):
        seen.append((folder / "checkpoint.eqx").exists())
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "train", train)
    assert (folder / "checkpoint.eqx").exists()
    with pytest.raises(KeyboardInterrupt):
        runs.run_jobs(steps, out, progress=False, fresh=True)
    assert seen == [False]


def test_seeds_differ_and_repeat(tiny, finished, tmp_path):
    first, _ = row.read_rows(finished)
    again, other = runs.run_jobs(jobs_of("none", seeds=2), tmp_path, progress=False)
    assert again.test_loss == first.test_loss
    assert other.test_loss != first.test_loss


@pytest.mark.slow
def test_trainings_in_turns_are_those_of_a_training_at_once(tiny):
    jobs = [make_job("digits", name, 0, epochs=7) for name in ("none", "steps")]
    found = turns.train_in_turns(jobs, num_updates=20)
    assert [seconds.job.regularizer for seconds in found] == ["none", "steps"]
    for job, seconds in zip(jobs, found, strict=True):
        trainer = runs.trainer_of(job, {}, None)
        assert seconds.num_updates == 21  # whole calls of three
        with tempfile.TemporaryDirectory() as place:
            model = trainer.go_on(0, Path(place), 21, progress=False).model
        batch = trainer.data.test_x[: TINY.predict_batch], trainer.data.test_y[: TINY.predict_batch]
        assert seconds.evals == measure(TINY.task, model, *batch, TINY.predict_batch).evals
        assert min(seconds.update_seconds, seconds.predict_seconds, seconds.compile_seconds) > 0
    # Compilation is not in the seconds of an update.
    assert found[0].update_seconds * 21 < found[0].compile_seconds
    (whole,) = turns.train_in_turns(jobs_of("none"), num_updates=1000)
    assert whole.num_updates == 6  # no more than a training has


def test_a_second_seed_compiles_nothing(tiny, tmp_path):
    data = small_data()
    trainer = Trainer(tiny, REGULARIZERS["steps"], 0.01, data, epochs=1)
    # Each seed's fingerprint is traced, and the program that both share.
    counted = eqx.debug.assert_max_traces(trainer.loss_fn, max_traces=3)
    trainer.loss_fn = counted
    for seed in (0, 1):
        trainer.train(seed, tmp_path / str(seed), progress=False)
    assert eqx.debug.get_num_traces(counted) == 3


def test_a_cut_job_goes_on_to_the_same_row(tiny, finished, tmp_path, monkeypatch):
    _, whole = row.read_rows(finished)
    evaluate, calls = Trainer.evaluate, []

    def cut(self, model):
        calls.append(model)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(self, model)

    monkeypatch.setattr(Trainer, "evaluate", cut)
    with pytest.raises(KeyboardInterrupt):
        runs.run_jobs(jobs_of("steps"), tmp_path, progress=False)
    assert row.read_rows(tmp_path) == []
    (resumed,) = runs.run_jobs(jobs_of("steps"), tmp_path, progress=False)
    assert len(calls) == 3
    same = ("test_loss", "test_metric", "steps", "evals", "num_updates")
    assert [getattr(resumed, name) for name in same] == [getattr(whole, name) for name in same]


def a_row(regularizer="none", seed=0, coefficient=0.0, experiment="digits", **fields):
    base = row.Row(
        registry.Job(experiment, "default", regularizer, coefficient, seed, epochs=2),
        num_updates=6, metric="accuracy", bias=None, train_metric=1.0,
        validation_metric=None, test_metric=0.9,
        test_loss=0.1, steps=10.0, evals=61.0, train_seconds=4.0, predict_seconds=0.004,
        predict_batch=9, compile_seconds=0.0, device="cpu", commit=None, versions={},
    )  # fmt: skip
    return base._replace(**fields)


def test_rows_are_read_back_as_they_were(tmp_path):
    rows = [a_row(), a_row("error", coefficient=(100.0, 10.0)), a_row(seed=1)]
    for one in rows:
        row.append_row(tmp_path, one)
    assert row.read_rows(tmp_path) == rows


def test_a_cut_last_line_is_done_again(tmp_path):
    row.append_row(tmp_path, a_row())
    path = tmp_path / "rows.jsonl"
    path.write_text(path.read_text() + '{"experiment": "dig')
    assert row.read_rows(tmp_path) == [a_row()]
    row.append_row(tmp_path, a_row(seed=1))
    assert row.read_rows(tmp_path) == [a_row(), a_row(seed=1)]


@pytest.mark.parametrize("line", ["{", "[]", '{"experiment": "digits"}', "4"])
def test_a_line_that_is_no_row_is_one_clear_error(line, tmp_path):
    row.append_row(tmp_path, a_row())
    path = tmp_path / "rows.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(row.RowsError, match="Line 2 of .* is no row.*Remove the line"):
        row.read_rows(tmp_path)


def test_table_has_mean_spread_and_ratio():
    rows = [
        a_row(evals=60.0, test_metric=0.90), a_row(seed=1, evals=64.0, test_metric=0.92),
        a_row("steps", evals=30.0, test_metric=0.92, coefficient=0.01),
        a_row("steps", seed=1, evals=32.0, test_metric=0.93, coefficient=0.01),
    ]  # fmt: skip
    _, _, none, steps = compare.table(rows).splitlines()
    assert "91.00 ± 1.41" in none and "62.0 ± 2.8" in none  # sd of {a - d, a + d} is d * sqrt(2)
    assert "92.50 ± 0.71" in steps and "31.0 ± 1.4" in steps
    assert "+1.50" in steps and "x0.50" in steps and "x1.00" in steps


def searched(*values, **fields):
    return [
        a_row("steps", coefficient=c, validation_metric=metric, evals=evals, **fields)
        for c, metric, evals in values
    ]


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ([(0.1, 0.95, 60.0), (0.3, 0.949, 40.0), (1.0, 0.93, 20.0)], 0.3),
        ([(0.1, 0.95, 40.0), (0.3, 0.952, 40.0)], 0.3),  # as cheap, and better
        ([(0.1, 0.90, 60.0), (0.3, 0.88, 40.0)], 0.1),  # none is good enough
    ],
)
def test_the_cheapest_coefficient_that_is_good_enough_is_chosen(values, chosen):
    baseline = [a_row(validation_metric=0.951, evals=70.0)]
    rows = searched(*values)
    assert search.choose(rows, baseline, 0.003) == chosen
    (line,) = [
        line for line in search.search_table(rows, baseline, 0.003).splitlines() if "<-" in line
    ]
    assert line.split()[0] == f"{chosen:g}"


def test_an_error_is_better_the_smaller_it_is():
    as_fit = dict(experiment="spiral", metric="error")
    rows = searched((0.1, 0.02, 60.0), (0.3, 0.05, 40.0), **as_fit)
    baseline = [a_row(validation_metric=0.02, **as_fit)]
    assert search.choose(rows, baseline, 0.003) == 0.1


def test_nothing_is_chosen_without_validation_data(tmp_path, monkeypatch):
    with pytest.raises(SettingError, match="validation"):
        search.choose([a_row("steps")], [a_row()], 0.003)
    # And nothing is trained first.
    data = small_data()._replace(validation_x=np.zeros((0, 12), np.float32))
    config = TINY._replace(load=lambda folder: data)
    monkeypatch.setitem(registry.EXPERIMENTS, "digits", {"default": config})
    monkeypatch.setattr(runs, "run_job", lambda *args, **options: pytest.fail("trained"))
    with pytest.raises(SettingError, match="the preset `default` of `digits` holds none out"):
        runs.run_jobs(jobs_of("none"), tmp_path, progress=False, needs_validation=True)


def test_settings_that_make_no_sense_are_refused(tiny, tmp_path, types_unchecked):
    with pytest.raises(SettingError, match="`none` has no coefficient"):
        make_job("digits", "none", 0, coefficient=0.1)
    for bad in (dict(epochs=0), dict(epochs=1.5), dict(seed=-1), dict(coefficient=np.nan)):
        with pytest.raises(ValueError, match=f"`{next(iter(bad))}` must be"):
            make_job(**dict(experiment="digits", regularizer="steps", seed=0) | bad)
    job = make_job("digits", "steer", 0, coefficient=1.0)
    with pytest.raises(SettingError, match="less than the 1 that a solve spans, but it is 1"):
        runs.run_jobs([job], tmp_path, progress=False)


def test_table_without_the_unregularised_model_compares_with_nothing():
    text = compare.table([a_row("steps", coefficient=(2.5, 1.0))])
    assert "|" not in text and "±" not in text.splitlines()[-1]
    assert "2.5 to 1" in text


def test_pictures_are_drawn_from_what_is_on_the_disk(out):
    paths = compare.draw_pictures(row.read_rows(out), out)
    assert [path.name for path in paths] == ["training.png", "solver_seen.png", "frontier.png"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths)


def test_pictures_say_which_coefficients_data_and_seeds(out, monkeypatch):
    drawn = {}
    for name in ("plot_training", "plot_solver_seen", "plot_frontier"):
        monkeypatch.setattr(
            compare, name, lambda shown, name=name, **given: drawn.update({name: (shown, given)})
        )
    rows = row.read_rows(out)
    compare.draw_pictures(rows, out)
    for data, options in drawn.values():
        assert list(data) == ["none", "steps (0.1)"]
        assert "digits (default), 2 epochs" in options["about"]
        assert "In brackets: the coefficient." in options["about"]
    assert drawn["plot_training"][1]["data"] == "validation"
    assert drawn["plot_training"][1]["units"] == {"accuracy": (100.0, "%")}
    seen = drawn["plot_solver_seen"][1]["about"]
    assert "seed 0: the solve of the first 9 test samples as one state." in seen
    # Without validation data the curves are of test data.
    compare.draw_pictures([one._replace(validation_metric=None) for one in rows], out)
    assert drawn["plot_training"][1]["data"] == "test"
    assert compare._first_seeds({"a": [a_row(seed=2)], "b": [a_row(seed=0)]}) == (
        "seeds 2 of a, 0 of b"
    )


def test_the_table_says_which_budget_is_not_kept():
    kept = [a_row("budget", coefficient=9.5, steps=10.0), a_row("steps", coefficient=0.1)]
    assert "is not kept" not in compare.table(kept)
    missed = [
        a_row("budget", coefficient=6.0, steps=steps, seed=seed)
        for seed, steps in enumerate((9.0, 8.0))
    ]
    last = compare.table([*kept, *missed]).splitlines()[-1]
    assert last.startswith("budget 6 is not kept: 8.5 steps a solve of test data. Train longer")
    baseline = [a_row(validation_metric=0.9)]
    searched = [one._replace(validation_metric=0.9) for one in missed]
    assert "is not kept" in search.search_table(searched, baseline, 0.0)


def test_log_has_the_curves(tiny, finished):
    (job,) = jobs_of("steps")
    path = runs.folder_of(job, finished) / "log.jsonl"
    history = [json.loads(line) for line in path.read_text().splitlines()]
    assert column(history, "steps", kind="evaluate")[0].tolist() == [3, 6]
    assert len(column(history, "cost_steps")[0]) == 6


def test_job_names_are_their_own():
    jobs = [
        make_job("digits", "steps", 0), make_job("digits", "steps", 1),
        make_job("digits", "steps", 0, coefficient=0.2), make_job("digits", "error", 0),
        make_job("digits", "steps", 0, epochs=1), make_job("mnist_ode", "error", 0),
        make_job("mnist_ode", "error", 0, preset="paper_a"),
    ]  # fmt: skip
    assert len({job.name for job in jobs}) == len(jobs)
    assert "100to10" in jobs[-1].name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("digit", "none", 0),
            r"There is no experiment `digit`. Did you mean `digits`\? Choose from: digits, ",
        ),
        (("digits", "anything", 0), "There is no regularizer `anything`. Choose from: none, steps"),
    ],
)
def test_unknown_names_list_the_known_ones(arguments, said):
    with pytest.raises(UnknownNameError, match=said):
        make_job(*arguments)
