"""Learnt solvers: the teacher against its law, and exact maps in the place of students."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.integrate
from support.marks import slow_but

import ndekit as nk
from ndekit.cli import main
from ndekit.experiments import cnf_toys, learnt_solvers
from ndekit.experiments.harness import registry, row
from ndekit.experiments.harness.loss import make_loss
from ndekit.experiments.harness.registry import find_regularizer
from ndekit.experiments.learnt_solvers import (
    ABOUT,
    PRESETS,
    Ahead,
    LearntSolver,
    distance,
    endings,
    teacher,
)

SMALL = (96, 32, 64)
CONFIGS = {
    name: config._replace(
        load=lambda folder: endings(SMALL), width=8, depth=1, epochs=1, batch_size=32,
        updates_per_call=3, predict_batch=64,
    )
    for name, config in PRESETS.items()
}  # fmt: skip


def test_the_teacher_leads_to_the_eight_gaussians():
    """Its flow has their density, at points of theirs: the trace knows of every derivative."""
    rng = np.random.default_rng(1)
    x = cnf_toys.eight_gaussians(rng, 40)
    angles = np.arange(8) * np.pi / 4
    centres = 4 / 1.414 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    spread = 0.5 / 1.414
    off = np.sum((x[:, None] - centres) ** 2, axis=-1) / spread**2
    density = np.mean(np.exp(-0.5 * off), axis=1) / (2 * np.pi * spread**2)
    flow = nk.models.CNF(teacher(), nk.models.StandardNormal(2))
    found = flow.log_prob(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, np.log(density), atol=2e-3)


@pytest.mark.slow
def test_the_ends_are_those_of_a_fine_solve_in_float64(x64):
    data, exact = endings(SMALL), eqx.filter_jit(teacher())
    assert data.train_x.shape == (96, 2, 2) and data.test_y is not data.train_y
    np.testing.assert_array_equal(data.test_x[:, 1], data.test_y)
    rate = lambda t, y: np.asarray(exact(t, jnp.asarray(y.reshape(-1, 2)), None)).ravel()
    noise = data.test_x[:, 0].astype(float)
    fine = scipy.integrate.solve_ivp(rate, (0, 1), noise.ravel(), "DOP853", rtol=1e-9, atol=1e-9)
    # A noise near the border of two modes is a thousand times as sensitive as others.
    assert distance(jnp.asarray(fine.y[:, -1].reshape(-1, 2)), data.test_y) < 5e-4


def test_errors_of_ordinary_solvers_are_those_of_their_steps():
    data = endings(SMALL)
    x = jnp.asarray(data.test_x[:, 0])
    for i in range(4):
        x = x + teacher()(i / 4, x) / 4
    expected = float(distance(x, data.test_y))
    assert data.yardsticks["Euler, 4 evals"] == pytest.approx(expected, rel=1e-3)
    names = [name for name in data.yardsticks if name.startswith("Heun")]
    assert names == ["Heun, 2 evals", "Heun, 4 evals", "Heun, 8 evals"]
    assert data.yardsticks["Heun, 8 evals"] < data.yardsticks["Euler, 8 evals"] < expected


class Exact(eqx.Module):
    """The mean velocity of the teacher from t to s, by a fine solve in two halves of the way."""

    def __call__(self, t, x, s):
        t, s = jnp.asarray(t, x.dtype), jnp.asarray(s, x.dtype)
        rate = lambda u, y, args: (s - t) * teacher()(t + u * (s - t), y)
        sol = nk.diffeqsolve(
            diffrax.ODETerm(rate), diffrax.Tsit5(), 0.0, 1.0, 1e-2, x, max_steps=256
        )
        return (learnt_solvers.end_of(sol) - x) / (s - t)


@pytest.mark.parametrize(("method", "number"), [("mean_flow", 4), ("consistency", 1)])
def test_the_exact_map_ends_where_the_fine_solve_does(method, number):
    data = endings(SMALL)
    config = CONFIGS[f"{method}_{number}"]
    model = config.task.build_model(config, find_regularizer("none"), data, key=jr.key(0))
    exact = eqx.tree_at(lambda m: m.ode.field.mean, model, Exact())
    said, solution = exact(jnp.asarray(data.test_x))
    assert int(solution.stats["num_evals"]) == number
    assert distance(said.end, data.test_y) < 2e-3
    _, error = config.task.judge(said, jnp.asarray(data.test_y))
    assert error < 2e-3 < distance(model(jnp.asarray(data.test_x))[0].end, data.test_y)


def test_a_step_along_the_chord_misses_the_end_of_a_bent_way():
    """Why consistency models have one row that is theirs: more evaluations lead off the way."""
    data = endings(SMALL)
    ode = nk.models.NeuralODE(
        Ahead(Exact(), "consistency", 0.5), solver=diffrax.Euler(), dt0=0.5,
        controller=diffrax.ConstantStepSize(),
    )  # fmt: skip
    said, _ = LearntSolver(ode)(jnp.asarray(data.test_x))
    assert distance(said.end, data.test_y) > 0.02


@pytest.mark.parametrize("method", slow_but(["mean_flow"], ABOUT))
def test_every_method_learns(method):
    """Its loss is finite, moves every layer, and is smaller after a few updates of one batch."""
    config = CONFIGS[f"{method}_2"]
    data, entry = config.load(None), find_regularizer("none")
    model = config.task.build_model(config, entry, data, key=jr.key(0))
    loss_fn = make_loss(config.task, entry, 0.0, 10)
    batch = jnp.asarray(data.train_x), jnp.asarray(data.train_y)

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def slopes(model):
        return loss_fn(model, batch, jnp.asarray(3), key=jr.key(1))[0]

    before, grads = slopes(model)
    assert all(np.any(leaf) and np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    for _ in range(30):
        _, grads = slopes(model)
        model = eqx.apply_updates(model, jax.tree.map(lambda g: -0.05 * g, grads))
    assert slopes(model)[0] < before


@pytest.mark.slow
def test_it_runs_from_the_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(registry.EXPERIMENTS, "learnt_solvers", CONFIGS)
    command = ["compare", "learnt_solvers", "--seeds", "1", "--out", str(tmp_path)]
    presets = ["direct_2", "reflow_1", "mean_flow_4", "shortcut_1", "consistency_1"]
    assert main([*command, "--regularizers", "none", "--preset", ",".join(presets)]) == 0
    said = capsys.readouterr().out
    assert "test error /1000" in said and "Euler, 8 evals" in said
    rows = row.read_rows(tmp_path)
    assert [done.evals for done in rows] == [2, 1, 4, 1, 1]
