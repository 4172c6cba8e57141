"""Toys of the plane: points against their laws, and the experiment at a small size."""

import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import logsumexp

from ndekit.cli import main
from ndekit.experiments import cnf_toys
from ndekit.experiments.harness import registry, row
from ndekit.experiments.harness.measuring import without_costs
from ndekit.experiments.harness.registry import find_regularizer

SIZE = 20_000


def points(name):
    return cnf_toys.TOYS[name](np.random.default_rng(3), SIZE)


def test_the_entropies_are_those_that_are_known():
    assert cnf_toys.ENTROPIES["8gaussians"] == pytest.approx(2.838, abs=5e-4)
    assert cnf_toys.ENTROPIES["checkerboard"] == pytest.approx(3.466, abs=5e-4)


def test_eight_gaussians_have_the_entropy_that_is_printed():
    angles = np.arange(8) * math.pi / 4
    centres = 4 / 1.414 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    spread = 0.5 / 1.414
    off = np.sum((points("8gaussians")[:, None] - centres) ** 2, axis=-1) / spread**2
    log_density = logsumexp(-0.5 * off, axis=1) - math.log(8) - math.log(2 * math.pi * spread**2)
    # The log density has variance 1, as that of any normal law in the plane.
    assert -log_density.mean() == pytest.approx(cnf_toys.ENTROPIES["8gaussians"], abs=4 / SIZE**0.5)


def test_a_checkerboard_is_even_on_every_other_square():
    squares = np.floor(points("checkerboard") / 2).astype(int)
    places, counts = np.unique(squares, axis=0, return_counts=True)
    assert len(places) == 8 and set(places.sum(axis=1) % 2) == {0}
    assert places.min() == -2 and places.max() == 1
    np.testing.assert_allclose(counts, SIZE / 8, rtol=0.1)
    inside = points("checkerboard") / 2 % 1
    np.testing.assert_allclose(inside.mean(0), 0.5, atol=0.01)
    np.testing.assert_allclose(inside.var(0), 1 / 12, rtol=0.03)


@pytest.mark.parametrize(("name", "turns"), [("pinwheel", 5), ("8gaussians", 8), ("2spirals", 2)])
def test_arms_are_alike(name, turns):
    """Turned by one arm, the law is the same: so are its moments, and those of one arm are not."""
    x = points(name) @ np.array([1, 1j])
    for power in range(1, turns):
        moment = np.mean((x / np.abs(x)) ** power)
        assert abs(moment) < 5 / SIZE**0.5
    assert abs(np.mean((x / np.abs(x)) ** turns)) > 0.02


def test_two_spirals_lie_on_their_arms():
    x = points("2spirals")
    radius = np.hypot(*x.T)
    # An arm turns 3 pi in all, a radian for each third of a unit.
    assert math.pi < radius.max() < math.pi + 0.8
    turned = np.mod(np.arctan2(x[:, 1], -x[:, 0]) - 3 * radius + math.pi / 2, math.pi)
    far = radius > 2
    assert np.mean(np.abs(turned[far] - np.median(turned[far])) < 0.6) > 0.85


def test_one_gaussian_is_the_best_normal_density():
    train, test = points("pinwheel")[:10_000], points("pinwheel")[10_000:]
    law = np.cov(train.T)
    found = cnf_toys.one_gaussian(train, test)
    entropy = 0.5 * np.log(np.linalg.det(2 * math.pi * math.e * law))
    assert found == pytest.approx(entropy, abs=0.05)


def test_no_point_is_in_two_parts():
    data = cnf_toys.load_points("2spirals", (50, 20, 30))
    together = np.concatenate([data.train_x, data.validation_x, data.test_x])
    assert len(np.unique(together, axis=0)) == 100
    assert "the entropy of the truth" not in data.yardsticks


def test_a_prediction_is_the_log_density_of_a_batch():
    config = cnf_toys.PRESETS["checkerboard"]._replace(width=8, depth=1)
    data = cnf_toys.load_points("checkerboard", (4, 4, 8))
    model = config.task.build_model(config, find_regularizer("rnode"), data, key=jr.key(0))
    said, solution = model(jnp.asarray(data.test_x), key=jr.key(1))
    assert solution.costs.keys() == {"kinetic", "jacobian"}
    alone = jax.vmap(without_costs(model).ode.log_prob)(jnp.asarray(data.test_x))
    np.testing.assert_allclose(said, alone, atol=1e-3)
    loss, metric = config.task.judge(said, None)
    assert loss == metric == -jnp.mean(said)


@pytest.mark.slow
def test_it_runs_from_the_command_line(monkeypatch, tmp_path, capsys):
    small = cnf_toys.PRESETS["8gaussians"]._replace(
        load=lambda folder: cnf_toys.load_points("8gaussians", (64, 16, 32)), width=8, depth=1,
        epochs=1, batch_size=32, predict_batch=32, updates_per_call=2,
    )  # fmt: skip
    monkeypatch.setitem(registry.EXPERIMENTS, "cnf_toys", {"small": small})
    command = ["compare", "cnf_toys", "--seeds", "1", "--out", str(tmp_path), "--regularizers"]
    assert main([*command, "none,rnode,budget,steer,local_time,taylor2"]) == 0
    said = capsys.readouterr().out
    assert "test NLL nats" in said and "the entropy of the truth" in said
    rows = row.read_rows(tmp_path)
    assert len(rows) == 6 and all(3.0 < done.test_metric < 6.0 for done in rows)
