"""A run that was cut off ends where it would have ended, bit for bit."""

import os
import pathlib
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from support.checkout import ROOT

from ndekit.data import Batches
from ndekit.fields import MLP
from ndekit.train import CheckpointError, checkpoint, fit

X = jr.normal(jr.key(0), (40, 3))
BATCHES = Batches(np.asarray(X), batch_size=8, key=jr.key(5))


class Cut(Exception):
    """The end of a process, as far as the run is concerned: nothing is saved on the way out."""


def loss_fn(field, x, step, *, key):
    noisy = x + 0.1 * jr.normal(key, x.shape)
    return jnp.mean((field(step / 20, noisy) - jnp.roll(x, 1, axis=-1)) ** 2), {}


def evaluate(field):
    return {"loss": jnp.mean((field(1.0, X) - jnp.roll(X, 1, axis=-1)) ** 2)}


def run(folder=None, num_updates=20, cut_at=None, error=Cut, key=None, size=3, **options):
    def batch_fn(step):
        if step == cut_at:
            raise error
        return BATCHES(step)

    return fit(
        MLP(size, 16, 1, time="concat", near_zero=False, key=jr.key(2)),
        loss_fn,
        batch_fn,
        optimizer=optax.adam(1e-2),
        num_updates=num_updates,
        key=jr.key(3) if key is None else key,
        evaluate=evaluate,
        evaluate_every=4,
        checkpoint_dir=folder,
        checkpoint_every=4,
        progress=False,
        **options,
    )


def bits(result):
    """Everything that a run produced but its times."""
    leaves = [np.asarray(x).tobytes() for x in jax.tree.leaves(result.model) if hasattr(x, "dtype")]
    return leaves, result.history, result.num_updates, result.best_update


@pytest.mark.parametrize("updates_per_call", [1, 4])
@pytest.mark.parametrize("cut_at", [4, 6, 7, 19])
def test_a_cut_run_goes_on_bit_for_bit(cut_at, updates_per_call, tmp_path):
    whole = run(updates_per_call=updates_per_call)
    with pytest.raises(Cut):
        run(tmp_path, cut_at=cut_at, updates_per_call=updates_per_call)
    resumed = run(tmp_path, updates_per_call=updates_per_call)
    assert bits(resumed) == bits(whole)


def test_a_run_cut_twice_goes_on_bit_for_bit(tmp_path):
    for cut_at in (6, 15):
        with pytest.raises(Cut):
            run(tmp_path, cut_at=cut_at)
    assert bits(run(tmp_path)) == bits(run())


def test_only_what_is_missing_is_run_again(tmp_path):
    with pytest.raises(Cut):
        run(tmp_path, cut_at=10)
    run(tmp_path, cut_at=7)  # 8 updates are kept, so 7 is not asked for again


def test_a_killed_process_goes_on_bit_for_bit(tmp_path):
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
import jax
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
import test_checkpoint as t
whole = t.BATCHES
class Killing:
    def __call__(self, step):
        if step == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(step)
t.BATCHES = Killing()
t.run({str(tmp_path)!r}, log_path={str(tmp_path / "log.jsonl")!r})
"""
    root = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", script], env=env, timeout=120)
    assert done.returncode == -signal.SIGKILL
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(lines) == 13 + 3  # updates 1 to 13, evaluations after 4, 8 and 12
    resumed = run(tmp_path, log_path=tmp_path / "log.jsonl")
    assert bits(resumed) == bits(run())
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == len(resumed.history)


def test_an_interrupt_saves_the_last_update_and_is_raised(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, cut_at=10, error=KeyboardInterrupt)
    resumed = run(tmp_path, cut_at=9)  # update 10 of 20 was kept although 8 was the last turn
    assert bits(resumed) == bits(run())


def test_a_run_that_is_stopped_returns_and_goes_on_bit_for_bit(tmp_path):
    asked = []

    def stop():
        asked.append(None)
        return len(asked) > 10

    part = run(tmp_path, stop=stop)
    assert part.num_updates == 10  # kept although 8 was the last turn
    again = run(tmp_path, stop=lambda: True)
    assert bits(again) == bits(part)
    resumed = run(tmp_path, cut_at=9, stop=lambda: False)
    assert bits(resumed) == bits(run())


def test_a_run_stopped_before_its_first_evaluation_returns_its_last_model(tmp_path):
    asked = iter([False, False, True])
    part = run(tmp_path, stop=lambda: next(asked), patience=2)
    plain = run(num_updates=2)
    assert part.num_updates == 2 and part.best_update is None
    assert bits(part)[0] == bits(plain)[0]


def test_how_far_a_run_has_come_is_read_without_its_model(tmp_path):
    assert checkpoint.standing(tmp_path / "checkpoint.eqx") is None
    asked = iter([False] * 6 + [True])
    part = run(tmp_path, stop=lambda: next(asked))
    found = checkpoint.standing(tmp_path / "checkpoint.eqx")
    assert found == (6, 20, part.train_seconds)


def test_a_finished_run_is_not_run_again(tmp_path):
    first = run(tmp_path)
    again = run(tmp_path, cut_at=19)
    assert bits(again) == bits(first)
    assert again.train_seconds == first.train_seconds


def test_a_finished_run_can_be_made_longer(tmp_path):
    run(tmp_path, num_updates=12)
    assert bits(run(tmp_path)) == bits(run())


def test_resume_false_starts_over(tmp_path):
    run(tmp_path)
    with pytest.raises(Cut):
        run(tmp_path, cut_at=0, resume=False)


def test_best_model_outlives_a_cut(tmp_path):
    scores = [5.0, 1.0, 2.0, 3.0, 4.0]

    def scored(done):
        counter = iter(scores[done:])
        return lambda folder: evaluate_as(folder, counter)

    def evaluate_as(field, counter):
        return {"loss": next(counter)}

    whole = run_scored(scored(0), None)
    with pytest.raises(Cut):
        run_scored(scored(0), tmp_path, cut_at=13)
    resumed = run_scored(scored(3), tmp_path)
    assert resumed.best_update == 8
    assert bits(resumed) == bits(whole)


def run_scored(score, folder, cut_at=None):
    def batch_fn(step):
        if step == cut_at:
            raise Cut
        return BATCHES(step)

    return fit(
        MLP(3, 16, 1, near_zero=False, key=jr.key(2)), loss_fn, batch_fn,
        optimizer=optax.adam(1e-2), num_updates=20, key=jr.key(3), evaluate=score,
        evaluate_every=4, patience=3, checkpoint_dir=folder, checkpoint_every=4, progress=False,
    )  # fmt: skip


def test_a_cut_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    run(tmp_path, num_updates=8)
    before = (tmp_path / "checkpoint.eqx").read_bytes()

    def broken(file, tree):
        file.write(b"half of it")
        raise Cut

    monkeypatch.setattr(checkpoint.eqx, "tree_serialise_leaves", broken)
    with pytest.raises(Cut):
        run(tmp_path)
    assert (tmp_path / "checkpoint.eqx").read_bytes() == before


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def empty(path):
    path.write_bytes(b"")


def scribble(path):
    path.write_bytes(b"\x00\xff" * 500)


def change_a_byte(path):
    data = bytearray(path.read_bytes())
    data[-2] ^= 1  # within a number
    path.write_bytes(data)


def bare_json(path):
    path.write_bytes(b"[1, 2]\n")


@pytest.mark.parametrize("damage", [truncate, empty, scribble, change_a_byte, bare_json])
def test_a_damaged_checkpoint_is_one_clear_error(damage, tmp_path):
    run(tmp_path, num_updates=4)
    damage(tmp_path / "checkpoint.eqx")
    with pytest.raises(CheckpointError, match="is no whole checkpoint. Delete it"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(key=jr.key(4)), "another `key`"),
        (dict(num_updates=4), r"after 8 updates, past `num_updates` \(4\)"),
    ],
)
def test_anothers_checkpoint_is_refused(options, said, tmp_path):
    run(tmp_path, num_updates=8)
    with pytest.raises(CheckpointError, match=said):
        run(tmp_path, **options)


def test_another_models_checkpoint_is_refused(tmp_path):
    run(tmp_path, num_updates=4)
    said = r"another model, .*: its model.layers\[0\].weight: float32\(3, 16\), here model"
    with pytest.raises(CheckpointError, match=said):
        fit(
            MLP(3, 17, 1, time="concat", key=jr.key(2)), loss_fn, BATCHES,
            optimizer=optax.adam(1e-2), num_updates=8, key=jr.key(3), evaluate=evaluate,
            checkpoint_dir=tmp_path, progress=False,
        )  # fmt: skip
