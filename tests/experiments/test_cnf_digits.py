"""Densities of digits: the change of variables, the rules beside the flow, and the experiment."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats

from ndekit.cli import main
from ndekit.data import digits
from ndekit.experiments import cnf_digits
from ndekit.experiments.cnf_digits import PRESETS, bits, logits, one_gaussian, whitened
from ndekit.experiments.harness import registry, row
from ndekit.experiments.harness.loss import make_loss
from ndekit.experiments.harness.registry import find_regularizer

ONCE = 1, 1, 1


def test_the_growth_is_the_derivative_of_the_logit_by_the_level():
    levels, h = np.arange(17.0)[:, None], 1e-5
    at = lambda noise: logits(levels, np.full_like(levels, noise))
    _, growth = at(0.3)
    up, down = (at(0.3 + step)[0][:, 0] for step in (h, -h))
    np.testing.assert_allclose(growth, np.log((up - down) / (2 * h)), atol=1e-6)
    assert abs(up).max() < math.log(0.95 / 0.05)


def test_densities_are_those_of_the_levels():
    """One Gaussian, of the whitened logits with the volume, and by SciPy of the logits."""
    rng = np.random.default_rng(23)
    images = digits()
    plain = [
        logits(np.round(part.astype(float) * 16), rng.uniform(size=part.shape))
        for part in (images.train_x, images.validation_x, images.test_x)
    ]
    (train, _), (test, growth) = plain[0], plain[2]
    covariance: Any = np.cov(train.T)
    law = scipy.stats.multivariate_normal(train.mean(0), covariance)
    white, volume = whitened(ONCE)[2]
    np.testing.assert_allclose(one_gaussian(white) + volume, law.logpdf(test) + growth, rtol=1e-8)
    # Levels that are as likely as each other have log2(17) bits.
    assert bits(np.full(3, -64 * math.log(17))) == pytest.approx(math.log2(17))


def model_of(preset, **changes):
    config = PRESETS[preset]._replace(width=16, **changes)
    return config, config.task.build_model(config, find_regularizer("none"), None, key=jr.key(0))


def test_an_untrained_flow_is_the_one_gaussian():
    white, volume = (array.astype(np.float32) for array in whitened(ONCE)[2])
    config, model = model_of("one_probe")
    said, _ = model(jnp.asarray(white))
    _, found = config.task.judge(said, jnp.asarray(volume))
    assert found == pytest.approx(bits(one_gaussian(white) + volume), abs=0.01)


def test_eight_probes_of_a_prediction_are_unbiased_and_always_the_same():
    white = jnp.asarray(whitened(ONCE)[2][0][:100], jnp.float32)
    _, model = model_of("exact")
    far = lambda m: m.ode.field.layers[-1].weight
    model = eqx.tree_at(far, model, 40 * far(model))
    said, again = model(white)[0], model(white)[0]
    np.testing.assert_array_equal(said, again)
    exact, _ = model.ode.log_prob_and_solution(white)
    off = np.asarray(said - exact)
    assert 0.01 < off.std() and abs(off.mean()) < 4 * off.std() / 10


@pytest.mark.slow
def test_one_probe_has_the_gradient_of_the_exact_trace_in_the_mean():
    """By a factor on the last layer, of a flow whose Jacobian is not small."""
    config, probed = model_of("one_probe", depth=1)
    _, whole = model_of("exact", depth=1)
    loss_fn = make_loss(config.task, find_regularizer("none"), 0.0, 10)
    batch = jr.normal(jr.key(1), (256, 64)), jnp.zeros(256)

    def slope(model, key):
        last = lambda m: m.ode.field.layers[-1].weight

        def loss(factor):
            scaled = eqx.tree_at(last, model, factor * last(model))
            return loss_fn(scaled, batch, jnp.asarray(1), key=key)[0]

        return jax.grad(loss)(jnp.asarray(20.0))

    found = np.asarray(jax.jit(jax.vmap(lambda key: slope(probed, key)))(jr.split(jr.key(2), 16)))
    expected = slope(whole, jr.key(3))
    assert found.std() > 1e-3 * abs(expected)
    assert abs(found.mean() - expected) < found.std()


@pytest.mark.slow
def test_it_runs_from_the_command_line(monkeypatch, tmp_path, capsys):
    small = PRESETS["one_probe"]._replace(
        load=lambda folder: cnf_digits.dequantised(ONCE), width=8, depth=1, epochs=1,
        updates_per_call=2, predict_batch=125,
    )  # fmt: skip
    monkeypatch.setitem(registry.EXPERIMENTS, "cnf_digits", {"small": small})
    command = ["compare", "cnf_digits", "--seeds", "1", "--out", str(tmp_path), "--regularizers"]
    assert main([*command, "none,rnode"]) == 0
    said = capsys.readouterr().out
    assert "test NLL bits/dim" in said and "one Gaussian" in said and " Gaussians" in said
    rows = row.read_rows(tmp_path)
    assert len(rows) == 2 and all(1.5 < done.test_metric < 3.0 for done in rows)
