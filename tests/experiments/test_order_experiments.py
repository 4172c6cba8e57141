"""Experiments in which the order of things decides: signs of signatures, bursts, words."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close

from ndekit.cli import main
from ndekit.controls import Windows, logsignature
from ndekit.data import Series
from ndekit.experiments import states, windows
from ndekit.experiments.harness import registry, row
from ndekit.experiments.harness.registry import find_regularizer
from ndekit.models import LinearCDE

LINES = np.random.default_rng(0).normal(size=(3, 7, 4))


def term(*word):
    return windows.signature_term(LINES, word)


def test_terms_of_the_signature_obey_the_shuffle_product():
    assert_tree_close(term(2), LINES.sum(axis=1)[:, 2], rtol=1e-10)
    assert_tree_close(term(0) * term(1), term(0, 1) + term(1, 0), rtol=1e-10)
    rest = (3, 1, 2)
    shuffled = sum(term(*rest[:place], 0, *rest[place:]) for place in range(4))
    assert_tree_close(term(0) * term(*rest), shuffled, rtol=1e-9)


def test_terms_of_the_signature_are_those_of_the_log_signature():
    xs = np.concatenate([np.zeros((1, 4)), np.cumsum(LINES[0], axis=0)])
    series = Series(np.arange(8.0, dtype=np.float32), xs.astype(np.float32))
    found = logsignature(series, 2, Windows.every(7))
    for i, j in itertools.combinations(range(4), 2):
        assert_tree_close(found.levels[1][0, i, j], (term(i, j) - term(j, i))[0] / 2, rtol=1e-4)


def test_a_straight_line_has_powers_over_factorials():
    line = np.array([[[2.0, -3.0]]])
    assert_tree_close(windows.signature_term(line, (0, 1, 1, 0)), np.array([36 / 24]), rtol=1e-12)


def test_labels_are_the_signs():
    parts = windows.signs(3, (40, 5, 30))
    assert parts.train_x.xs.shape == (40, 100, 6) and len(parts.validation_x) == 5
    steps = np.rint(10 * np.diff(parts.test_x.xs, axis=1))
    assert np.array_equal(parts.test_y, windows.signature_term(steps, (2, 5, 0)) > 0)
    assert 0.2 < parts.test_y.mean() < 0.8
    assert 0.2 < parts.yardsticks["the larger class"] < 0.8


def test_the_class_of_a_burst_is_which_channel_is_faster():
    """By who knows the two waves, and looks for the place where one of the two orders fits best."""
    parts = windows.bursts((4, 4, 200))
    inside = np.arange(20) / 20
    wave = np.stack([np.sin(2 * np.pi * inside), np.sin(2.2 * np.pi * inside)], axis=-1)
    seen = np.lib.stride_tricks.sliding_window_view(parts.test_x.xs, 20, axis=1)
    misfit = [
        np.min(np.sum((np.swapaxes(seen, 2, 3) - w) ** 2, axis=(2, 3)), axis=1)
        for w in (wave, wave[:, ::-1])
    ]
    assert np.mean((misfit[1] < misfit[0]) == parts.test_y) > 0.8
    assert 0.4 < parts.test_y.mean() < 0.6


@pytest.mark.parametrize(("group", "order"), [("cycle", 5), ("a5", 60)])
def test_letters_generate_the_group(group, order):
    elements = states.elements_of(states.letters_of(group))
    assert len(set(elements)) == order
    signs = [np.linalg.det(np.eye(5)[list(element)]) for element in elements]
    assert np.allclose(signs, 1)  # even permutations alone


def test_words_amount_to_products_of_their_letters():
    as_matrix = lambda permutation: np.eye(5)[:, list(permutation)]
    matrices = [as_matrix(letter) for letter in states.letters_of("a5")]
    elements = states.elements_of(states.letters_of("a5"))
    series, found = states.words("a5", 4, 9, np.random.default_rng(1))
    assert np.all(found[:, 0] == states.NOT_ASKED)
    for word, told in zip(np.diff(series.xs, axis=1).argmax(axis=-1), found[:, 1:], strict=True):
        product = np.eye(5)
        for letter, element in zip(word, told, strict=True):
            product = matrices[letter] @ product
            assert np.array_equal(as_matrix(elements[element]), product)


def test_tests_ask_for_what_is_longer_than_any_word_of_the_training():
    parts = states.of_words("cycle", (6, 5, 4))
    assert parts.train_x.xs.shape == (6, 21, 3) and parts.test_x.xs.shape == (4, 41, 3)
    asked = parts.test_y != states.NOT_ASKED
    assert not asked[:, :21].any() and asked[:, 21:].all()
    assert parts.yardsticks == {"chance": 0.2}


def test_rows_that_are_not_asked_for_have_no_say():
    task = states.States(2, "exp")
    prediction = jnp.array([[[9.0, 0.0], [0.0, 9.0], [0.0, 9.0]]])
    loss, accuracy = task.judge(prediction, jnp.array([[-1, 1, 0]]))
    assert float(accuracy) == 0.5
    right, wrong = np.log1p(np.exp(-9.0)), 9 + np.log1p(np.exp(-9.0))
    assert float(loss) == pytest.approx((right + wrong) / 2, rel=1e-5)


def test_blocks_of_two_can_count_to_five_for_ever():
    """Written by hand: a letter turns the plane by a fifth."""
    model = LinearCDE(3, 2, 5, block_size=2, time=False, key=jr.key(0))
    turn = 2 * np.pi / 5 * np.array([[0.0, -1.0], [1.0, 0.0]])
    matrices = np.stack([0 * turn, turn, -turn])[..., None]
    angles = 2 * np.pi / 5 * np.arange(5)
    corners = np.stack([np.cos(angles), np.sin(angles)])
    where = lambda m: (m.field.matrices, m.initial.bias, m.readout.weight)
    model = eqx.tree_at(where, model, tuple(map(jnp.float32, (matrices, [1.0, 0.0], corners))))
    parts = states.of_words("cycle", (2, 2, 8))
    # Elements by their number in the list: how far the point 0 has gone.
    elements = states.elements_of(states.letters_of("cycle"))
    said, _ = jax.vmap(states.AtReadings(model))(jax.tree.map(jnp.asarray, parts.test_x))
    gone = np.array([element[0] for element in elements])
    letters = states.letters_of("cycle")
    steps = np.diff(parts.test_x.xs, axis=1) @ np.array([letter[0] for letter in letters])
    place = np.mod(np.cumsum(np.where(steps == 4, -1, np.where(steps == 1, 1, 0)), axis=1), 5)
    asked = parts.test_y[:, 1:] != states.NOT_ASKED
    assert np.array_equal(gone[parts.test_y[:, 1:]][asked], place[asked])
    turned = np.argmax(np.asarray(said), axis=-1)[:, 1:]
    sign = 1 if letters[1][0] == 1 else -1
    assert np.array_equal(turned[asked], np.mod(sign * place, 5)[asked])


@pytest.mark.parametrize("preset", ["sign2_depth2_every20", "bursts_depth3_every20"])
def test_models_of_windows_take_a_step_a_window(preset):
    config = windows.PRESETS[preset]
    data = windows.bursts((2, 2, 3)) if "bursts" in preset else windows.signs(2, (2, 2, 3))
    model = config.task.build_model(config, find_regularizer("none"), data, key=jr.key(0))
    assert model.ode.order == int(preset.split("depth")[1][0])
    said, work = model(jax.tree.map(jnp.asarray, data.test_x))
    assert said.shape == (3, 2)
    rows = data.test_x.ts.shape[1]
    assert work.stats["num_steps"].tolist() == [-(-(rows - 1) // 20)] * 3


@pytest.mark.slow
def test_both_run_from_the_command_line(monkeypatch, tmp_path, capsys):
    small = dict(epochs=1, batch_size=4, predict_batch=4, updates_per_call=2)
    of_windows = windows.PRESETS["sign2_depth2_every20"]._replace(
        load=lambda folder: windows.signs(2, (8, 4, 4)), width=4, **small
    )
    of_states = states.PRESETS["cycle_block2_exp"]._replace(
        load=lambda folder: states.of_words("cycle", (8, 4, 4)), **small
    )
    for name, config in (("windows", of_windows), ("states", of_states)):
        monkeypatch.setitem(registry.EXPERIMENTS, name, {"one": config})
        out = tmp_path / name
        command = ["compare", name, "--seeds", "1", "--regularizers", "none", "--out", str(out)]
        assert main(command) == 0
        assert "test accuracy %" in capsys.readouterr().out
        (done,) = row.read_rows(out)
        assert 0 <= done.test_metric <= 1 and done.num_updates == 2
