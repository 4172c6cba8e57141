"""A checkpoint is gone on from by the run that wrote it, and by no other."""

import json
import os
import pathlib
import re
import subprocess
import sys

import diffrax
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from support.checkout import ROOT

import ndekit as nk
from ndekit.train import CheckpointError, fingerprint, fit

X = np.asarray(jr.normal(jr.key(0), (64, 3)))
TRUTH = np.array([1.0, -2.0, 3.0], np.float32)


def batches(x=X):
    return lambda step: (x[8 * (step % 8) :][:8], (x @ TRUTH)[8 * (step % 8) :][:8])


def loss_of(power=2.0, weight=0.0, data=None):
    def loss_fn(model, batch, step, *, key):
        x, y = batch
        size = jnp.sum(jnp.abs(model) if data is None else jnp.abs(model) * data)
        return jnp.mean(jnp.abs(x @ model - y) ** power) + weight * size, {}

    return loss_fn


START = jnp.array([0.5, 0.5, 0.5])


def run(folder, num_updates=12, **options):
    given = dict(
        model=START, loss_fn=loss_of(), batch_fn=batches(), optimizer=optax.adam(0.05),
        key=jr.key(3), progress=False, checkpoint_dir=folder,
    )  # fmt: skip
    return fit(num_updates=num_updates, **given | options)


OTHERS = {
    # name: (options of the other run, what the message says)
    "loss": (dict(loss_fn=loss_of(3.0)), "another loss: the loss of its first update was"),
    "coefficient": (dict(loss_fn=loss_of(weight=0.01)), "another loss"),
    "data in the loss": (dict(loss_fn=loss_of(weight=1e-3, data=jnp.arange(3.0))), "another loss"),
    "data": (dict(batch_fn=batches(2 * X)), "another first batch"),
    "initial model": (dict(model=START + 0.1), "another initial model"),
    "rate": (dict(optimizer=optax.adam(0.04)), "other hyper-parameters"),
    "momentum": (dict(optimizer=optax.adam(0.05, b1=0.8)), "other hyper-parameters"),
    "epsilon": (dict(optimizer=optax.adam(0.05, eps=1e-7)), "other hyper-parameters"),
    "clipping": (
        dict(optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.05))),
        "another model, optimiser",
    ),
    "key": (dict(key=jr.key(4)), "another `key`"),
}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("name", OTHERS)
def test_the_checkpoint_of_another_run_is_refused_and_kept(name, finished, tmp_path):
    options, said = OTHERS[name]
    run(tmp_path, 12)
    before = (tmp_path / "checkpoint.eqx").read_bytes()
    with pytest.raises(CheckpointError, match=said) as error:
        run(tmp_path, 12 if finished else 20, **options)
    for remedy in ("`tag`", "`checkpoint_dir`", "`resume=False`"):
        assert remedy in str(error.value)
    assert (tmp_path / "checkpoint.eqx").read_bytes() == before


def late(rate):
    """Alike for long: what is compared is the program of a schedule, no sample of it."""
    parts = [optax.constant_schedule(0.05), optax.constant_schedule(rate)]
    return optax.adam(optax.join_schedules(parts, [100_000]))


def of_an_array(rate):
    """Closed over, and no number in the text of any program."""
    return optax.adam(jnp.array(rate))


def injected(rate):
    """In the optimiser's state."""
    return optax.inject_hyperparams(optax.adam)(learning_rate=rate)


@pytest.mark.parametrize("make", [late, of_an_array, injected])
def test_hyper_parameters_are_compared_wherever_they_are(make, tmp_path):
    run(tmp_path, optimizer=make(5e-3))
    run(tmp_path, 14, optimizer=make(5e-3))
    with pytest.raises(CheckpointError, match="other hyper-parameters"):
        run(tmp_path, 16, optimizer=make(6e-3))


def test_another_monitor_is_refused(tmp_path):
    evaluate = lambda model: {"loss": jnp.sum(model), "other": -jnp.sum(model)}
    run(tmp_path, evaluate=evaluate)
    with pytest.raises(CheckpointError, match="another `monitor`, 'loss' instead of 'other'"):
        run(tmp_path, 20, evaluate=evaluate, monitor="other")


def test_tags_tell_runs_in_one_folder_apart(tmp_path):
    rates = {"slow": 0.01, "fast": 0.1}
    first = {tag: run(tmp_path, optimizer=optax.adam(rates[tag]), tag=tag) for tag in rates}
    again = {tag: run(tmp_path, optimizer=optax.adam(rates[tag]), tag=tag) for tag in rates}
    for tag in rates:
        assert jnp.array_equal(first[tag].model, again[tag].model)
        assert (first[tag].resumed_at, again[tag].resumed_at) == (0, 12)
    assert not jnp.array_equal(first["slow"].model, first["fast"].model)
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint-slow.eqx", "checkpoint-fast.eqx",
    }  # fmt: skip


@pytest.mark.parametrize("tag", ["", "a/b", "../up", ".hidden", "two words", 3])
def test_a_tag_is_a_word(tag, tmp_path, types_unchecked):
    with pytest.raises(ValueError, match="`tag` must be a word"):
        run(tmp_path, tag=tag)
    assert not list(tmp_path.iterdir())


def test_a_tag_without_a_folder_is_refused():
    with pytest.raises(ValueError, match="no `checkpoint_dir`"):
        run(None, tag="a")


@pytest.mark.parametrize("progress", [True, False])
def test_where_a_run_goes_on_is_always_said(progress, tmp_path, caplog):
    assert run(tmp_path, 8, progress=progress).resumed_at == 0
    assert not caplog.messages
    assert run(tmp_path, 12, progress=progress).resumed_at == 8
    run(tmp_path, 12, progress=progress)
    first, second = caplog.messages
    assert "resumed at update 8 of 12 from" in first and "checkpoint.eqx" in first
    assert "resumed at update 12 of 12" in second and "nothing is left to do" in second


def test_it_is_said_on_stderr_where_nobody_has_set_up_logging(tmp_path):
    run(tmp_path, 8)
    done = in_another_process(f"t.run(pathlib.Path({str(tmp_path)!r}), 12)")
    assert "resumed at update 8 of 12" in done.stderr and done.stdout == ""


def in_another_process(code, **environment):
    start = (
        "import jax, pathlib, sys\n"
        f"sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})\n"
        "jax.config.update('jax_numpy_dtype_promotion', 'strict')\n"
        "jax.config.update('jax_numpy_rank_promotion', 'raise')\n"
        "import test_same_run as t\n"
    )
    root = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", start + code], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": root, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


class Solved(eqx.Module):
    """A model with a solve inside, whose program is a large one with functions among its parts."""

    ode: nk.models.NeuralODE
    sde: nk.models.NeuralSDE


def solved():
    field = nk.fields.MLP(2, width=4, depth=1, near_zero=False, key=jr.key(0))
    ode = nk.models.NeuralODE(
        field, controller=diffrax.PIDController(rtol=1e-4, atol=1e-4),
        costs={"steps": nk.StepCount(), "error": nk.EveryStep(nk.StepError(), "mean")},
        max_steps=64,
    )  # fmt: skip
    return Solved(ode, nk.models.NeuralSDE(field, field, dt0=0.1))


def solving(weight=0.01, step_sizes="frozen"):
    def loss_fn(model, batch, step, *, key):
        adjoint = nk.ReplayAdjoint(step_sizes=step_sizes)
        ode = eqx.tree_at(lambda ode: ode.adjoint, model.ode, adjoint)
        sol, noisy = ode(batch), model.sde(batch, key=key)
        loss = jnp.mean(sol.ys**2) + jnp.mean(noisy.ys**2) + weight * sol.costs["steps"]
        checked = eqx.error_if(loss, ~jnp.isfinite(loss), "not finite")
        return checked, {}

    return loss_fn


def of_solving(**options):
    """The fingerprint of a training of `solved`."""
    model, optimizer = solved(), optax.adam(optax.cosine_decay_schedule(0.1, 100))

    class Plan:
        loss_fn, batch_fn = staticmethod(solving(**options)), staticmethod(lambda step: X[:8, :2])
        key, evaluate, monitor = jr.key(1), None, "loss"

    Plan.optimizer = optimizer
    opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    return fingerprint.fingerprint_of(Plan, model, opt_state, None)._asdict()


def test_a_fingerprint_is_the_same_in_every_process():
    print_it = "import json; print(json.dumps(t.of_solving()))"
    theirs = json.loads(in_another_process(print_it, PYTHONHASHSEED="1").stdout)
    assert theirs == json.loads(json.dumps(of_solving()))


@pytest.mark.parametrize("options", [dict(weight=0.02), dict(step_sizes="differentiable")])
def test_a_fingerprint_sees_coefficients_and_how_a_solve_is_differentiated(options):
    plain, other = of_solving(), of_solving(**options)
    assert {name for name in plain if plain[name] != other[name]} == {"loss"}


def logging_loss(model, batch, step, *, key):
    """The loss, and a metric more."""
    loss, _ = loss_of()(model, batch, step, key=key)
    return loss + 0 * jnp.sum(model), {"size": jnp.sum(jnp.abs(model))}


def test_a_loss_that_is_written_otherwise_goes_on_and_says_so(tmp_path, caplog):
    run(tmp_path, 8)
    result = run(tmp_path, 12, loss_fn=logging_loss)
    assert jnp.array_equal(result.model, run(None, 12).model)
    said = caplog.messages[0]
    assert "the loss cannot be recognised" in said and "If it is another run" in said


def rewritten(path, change):
    """The checkpoint with its header changed."""
    header, rest = path.read_bytes().split(b"\n", 1)
    header = json.loads(header)
    change(header)
    path.write_bytes(json.dumps(header).encode() + b"\n" + rest)


def as_by_another_version(header):
    header["fingerprint"] |= {
        "environment": "jax 0.1", "loss": "other", "optimizer": "other", "batch": "other",
    }  # fmt: skip


def as_in_the_old_format(header):
    header["format"] = 1
    header["key"] = header.pop("fingerprint")["key"]
    del header["num_updates"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (as_by_another_version, "with jax 0.1. Its first update is the same"),
        (as_in_the_old_format, "an older ndekit.*whether the optimiser is the same cannot be told"),
    ],
)
def test_what_other_versions_wrote_goes_on_if_its_first_update_is_the_same(
    change, said, tmp_path, caplog
):
    run(tmp_path, 8)
    rewritten(tmp_path / "checkpoint.eqx", change)
    assert jnp.array_equal(run(tmp_path, 12).model, run(None, 12).model)
    assert any(re.search(said, message) for message in caplog.messages)
    run(tmp_path, 12)
    rewritten(tmp_path / "checkpoint.eqx", change)
    with pytest.raises(CheckpointError, match="the loss of its first update was"):
        run(tmp_path, 16, loss_fn=loss_of(3.0))


def test_a_format_to_come_is_refused(tmp_path):
    run(tmp_path, 4)
    rewritten(tmp_path / "checkpoint.eqx", lambda header: header.update(format=9))
    with pytest.raises(CheckpointError, match="has checkpoint format 9, but this version reads"):
        run(tmp_path, 8)


def test_what_was_compiled_to_look_is_not_compiled_again(tmp_path):
    run(tmp_path, 8)
    counted = eqx.debug.assert_max_traces(logging_loss, max_traces=2)
    run(tmp_path, 12, loss_fn=counted)  # once for the fingerprint, once to look and to go on
    assert eqx.debug.get_num_traces(counted) == 2


def test_a_finished_run_compiles_nothing(tmp_path, monkeypatch):
    run(tmp_path, 8)
    monkeypatch.setattr("ndekit.train.loop.run_updates", None)
    assert run(tmp_path, 8).resumed_at == 8


def test_an_interrupt_before_the_first_update_leaves_nothing_to_go_on_from(tmp_path, caplog):
    def interrupted(step):
        if step == 0 and len(asked) > 0:  # the fingerprint has asked before
            raise KeyboardInterrupt
        asked.append(step)
        return batches()(step)

    asked = []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, batch_fn=interrupted)
    assert run(tmp_path, model=START + 1).resumed_at == 0
    assert not caplog.messages


def test_the_folder_is_made_and_written_to_before_anything_else(tmp_path):
    drawn = []
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError):
            run(folder, batch_fn=lambda step: drawn.append(step))
    assert not drawn
    assert (tmp_path / "file").read_text() == ""
    run(tmp_path / "new" / "deep", 4)
    assert [path.name for path in (tmp_path / "new" / "deep").iterdir()] == ["checkpoint.eqx"]


def worse_from(update):
    """Evaluations of which the one after `update` is the best."""
    scores = iter([3.0, 2.0, 1.0, *[5.0] * 50])
    return lambda model: {"loss": next(scores)}


def test_a_run_that_patience_has_ended_goes_on_if_more_updates_are_asked_for(tmp_path, caplog):
    options = dict(evaluate_every=2, patience=2)
    first = run(tmp_path, 20, evaluate=worse_from(6), **options)
    assert (first.num_updates, first.best_update) == (10, 6)
    scored_by_none = lambda model: pytest.fail("nothing is to be evaluated")
    assert run(tmp_path, 20, evaluate=scored_by_none, **options).num_updates == 10
    assert "where `patience` had ended it: raise `num_updates`" in caplog.messages[-1]
    nothing_better = lambda model: {"loss": 9.0}
    longer = run(tmp_path, 30, evaluate=nothing_better, **options)
    assert (longer.num_updates, longer.best_update) == (14, 6)
    more_patient = run(
        tmp_path, 30, evaluate=nothing_better, evaluate_every=2, patience=4
    )  # fmt: skip
    assert more_patient.num_updates == 18
    better = run(tmp_path, 40, evaluate=lambda model: {"loss": 0.5}, evaluate_every=2, patience=4)
    assert (better.num_updates, better.best_update) == (28, 20)
