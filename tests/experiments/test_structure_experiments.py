"""Experiments on what a field is built of: nested circles and a pendulum."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close
from support.marks import slow_but

from ndekit.cli import main
from ndekit.experiments import nested_circles, pendulum
from ndekit.experiments.harness import registry, row
from ndekit.experiments.harness.loss import make_loss
from ndekit.experiments.harness.registry import find_regularizer
from ndekit.experiments.harness.training import Trainer
from ndekit.fields import SecondOrder

CIRCLES = {
    name: config._replace(load=lambda folder: nested_circles.nested_circles(sizes=(60, 30, 30)))
    for name, config in nested_circles.PRESETS.items()
}
PENDULA = {
    name: config._replace(load=lambda folder: pendulum.pendulum(sizes=(16, 4, 4), times=4))
    for name, config in pendulum.PRESETS.items()
}
BOTH = {"nested_circles": CIRCLES, "pendulum": PENDULA}
PAIRS = [f"{name} {preset}" for name, presets in BOTH.items() for preset in presets]
QUICK = ("nested_circles learnt",)


def built(name, preset, regularizer="none"):
    config = BOTH[name][preset]._replace(width=8)
    data = config.load(None)
    entry = find_regularizer(regularizer)
    return config, data, entry, config.task.build_model(config, entry, data, key=jr.key(0))


def test_circles_are_a_disc_and_a_ring():
    data = nested_circles.nested_circles()
    radius = np.linalg.norm(data.train_x, axis=1)
    inside = data.train_y == 1
    assert inside.mean() == pytest.approx(1 / 3)
    assert radius[inside].max() <= 0.5 and 1.0 <= radius[~inside].min() <= radius.max() <= 1.5
    # Uniform in area: half of the disc lies within 0.5 / sqrt(2).
    assert np.mean(radius[inside] < 0.5 / np.sqrt(2)) == pytest.approx(0.5, abs=0.05)
    assert np.abs(data.train_x.mean(axis=0)).max() < 0.05


@pytest.mark.parametrize("pair", slow_but(QUICK, PAIRS))
def test_every_model_has_a_finite_loss_and_gradients(pair):
    name, preset = pair.split()
    config, data, entry, model = built(name, preset, "steps")
    loss_fn = make_loss(config.task, entry, 0.1, 10)
    batch = jnp.asarray(data.train_x[:8]), jnp.asarray(data.train_y[:8])

    @eqx.filter_jit
    @eqx.filter_grad
    def slopes(model):
        return loss_fn(model, batch, jnp.asarray(3), key=jr.key(1))[0]

    grads = jax.tree.leaves(slopes(model).ode.field)
    assert grads and all(np.isfinite(leaf).all() for leaf in grads)
    # The constant of an energy or a Lagrangian moves nothing.
    constants = {"hamiltonian": 1, "lagrangian": 1, "separable": 2}.get(preset, 0)
    assert sum(not np.any(leaf) for leaf in grads) == constants


@pytest.mark.parametrize("preset", CIRCLES)
def test_a_point_keeps_its_place_in_the_lifted_state(preset):
    _, data, _, model = built("nested_circles", preset)
    x = jnp.asarray(data.test_x)
    lifted = model.encoder(x)
    size = {"plain": 2, "second_order": 4}.get(preset, 5)
    assert lifted.shape == (30, size) and np.array_equal(lifted[:, :2], x)
    assert not np.any(lifted[:, 2:])


def test_trajectories_are_those_of_a_pendulum():
    data = pendulum.pendulum(sizes=(16, 4, 4), times=31)
    assert data.train_y.shape == (16, 31, 2) and np.array_equal(data.test_x, data.test_y[:, 0])
    energies = np.asarray(pendulum.energy(jnp.asarray(data.train_y)))
    assert np.abs(energies - energies[:, :1]).max() < 1e-5
    # d/dt by central differences.
    h = data.ts[1] - data.ts[0]
    rates = (data.train_y[:, 2:] - data.train_y[:, :-2]) / (2 * h)
    q, v = np.moveaxis(data.train_y[:, 1:-1], -1, 0)
    np.testing.assert_allclose(rates, np.stack([v, -np.sin(q)], axis=-1), atol=1e-2)
    assert np.abs(data.train_x[:, 0]).max() > 1.5


def with_field(model, field):
    return eqx.tree_at(lambda m: m.ode.field, model, field)


def test_the_bias_is_how_far_the_energy_strays():
    config, data, _, model = built("pendulum", "plain")
    true = SecondOrder(lambda t, y, args: -jnp.sin(y[..., :1]))
    assert config.task.bias(with_field(model, true), data) < 1e-3
    # A state that fades has y0 exp(-t), of which the energy is known.
    fades = with_field(model, lambda t, y, args: -y)
    ys = data.test_x * np.exp(-np.linspace(0.0, pendulum.LONG, 121))[:, None, None]
    energies = ys[..., 1] ** 2 / 2 - np.cos(ys[..., 0])
    strayed = np.sqrt(np.mean((energies - energies[0]) ** 2)) / energies[0].std()
    assert strayed > 0.5
    assert_tree_close(config.task.bias(fades, data), strayed, rtol=1e-3)
    escapes = with_field(model, lambda t, y, args: y**3)
    assert config.task.bias(escapes, data) == np.inf


def test_an_unknown_model_is_named():
    with pytest.raises(ValueError, match="no model 'other'"):
        pendulum.field_of(PENDULA["plain"]._replace(model="other"), key=jr.key(0))


@pytest.mark.slow
def test_only_with_more_room_is_a_whole_circle_on_one_side(tmp_path):
    """On the plane the ring winds around the disc for ever: some of it is taken for the disc."""
    angles = np.linspace(0, 2 * np.pi, 20_001)
    ring = 1.25 * np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    margins = {}
    for preset in ("plain", "augmented", "second_order"):
        config = nested_circles.PRESETS[preset]._replace(
            load=lambda folder: nested_circles.nested_circles(sizes=(1500, 60, 60)), epochs=10
        )
        trainer = Trainer(config, find_regularizer("none"), 0.0, config.load(None), config.epochs)
        model = trainer.train(0, tmp_path / preset, progress=False).model
        logits = np.asarray(model(jnp.asarray(ring))[0])
        centre = np.asarray(model(jnp.zeros((1, 2)))[0])[0]
        margins[preset] = min((logits[:, 0] - logits[:, 1]).min(), centre[1] - centre[0])
    assert margins["plain"] < 0
    assert margins["augmented"] > 0 and margins["second_order"] > 0


@pytest.mark.slow
def test_both_run_from_the_command_line(monkeypatch, tmp_path, capsys):
    small = dict(epochs=1, batch_size=4, predict_batch=4, updates_per_call=2, width=4)
    for name, presets in BOTH.items():
        monkeypatch.setitem(
            registry.EXPERIMENTS, name, {p: c._replace(**small) for p, c in presets.items()}
        )
        out = tmp_path / name
        command = ["compare", name, "--seeds", "1", "--regularizers", "none", "--out", str(out)]
        assert main([*command, "--preset", ",".join(presets)]) == 0
        assert "test" in capsys.readouterr().out
        done = row.read_rows(out)
        assert len(done) == len(presets)
        assert all(np.isfinite(one.test_metric) for one in done)
        assert all((one.bias is None) == (name == "nested_circles") for one in done)
