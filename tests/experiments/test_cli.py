"""The command line: what it prints, what it leaves, and how it fails."""

import csv
import gzip
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time

import jax
import optax
import pytest
from support.checkout import ROOT
from test_experiments import CONFIGS, a_row, small

import ndekit
from ndekit import cli
from ndekit.cli import main
from ndekit.experiments.harness import registry, runs


@pytest.fixture
def tiny(monkeypatch):
    """The experiment `digits` with blobs for digits."""
    config = small(CONFIGS["digits-default"], epochs=1, updates_per_call=3)
    monkeypatch.setitem(registry.EXPERIMENTS, "digits", {"default": config})


def rows_in(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_list_names_every_experiment_preset_and_regularizer(capsys):
    assert main(["list"]) == 0
    words = capsys.readouterr().out.split()
    for experiment, presets in registry.EXPERIMENTS.items():
        assert {experiment, *presets} <= set(words)
    assert set(registry.REGULARIZERS) <= set(words)


def test_the_version_names_what_it_was_made_with(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"ndekit {ndekit.__version__} (jax {jax.__version__}, ")
    assert "diffrax " in said and ndekit.__version__ == importlib.metadata.version("ndekit")


def test_help_shows_a_command_to_begin_with(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for line in said[said.index("examples:") :].splitlines()[1:]:
        assert line.startswith("  ndekit ")
        cli._parser().parse_args(line.split()[1:])


def test_search_prints_each_coefficient_once_and_marks_one(tiny, monkeypatch, capsys):
    def measured(jobs, out, **options):
        assert options["needs_validation"]
        worth = lambda job: dict(coefficient=job.coefficient, validation_metric=0.9, evals=9.0)
        return [a_row(job.regularizer, **worth(job)) for job in jobs]

    monkeypatch.setattr(cli, "run_jobs", measured)
    line = ["search", "digits", "--regularizer", "steps", "--coefficients", "0.1,1,0.1"]
    assert main([*line, "--allow", "0"]) == 0
    table = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[0] for row in table] == ["-", "0.1", "1"]
    assert sum("<-" in row for row in table) == 1


def test_a_budget_that_is_not_kept_is_said(tiny, tmp_path, capsys, caplog):
    line = ["run", "digits", "--regularizer", "budget", "--coefficient", "2"]
    assert main([*line, "--out", str(tmp_path)]) == 0
    assert "budget 2 is not kept: " in capsys.readouterr().out
    assert any("budget of 2.0 steps a solve was exceeded" in said for said in caplog.messages)


def test_the_checkpoint_of_another_program_is_one_sentence_with_a_way_on(
    tiny, monkeypatch, tmp_path, capsys
):
    line = ["run", "digits", "--out", str(tmp_path)]
    assert main(line) == 0
    (tmp_path / "rows.jsonl").unlink()
    capsys.readouterr()
    slower = registry.EXPERIMENTS["digits"]["default"]._replace(
        optimizer=lambda num_updates: optax.adam(optax.cosine_decay_schedule(0.02, num_updates))
    )
    monkeypatch.setitem(registry.EXPERIMENTS, "digits", {"default": slower})
    status, sentence = failed(capsys, line)
    assert status == 2 and "other hyper-parameters" in sentence and "`--fresh`" in sentence
    assert main([*line, "--fresh"]) == 0


def test_a_run_that_goes_on_says_where(tiny, tmp_path, caplog):
    line = ["run", "digits", "--out", str(tmp_path)]
    assert main(line) == 0
    assert not caplog.messages
    (tmp_path / "rows.jsonl").unlink()
    assert main(line) == 0
    assert any("resumed at update 3 of 3" in said for said in caplog.messages)


def test_trainings_in_turns_do_not_say_at_each_turn_that_they_go_on(tiny, tmp_path, caplog):
    line = ["time", "digits", "--regularizers", "budget", "--out", str(tmp_path)]
    assert main(line) == 0
    assert not caplog.messages


def test_run_appends_a_row_and_draws(tiny, tmp_path, capsys):
    line = ["run", "digits", "--regularizer", "steps", "--coefficient", "0.5", "--seed", "3"]
    assert main([*line, "--out", str(tmp_path)]) == 0
    (row,) = rows_in(tmp_path)
    assert (row["regularizer"], row["coefficient"], row["seed"]) == ("steps", 0.5, 3)
    assert (tmp_path / "training.png").exists()
    assert "steps" in capsys.readouterr().out


def test_compare_runs_the_product_and_prints_one_table(tiny, tmp_path, capsys):
    line = ["compare", "digits", "--regularizers", "none,error", "--seeds", "2"]
    assert main([*line, "--out", str(tmp_path)]) == 0
    assert [(r["regularizer"], r["seed"]) for r in rows_in(tmp_path)] == [
        ("none", 0), ("none", 1), ("error", 0), ("error", 1),
    ]  # fmt: skip
    out = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in out[2:4]] == ["none", "error"]


def test_time_prints_and_keeps_seconds_beside_the_first(tiny, tmp_path, capsys):
    line = ["time", "digits", "--regularizers", "none,error", "--updates", "3"]
    assert main([*line, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in out[2:4]] == ["none", "error"]
    assert out[3].count("x") == 4
    with (tmp_path / "seconds.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["regularizer"], row["num_updates"]) for row in rows] == [
        ("none", "3"), ("error", "3"),
    ]  # fmt: skip


def failed(capsys, arguments):
    """The status, and the one sentence on stderr."""
    try:
        status = main(arguments)
    except SystemExit as error:
        status = error.code
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.endswith(": training")]
    assert out == ""
    assert len(lines) == 1 and lines[0].startswith("ndekit: ")
    return status, lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "digit"], "There is no experiment `digit`"),
        (["run", "digits", "--regularizer", "nope"], "There is no regularizer `nope`"),
        (["run", "digits", "--preset", "nope"], "There is no preset of `digits` `nope`"),
        (["run", "digits", "--coefficient", "much"], "expected a positive number, got 'much'"),
        (["run", "digits", "--coefficient", "-1"], "expected a positive number, got '-1'"),
        (["run", "digits", "--coefficient", "1"], "`none` has no coefficient"),
        (
            ["search", "digits", "--regularizer", "none", "--coefficients", "1"],
            "`none` has no coefficient",
        ),
        (
            ["search", "digits", "--regularizer", "nope", "--coefficients", "1"],
            "There is no regularizer `nope`",
        ),
        (
            ["search", "digits", "--regularizer", "steps", "--coefficients", "1,,2"],
            "expected a positive number, got ''",
        ),
        (
            ["search", "digits", "--regularizer", "steps", "--coefficients", "1", "--allow", "-1"],
            "expected a number from 0, got '-1'",
        ),
        (["run", "digits", "--regularizer", "stifness"], "Did you mean `stiffness`?"),
        (["run", "digits", "--seed", "1.5"], "expected a whole number from 0, got '1.5'"),
        (["run", "digits", "--nope"], "Unrecognized arguments: --nope"),
        (["compare", "digits", "--regularizers", "none,nope"], "no regularizer `nope`"),
        (["compare", "digits", "--seeds", "0"], "expected a whole number from 1, got '0'"),
        (["compare", "digits", "--epochs", "0"], "expected a whole number from 1, got '0'"),
        (["nope"], "Invalid choice: 'nope'"),
        ([], "The following arguments are required: command"),
        (["run"], "The following arguments are required: experiment"),
    ],
)
def test_a_bad_option_is_one_sentence_and_status_2(arguments, said, capsys):
    status, sentence = failed(capsys, arguments)
    assert status == 2
    assert said.lower() in sentence.lower()


def test_a_random_end_beyond_the_solve_is_one_sentence_and_status_2(tiny, tmp_path, capsys):
    line = ["run", "digits", "--regularizer", "steer", "--coefficient", "5"]
    status, sentence = failed(capsys, [*line, "--out", str(tmp_path)])
    assert status == 2 and "less than the 1 that a solve spans" in sentence


def test_a_missing_data_folder_is_one_sentence_and_status_2(tmp_path, capsys):
    line = ["run", "mnist_ode", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path)]
    status, sentence = failed(capsys, line)
    assert status == 2 and "does not exist" in sentence


def test_a_corrupt_data_file_is_one_sentence_and_status_2(tmp_path, capsys):
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(b"not a picture"))
    line = ["run", "mnist_ode", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    status, sentence = failed(capsys, line)
    assert status == 2 and "should begin with the IDX header" in sentence


def test_a_corrupt_file_of_rows_is_one_sentence_and_status_2(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("nonsense\n")
    status, sentence = failed(capsys, ["run", "digits", "--out", str(tmp_path)])
    assert status == 2 and "Line 1 of" in sentence


def test_a_folder_that_cannot_be_written_is_one_sentence_and_status_2(tiny, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    status, sentence = failed(capsys, ["run", "digits", "--out", str(tmp_path / "file")])
    assert status == 2 and "file" in sentence


def test_a_diverging_run_is_one_sentence_and_status_2(tiny, tmp_path, capsys):
    line = ["run", "digits", "--regularizer", "steps", "--coefficient", "3e38"]
    status, sentence = failed(capsys, [*line, "--out", str(tmp_path)])
    assert status == 2 and "Update 1 gave loss" in sentence


def test_a_solve_that_fails_is_one_sentence_and_status_2(monkeypatch, tmp_path, capsys):
    config = small(CONFIGS["digits-default"], epochs=1, updates_per_call=3, max_steps=2)
    monkeypatch.setitem(registry.EXPERIMENTS, "digits", {"default": config})
    status, sentence = failed(capsys, ["run", "digits", "--out", str(tmp_path)])
    assert status == 2 and "maximum number of solver steps" in sentence


def test_an_interrupt_says_how_to_go_on(tiny, tmp_path, capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "run_job", interrupted)
    status, sentence = failed(capsys, ["run", "digits", "--out", str(tmp_path)])
    assert status == 130 and "Run the same command again" in sentence


def test_ctrl_c_in_a_real_process_exits_130_and_leaves_a_checkpoint(tmp_path):
    # A shell that runs us in the background has Ctrl-C ignored, and children inherit that. Mended
    # inside the child: a `preexec_fn` would fork this process, of which JAX warns.
    as_in_a_terminal = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('ndekit.cli', run_name='__main__', alter_sys=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", as_in_a_terminal, "run", "digits", "--epochs", "2000"]
        + ["--out", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in tmp_path.glob("runs/*/log.jsonl")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Run the same command again" in err and "Traceback" not in err
    assert list(tmp_path.glob("runs/*/checkpoint.eqx"))


def test_nothing_runs_at_import():
    code = (
        "import ndekit.cli, sys; loaded = {'matplotlib', 'sklearn'} & set(sys.modules); "
        "assert not loaded, loaded"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
