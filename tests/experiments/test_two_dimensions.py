"""Samples of the plane carried to others: laws, pairs, distances, and the experiment, small."""

import importlib.util
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import make_moons, make_s_curve
from support.marks import slow_but

from ndekit.cli import main
from ndekit.couplings import ExactOT
from ndekit.experiments import two_dimensions
from ndekit.experiments.harness import plane, registry, row
from ndekit.experiments.harness.loss import make_loss
from ndekit.experiments.harness.measuring import measure
from ndekit.experiments.harness.registry import find_regularizer
from ndekit.experiments.harness.runs import trainer_of
from ndekit.experiments.harness.transport import partners, wasserstein2

SMALL = (48, 8, 24)
MOVE = np.array([1.5, -2.0], np.float32)


def built(name, regularizer="none", ends=None):
    config = two_dimensions.PRESETS[f"normal_moons_{name}"]._replace(width=8, depth=1)
    ends = plane.draw_ends("normal_moons", SMALL) if ends is None else ends
    model = config.task.build_model(config, find_regularizer(regularizer), ends, key=jr.key(0))
    return config, ends, model


def moved():
    """A problem whose target is the source, moved."""
    ends = plane.draw_ends("normal_moons", SMALL)
    at = lambda x: np.stack([x[..., 0, :], x[..., 0, :] + MOVE], axis=-2)
    parts = {part: at(getattr(ends, part)) for part in ("train_x", "validation_x", "test_x")}
    targets = {name.replace("_x", "_y"): x[:, 0, 1] for name, x in parts.items()}
    return ends._replace(**parts, **targets, least_energy=float(MOVE @ MOVE))


def with_field(model, field):
    return eqx.tree_at(lambda model: model.ode.field, model, field)


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_the_distance_is_that_of_the_best_of_all_permutations(seed, size):
    x0, x1 = np.random.default_rng(seed).normal(size=(2, size, 2))
    every = [((x0[list(order)] - x1) ** 2).sum() for order in itertools.permutations(range(size))]
    np.testing.assert_allclose(wasserstein2(x0, x1), np.sqrt(min(every) / size), rtol=1e-12)
    np.testing.assert_allclose(wasserstein2(x0, x0 + MOVE), np.linalg.norm(MOVE), rtol=1e-12)


def test_partners_are_those_of_the_coupling_that_may_be_compiled():
    x0, x1 = np.random.default_rng(0).normal(size=(2, 40, 2)).astype(np.float32)
    found, _ = ExactOT()(jnp.asarray(x0), jnp.asarray(x1))
    np.testing.assert_array_equal(x0[partners(x0, x1)], found)


def test_samples_that_blew_up_are_infinitely_far_away_and_others_of_another_size_refused():
    x = np.zeros((3, 2))
    assert wasserstein2(np.where(np.eye(3, 2) > 0, np.nan, x), x) == np.inf
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(2, 2\)"):
        wasserstein2(x, x[:2])


@pytest.mark.parametrize("name", ["normal_moons", "normal_scurve", "8gaussians_moons"])
def test_laws_are_those_of_scikit_learn(name):
    """They are as far from them as two samples of scikit-learn's are from each other."""
    size = 800
    ours = plane.PROBLEMS[name][1](np.random.default_rng(1), size)

    def theirs(seed):
        if name == "8gaussians_moons":
            x = make_moons(size, noise=0.1, random_state=seed)[0]
            return 7 * (x - x.mean()) / x.std()
        if name == "normal_moons":
            x = make_moons(size, noise=0.05, random_state=seed)[0]
            return 2 * x - np.array([1.0, 0.0])
        return 1.5 * make_s_curve(size, noise=0.05, random_state=seed)[0][:, [0, 2]]

    floor = wasserstein2(theirs(0), theirs(1))
    assert wasserstein2(ours, theirs(0)) < 2 * floor
    assert wasserstein2(ours + 2 * floor, theirs(0)) > 2 * floor


def test_eight_gaussians_are_of_deviation_one_around_a_circle():
    x = plane.eight_gaussians(np.random.default_rng(0), 20_000)
    angles = np.arange(8) * np.pi / 4
    centres = 5 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # Of a mixture: E|x|^2 = 5^2 + 2, and by the symmetry E cos(8 angle) shows the eight arms.
    np.testing.assert_allclose(np.mean(np.sum(x**2, axis=1)), 27, rtol=0.01)
    nearest = ((x[:, None] - centres) ** 2).sum(-1).min(1)
    assert 1.4 < nearest.mean() < 2.0  # 2 but for those that lie nearer to another centre
    counts = np.bincount(((x[:, None] - centres) ** 2).sum(-1).argmin(1))
    np.testing.assert_allclose(counts, 2500, rtol=0.06)


def test_each_pass_pairs_every_source_with_every_target_once():
    ends = plane.draw_ends("normal_moons", SMALL)
    x0, x1 = ends.train_x[:, 0, 0], ends.train_y
    cost = {}
    for name in ("independent", "exact"):
        pairs = plane.coupled(ends, two_dimensions.COUPLINGS[name](), 3, 20).train_x
        assert pairs.shape == (48, 3, 2, 2)
        for column in range(3):
            np.testing.assert_array_equal(pairs[:, column, 1], x1)
            np.testing.assert_array_equal(np.sort(pairs[:, column, 0], 0), np.sort(x0, 0))
        assert not np.array_equal(pairs[:, 0], pairs[:, 1])
        cost[name] = np.mean(np.sum((pairs[:, :, 0] - pairs[:, :, 1]) ** 2, axis=-1))
    best = wasserstein2(x0, x1) ** 2
    assert best < cost["exact"] < 0.7 * cost["independent"]


def test_entropic_pairs_need_an_extra_that_is_named():
    if importlib.util.find_spec("ott") is None:
        with pytest.raises(ImportError, match="ott-jax"):
            two_dimensions.COUPLINGS["entropic"]()
    else:
        x0, x1 = np.random.default_rng(0).normal(size=(2, 16, 2)).astype(np.float32)
        found, same = two_dimensions.COUPLINGS["entropic"]()(x0, x1)
        assert found.shape == x0.shape and np.array_equal(same, x1)


@pytest.mark.parametrize("name", slow_but(("i_cfm",), ("i_cfm", "sf2m_exact")))
def test_the_field_that_moves_everything_alike_is_found_perfect(name):
    ends = moved()
    config, _, model = built(name, ends=ends)
    right = with_field(model, lambda t, y, args: jnp.broadcast_to(jnp.asarray(MOVE), y.shape))
    if name == "i_cfm":
        loss, _ = right(jnp.asarray(ends.train_x), key=jr.key(1))
        assert loss < 1e-8
    else:
        # Its score is left out.
        right = eqx.tree_at(lambda m: m.half_score, right, None, is_leaf=lambda x: x is None)
    found = measure(config.task, right, ends.test_x, ends.test_y, 24)
    assert found.metric < 1e-5 and found.loss < 1e-5
    assert two_dimensions.Transport().bias(right, ends) < 1e-5
    double = with_field(right, lambda t, y, args: 2 * right.ode.field(t, y, args))
    found = measure(config.task, double, ends.test_x, ends.test_y, 24)
    np.testing.assert_allclose(found.metric, np.linalg.norm(MOVE), rtol=1e-4)
    np.testing.assert_allclose(two_dimensions.Transport().bias(double, ends), 3.0, rtol=1e-4)


@pytest.mark.slow
def test_the_sde_has_the_noise_of_the_bridge_and_the_drift_of_its_score():
    _, _, model = built("sf2m_exact")
    starts = jnp.asarray(np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32))
    still = with_field(model, lambda t, y, args: jnp.zeros_like(y))
    with_score = lambda score: eqx.tree_at(lambda m: m.half_score, still, score)
    free = two_dimensions.carried(
        with_score(lambda t, y, args: jnp.zeros_like(y)), starts, key=jr.key(3)
    )
    np.testing.assert_allclose(jnp.var(free - starts), two_dimensions.NOISE**2, rtol=0.03)
    drifts = two_dimensions.carried(with_score(lambda t, y, args: -y), starts, key=jr.key(3))
    # Of dy = -y dt + sigma dW: exp(-2) + sigma^2 (1 - exp(-2)) / 2, Euler's steps being a
    # hundredth.
    variance = np.exp(-2) + two_dimensions.NOISE**2 * (1 - np.exp(-2)) / 2
    np.testing.assert_allclose(jnp.var(drifts), variance, rtol=0.05)


@pytest.mark.parametrize("name", slow_but(("fm",), two_dimensions.METHODS))
def test_every_method_has_a_finite_loss_and_gradients(name):
    config, ends, model = built(name, "steps")
    loss_fn = make_loss(config.task, find_regularizer("steps"), 0.1, 10)
    batch = jnp.asarray(ends.train_x[:8]), jnp.asarray(ends.train_y[:8])

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def slopes(model):
        return loss_fn(model, batch, jnp.asarray(3), key=jr.key(1))

    (loss, metrics), grads = slopes(model)
    leaves = jax.tree.leaves(eqx.filter(grads, eqx.is_inexact_array))
    assert leaves and all(np.isfinite(leaf).all() and np.any(leaf) for leaf in leaves)
    assert (model.half_score is not None) == name.startswith("sf2m")
    assert loss > metrics["task"] and metrics["evals"] >= 7


def test_nothing_is_solved_in_a_training_that_counts_nothing():
    config, ends, model = built("ot_cfm")
    loss_fn = make_loss(config.task, find_regularizer("none"), 0.0, 10)
    batch = jnp.asarray(ends.train_x[:8]), jnp.asarray(ends.train_y[:8])
    loss, metrics = loss_fn(model, batch, jnp.asarray(3), key=jr.key(1))
    assert metrics["evals"] == 0 and loss == metrics["task"]


def test_flow_matching_from_noise_is_for_problems_that_start_there():
    methods = {name.rpartition("_fm")[0] for name in two_dimensions.PRESETS if "_fm" in name}
    assert methods == {"normal_8gaussians", "normal_moons", "normal_scurve"}
    assert len(two_dimensions.PRESETS) == 3 * 7 + 5


@pytest.mark.slow
def test_it_runs_from_the_command_line(monkeypatch, tmp_path, capsys):
    small = dict(width=8, depth=1, epochs=1, batch_size=16, predict_batch=24, updates_per_call=3)
    loads = {
        "ot_cfm": lambda folder: two_dimensions.load("normal_moons", "exact", SMALL),
        "sf2m_independent": lambda folder: two_dimensions.load(
            "normal_moons", "independent", SMALL
        ),
        "reflow": lambda folder: two_dimensions.reflowed("normal_moons", SMALL, 1),
    }
    presets = {
        name: two_dimensions.PRESETS[f"normal_moons_{name}"]._replace(load=load, **small)
        for name, load in loads.items()
    }
    teacher = two_dimensions.PRESETS["normal_moons_i_cfm"]._replace(**small)
    monkeypatch.setitem(two_dimensions.PRESETS, "normal_moons_i_cfm", teacher)
    monkeypatch.setitem(registry.EXPERIMENTS, "two_dimensions", presets)
    monkeypatch.setattr(two_dimensions.Transport, "measured", 10)
    command = ["compare", "two_dimensions", "--seeds", "1", "--out", str(tmp_path)]
    assert main([*command, "--preset", ",".join(presets), "--regularizers", "none,steps"]) == 0
    said = capsys.readouterr().out
    assert "test W2" in said and "a fresh sample" in said
    rows = row.read_rows(tmp_path)
    assert len(rows) == 6
    for done in rows:
        found = [done.test_metric, done.test_loss, done.bias or np.nan, done.evals]
        assert np.isfinite(found).all()
        assert done.yardsticks["the source (24 points)"] > 0.5
    # Of the training samples only some are looked at.
    trainer = trainer_of(rows[0].job, {}, None)
    folder = tmp_path / "runs" / rows[0].job.name
    model, data = trainer.train(0, folder, progress=False).model, trainer.data
    some = measure(trainer.config.task, model, data.train_x[:10], data.train_y[:10], 24)
    assert some.metric == rows[0].train_metric
