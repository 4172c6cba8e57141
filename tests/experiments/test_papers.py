"""The queue of rows that the published tables lack: it ends in time, goes on, and repeats none."""

import csv
import itertools
import json

import equinox as eqx
import pytest
from test_experiments import CONFIGS, a_row, small

from ndekit import cli
from ndekit.cli import main
from ndekit.experiments import papers
from ndekit.experiments.harness import queue, registry, row, runs
from ndekit.experiments.harness.queue import Visit, work
from ndekit.experiments.harness.registry import make_job
from ndekit.experiments.harness.standings import standings, standings_table
from ndekit.experiments.harness.training import Trainer
from ndekit.train import CheckpointError, NonFiniteLossError

UPDATES = 6  # two epochs of three


class Trained(Exception):
    """A training has begun."""


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The presets of the papers with blobs for images."""
    for experiment, preset in (("mnist_ode", "paper_a"), ("mnist_sde", "paper_a")):
        config = small(CONFIGS[f"{experiment}-{preset}"], epochs=2)
        monkeypatch.setitem(registry.EXPERIMENTS, experiment, {preset: config})


def job_of(regularizer="error", seed=0, experiment="mnist_ode"):
    return make_job(experiment, regularizer, seed, preset="paper_a")


def visit_of(seconds):
    """A visit whose clock goes on by a second whenever it is read."""
    return Visit(float(seconds), itertools.count(0.0).__next__)


def worked(jobs, out, seconds=1000, **options):
    return work(jobs, out, visit_of(seconds), progress=False, **options)


def found(done):
    """All of a row but its times."""
    return done._replace(train_seconds=0, predict_seconds=0, compile_seconds=0)


def kept(job, out):
    """The bytes of a training: its last state, and its log."""
    folder = runs.folder_of(job, out)
    arrays = (folder / "checkpoint.eqx").read_bytes().split(b"\n", 1)[1]
    return arrays, (folder / "log.jsonl").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A row that was trained without a break, and its folder."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        config = small(CONFIGS["mnist_ode-paper_a"], epochs=2)
        patch.setitem(registry.EXPERIMENTS, "mnist_ode", {"paper_a": config})
        (done,) = worked([job_of()], out)
    return done, out


def test_the_queue_has_each_row_once_and_the_first_seeds_first(monkeypatch):
    monkeypatch.undo()  # the presets as they are
    jobs = papers.missing()
    assert len(set(jobs)) == len(jobs)
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    for experiment, preset, local in (
        ("mnist_ode", "paper_a", {"local_time", "local_time_published"}),
        ("mnist_ode", "paper_b", {"local_time", "local_time_published", "local_step_published"}),
        ("mnist_sde", "paper_a", {"local_time"}),
    ):
        asked = {"none", "error", "stiffness", "steps"} | local
        for seed in range(3):
            rows = [j for j in (*papers.PRINTED, *jobs) if j[:2] == (experiment, preset)]
            rows = [job for job in rows if job.seed == seed]
            assert {job.regularizer for job in rows} == asked and len(rows) == len(asked)
            assert rows[0].regularizer == "none"
    for job in jobs:
        assert job.epochs == CONFIGS[f"{job.experiment}-{job.preset}"].epochs


def test_a_row_cut_off_by_the_clock_is_that_of_a_training_at_once(whole, tmp_path):
    job, (done, place), visits, said = job_of(), whole, 0, []
    rows = []
    while not rows:
        rows = worked([job], tmp_path, seconds=7, say=said.append)
        visits += 1
        assert visits < 10
    assert visits > 2  # twice cut off, and once measured
    assert sum(f"of {UPDATES}" in line for line in said) >= 1
    assert found(rows[0]) == found(done)
    assert kept(job, tmp_path) == kept(job, place)


def test_a_visit_ends_between_two_updates_with_a_checkpoint(tmp_path):
    assert worked([job_of(), job_of("none")], tmp_path, seconds=6) == []
    first, second = standings([job_of(), job_of("none")], tmp_path)
    assert first.state == "under way" and 0 < first.update < UPDATES
    assert first.num_updates == UPDATES and first.seconds > 0 and not first.guessed
    # Nothing is begun after the time is over; its pace is guessed by the other's.
    assert second.state == "missing" and second.guessed and second.num_updates == UPDATES
    assert not runs.folder_of(second.job, tmp_path).exists()
    assert row.read_rows(tmp_path) == []


def test_a_row_that_is_done_is_not_trained_again(whole, tmp_path, monkeypatch):
    done, place = whole
    row.append_row(tmp_path, done)
    trained = []

    def train(self, seed, folder, **options):
        trained.append(folder.name)
        raise Trained

    monkeypatch.setattr(Trainer, "train", train)
    assert worked([done.job], tmp_path) == []
    with pytest.raises(Trained):
        worked([done.job, job_of("none")], tmp_path)
    assert trained == [job_of("none").name]


def test_finished_rows_are_appended_to_a_csv(whole, tmp_path):
    done, _ = whole
    row.append_row(tmp_path, done)
    worked([done.job, job_of("none")], tmp_path)
    with (tmp_path / queue.FILE_NAME).open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["regularizer"], first["coefficient"]) == ("error", "100 to 10")
    assert float(first["evals"]) == done.evals and first["num_updates"] == str(UPDATES)
    assert (second["regularizer"], second["coefficient"]) == ("none", "-")
    assert "jax " in second["versions"]


def test_a_trained_model_is_measured_later_if_there_is_no_time(whole, tmp_path, monkeypatch):
    done, _ = whole
    monkeypatch.setattr(Visit, "has_time_to_measure", lambda self, evaluations: False)
    said = []
    jobs = [done.job, job_of("none")]
    assert worked(jobs, tmp_path, say=said.append) == []
    # The time is not wasted: the next row is trained.
    assert [line.split(": trained")[0] for line in said if ": trained;" in line] == [
        job.name for job in jobs
    ]
    assert [each.update for each in standings(jobs, tmp_path)] == [UPDATES, UPDATES]
    # The next visit has trained nothing: it measures in any case.
    (later,) = worked([done.job], tmp_path)
    assert found(later) == found(done)


FAILURES = [
    NonFiniteLossError("Update 2 gave loss nan."),
    eqx.EquinoxRuntimeError("a solve\nEquinoxRuntimeError: no"),
]


@pytest.mark.parametrize("what", FAILURES, ids=["loss", "solve"])
def test_a_row_that_fails_is_noted_and_passed_over(what, tmp_path, monkeypatch):
    bad, good, asked = job_of(), job_of("none"), []

    def train(self, seed, folder, **options):
        asked.append(folder.name)
        folder.mkdir(parents=True)
        raise what

    monkeypatch.setattr(Trainer, "train", train)
    worked([bad, good], tmp_path)
    assert asked == [bad.name, good.name]
    worked([bad, good], tmp_path)
    assert len(asked) == 2
    assert [each.state for each in standings([bad, good], tmp_path)] == ["failed", "failed"]


def truncated(data):
    return data[:-40]


def changed(data):
    return data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]  # within a number


def without_a_header(data):
    return data[10:]


@pytest.mark.parametrize("damage", [truncated, changed, without_a_header])
def test_a_damaged_checkpoint_is_refused_by_name(damage, tmp_path, monkeypatch, capsys):
    worked([job_of()], tmp_path, seconds=6)
    path = runs.folder_of(job_of(), tmp_path) / "checkpoint.eqx"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match="is no whole checkpoint"):
        worked([job_of()], tmp_path)
    monkeypatch.setattr(cli, "missing", lambda: [job_of()])
    capsys.readouterr()
    assert main(["papers", "--out", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and str(path) in err.splitlines()[-1]


def test_a_visit_keeps_a_tenth_and_begins_nothing_that_would_not_start():
    now = 0.0
    visit = Visit(100.0, lambda: now)
    assert visit.has_time_to_begin()
    visit.begin_job()
    now = 20.0
    assert not visit.is_over()  # after what comes before the first call
    now = 30.0
    assert not visit.is_over()  # after the first call
    assert visit.starting == 30.0
    now = 40.0
    assert not visit.is_over() and visit.longest_pause == 10.0
    now = 59.0
    assert visit.has_time_to_begin() and visit.has_time_to_measure(1.0)
    now = 61.0
    assert not visit.has_time_to_begin() and not visit.has_time_to_measure(1.0)
    now = 89.0
    assert not visit.is_over()
    now = 90.0
    assert visit.is_over()
    now = 0.0
    assert not Visit(1e4, lambda: now).is_over()
    long = Visit(1e4, lambda: now)
    now = 1e4 - 61.0
    assert not long.is_over()
    now = 1e4 - 60.0
    assert long.is_over()


def test_the_table_says_what_is_done_and_what_is_left(tmp_path):
    done = a_row()._replace(job=job_of("none"), num_updates=10, train_seconds=600.0)
    row.append_row(tmp_path, done)
    jobs = [job_of("none"), job_of("error"), job_of(experiment="mnist_sde")]
    lines = standings_table(standings(jobs, tmp_path)).splitlines()
    assert "done" in lines[1] and "min" not in lines[1]
    assert lines[2].endswith("~10.0 min") and "missing" in lines[2]
    assert lines[3].endswith("?")
    assert lines[4].startswith("1 of 3 rows are done, 0 failed; about 0.17 h")
    assert "1 rows" in lines[4]


def test_the_command_trains_for_a_while_and_prints_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "missing", lambda: [job_of()])
    assert main(["papers", "--minutes", "5", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "1 of 1 rows are done" in out and "mnist_ode (paper_a), 2 epochs" in out
    (done,) = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert done["regularizer"] == "error"


def test_the_list_needs_no_data_and_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    assert main(["papers", "--list", "--out", str(tmp_path / "x")]) == 0
    out = capsys.readouterr().out
    assert f"0 of {len(papers.missing())} rows are done" in out
    assert not (tmp_path / "x").exists()


def test_without_data_the_command_is_one_sentence_and_status_2(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    line = ["papers", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path)]
    assert main(line) == 2
    out, err = capsys.readouterr()
    assert out == "" and "does not exist" in err and "MNIST" in err and len(err.splitlines()) == 1


@pytest.mark.slow
def test_an_sde_cut_off_is_that_of_a_training_at_once(tmp_path):
    job = job_of("stiffness", experiment="mnist_sde")
    (at_once,) = worked([job], tmp_path / "at_once")
    rows = []
    for _ in range(9):
        rows = rows or worked([job], tmp_path / "cut", seconds=7)
    assert found(rows[0]) == found(at_once)
    assert kept(job, tmp_path / "cut") == kept(job, tmp_path / "at_once")
