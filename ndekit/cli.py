"""The command `ndekit`: list, run, compare and time experiments, search for coefficients."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx

from .data import DataError
from .experiments.harness.arguments import (
    USER_ERROR,
    Parser,
    count,
    number,
    number_from_zero,
    numbers,
)
from .experiments.harness.compare import draw_pictures, metric_of_jobs, table
from .experiments.harness.errors import RowsError, SettingError, UnknownNameError
from .experiments.harness.measured import measure, settings, with_sizes
from .experiments.harness.provenance import versions
from .experiments.harness.queue import Visit, reason_of, work
from .experiments.harness.registry import (
    ABLATION,
    EXPERIMENTS,
    MEASUREMENTS,
    REGULARIZERS,
    Job,
    find_measurement,
    make_job,
)
from .experiments.harness.row import Row
from .experiments.harness.runs import run_jobs
from .experiments.harness.search import search_table
from .experiments.harness.turns import seconds_table, train_in_turns, write_seconds
from .experiments.papers import missing, report
from .train import CheckpointError, NonFiniteLossError

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
DEFAULT_REGULARIZERS = "none,steps,error,stiffness"
# What a user can mend: said in one sentence, without a traceback.
MENDABLE = (
    DataError,
    RowsError,
    UnknownNameError,
    SettingError,
    NonFiniteLossError,
    ImportError,
)
EXAMPLES = """\
examples:
  ndekit list
  ndekit run digits --regularizer steps
  ndekit compare digits --regularizers none,steps,error --seeds 3 --out runs/demo
  ndekit search digits --regularizer steps --coefficients 0.01,0.03,0.1
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    Args:
        arguments: the words after `ndekit`; by default those of the process.

    Returns:
        0, 2 if the user can mend it (the sentence on stderr says how), 130 if interrupted.

    Example:
        ```python
        from ndekit.cli import main

        main(["list"])
        ```
    """
    try:
        options = _parser().parse_args(arguments)
        return options.command(options)
    except KeyboardInterrupt:
        return _fail("Interrupted. Run the same command again to go on.", INTERRUPTED)
    except CheckpointError as error:
        advice = "On the command line: `--fresh` to do it again, or another `--out`."
        return _fail(f"{error} {advice}", USER_ERROR)
    except MENDABLE as error:
        return _fail(str(error), USER_ERROR)
    except OSError as error:
        if error.strerror is None or error.filename is None:
            return _fail(str(error), USER_ERROR)
        return _fail(f"`{error.filename}`: {error.strerror}.", USER_ERROR)
    except eqx.EquinoxRuntimeError as error:
        return _fail(f"A solve failed. {reason_of(error)}", USER_ERROR)


def _fail(sentence: str, status: int) -> int:
    print(f"ndekit: {sentence}", file=sys.stderr)
    return status


def _list(options: argparse.Namespace) -> int:
    for experiment, presets in EXPERIMENTS.items():
        print(experiment)
        for name, config in presets.items():
            print(f"  --preset {name:<12} {config.about}")
    print("\nmeasurements")
    for name, measurement in MEASUREMENTS.items():
        print(f"  {name:<22}{measurement.about}\n    --part {', '.join(measurement.parts)}")
        print(f"    --set {settings(measurement)}")
    print("\nregularizers")
    for name, regularizer in REGULARIZERS.items():
        print(f"  {name:<22}{regularizer.about}")
    print(f"\nfor ablations\n  {', '.join(ABLATION)}")
    return 0


def _run(options: argparse.Namespace) -> int:
    return _do([_job(options, options.regularizer, options.seed, options.coefficient)], options)


def _compare(options: argparse.Namespace) -> int:
    presets: list[str | None] = [None]
    if options.preset is not None:
        presets = list(_words(options.preset))
    jobs = [
        _job(options, name, seed, preset=preset)
        for preset in presets
        for name in _names(options)
        for seed in range(options.seeds)
    ]
    metric_of_jobs(jobs)  # before hours of training
    return _do(jobs, options)


def _search(options: argparse.Namespace) -> int:
    without = [_job(options, "none", seed) for seed in range(options.seeds)]
    strengths, seeds = dict.fromkeys(options.coefficients), range(options.seeds)
    jobs = [_job(options, options.regularizer, seed, c) for c in strengths for seed in seeds]
    baseline = _run_all(without, options, needs_validation=True)
    rows = _run_all(jobs, options, needs_validation=True)
    print(search_table(rows, baseline, options.allow))
    return 0


def _time(options: argparse.Namespace) -> int:
    jobs, out = [_job(options, name, options.seed) for name in _names(options)], _out(options)
    try:
        rows = train_in_turns(jobs, options.updates, data_folder=options.data, say=_say)
    except KeyboardInterrupt:
        return _fail("Interrupted. Nothing is kept of what was timed.", INTERRUPTED)
    print(seconds_table(rows))
    print(f"rows: {write_seconds(out, rows)}")
    return 0


def _measure(options: argparse.Namespace) -> int:
    measurement, parts = find_measurement(options.experiment, options.part or [])
    sizes = with_sizes(measurement, options.set or [])
    print(measure(measurement, parts, _out(options), sizes=sizes, fresh=options.fresh, say=_say))
    return 0


def _papers(options: argparse.Namespace) -> int:
    visit, jobs, out = Visit(60 * options.minutes), missing(), Path(options.out)
    try:
        if not options.list:
            work(
                jobs, out, visit,
                data_folder=options.data, progress=sys.stderr.isatty(), say=_say,
            )  # fmt: skip
        print(report(jobs, out))
    except CheckpointError as error:
        return _fail(f"{error} On the command line: another `--out`.", USER_ERROR)
    return 0


def _names(options: argparse.Namespace) -> list[str]:
    return _words(options.regularizers)


def _words(text: str) -> list[str]:
    """What stands between commas, each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",")))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _job(
    options: argparse.Namespace,
    regularizer: str,
    seed: int,
    coefficient: float | None = None,
    preset: str | None = None,
) -> Job:
    return make_job(
        options.experiment, regularizer, seed, preset=preset or options.preset,
        coefficient=coefficient, epochs=options.epochs,
    )  # fmt: skip


def _run_all(jobs: list[Job], options: argparse.Namespace, **more: Any) -> list[Row]:
    return run_jobs(
        jobs, _out(options), data_folder=options.data, progress=sys.stderr.isatty(),
        fresh=options.fresh, say=_say, **more,
    )  # fmt: skip


def _out(options: argparse.Namespace) -> Path:
    return Path(options.out or f"runs/{options.experiment}")


def _do(jobs: list[Job], options: argparse.Namespace) -> int:
    rows, out = _run_all(jobs, options), _out(options)
    print(table(rows))
    paths = draw_pictures(rows, out)
    print(f"rows: {out / 'rows.jsonl'}\npictures: {', '.join(str(path) for path in paths)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="ndekit", description="Neural ODEs that are trained to be cheap to solve.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    ours, *others = (f"{name} {version}" for name, version in versions().items())
    parser.add_argument("--version", action="version", version=f"{ours} ({', '.join(others)})")
    commands = parser.add_subparsers(required=True, metavar="command", parser_class=Parser)
    listing = commands.add_parser("list", help="experiments, their presets, and regularizers")
    listing.set_defaults(command=_list)
    run = commands.add_parser("run", help="train one model, append its row, draw pictures")
    run.set_defaults(command=_run)
    run.add_argument("experiment", help="see `ndekit list`")
    run.add_argument("--regularizer", default="none", help="see `ndekit list` (default: none)")
    run.add_argument("--coefficient", type=number, help="constant; default: the preset's own")
    run.add_argument("--seed", type=count(0), default=0, help="default: 0")
    compare = commands.add_parser("compare", help="train a model for each regularizer and seed")
    compare.set_defaults(command=_compare)
    compare.add_argument("experiment", help="see `ndekit list`")
    compare.add_argument("--seeds", type=count(1), default=3, help="how many (default: 3)")
    timing = commands.add_parser("time", help="seconds of the regularizers' updates, in turns")
    timing.set_defaults(command=_time)
    timing.add_argument("experiment", help="see `ndekit list`")
    timing.add_argument("--updates", type=count(1), default=100, help="at most (default: 100)")
    timing.add_argument("--seed", type=count(0), default=0, help="default: 0")
    search, measuring = _add_search(commands), _add_measure(commands)
    _add_papers(commands)
    names: Any = dict(default=DEFAULT_REGULARIZERS, help=f"default: {DEFAULT_REGULARIZERS}")
    for command in (compare, timing):
        command.add_argument("--regularizers", **names)
    for command in (run, compare, search, timing):
        several = "; several with commas" if command is compare else ""
        command.add_argument("--preset", help=f"see `ndekit list`; default: the first{several}")
        command.add_argument("--epochs", type=count(1), help="default: the preset's own")
        command.add_argument("--data", metavar="FOLDER", help="default: $NDEKIT_DATA/mnist")
        command.add_argument("--out", metavar="FOLDER", help="default: runs/EXPERIMENT")
    for command in (run, compare, search, measuring):
        command.add_argument("--fresh", action="store_true", help="do again what is already there")
    return parser


def _add_search(commands: Any) -> argparse.ArgumentParser:
    search = commands.add_parser("search", help="choose a coefficient on validation data")
    search.set_defaults(command=_search)
    search.add_argument("experiment", help="see `ndekit list`")
    search.add_argument("--regularizer", required=True, help="see `ndekit list`")
    search.add_argument(
        "--coefficients", required=True, type=numbers, help="with commas: 0.01,0.03,0.1"
    )
    search.add_argument("--seeds", type=count(1), default=1, help="how many (default: 1)")
    search.add_argument(
        "--allow", type=number_from_zero, default=0.003,
        help="by how much the metric may be worse than without (default: 0.003, a fraction)",
    )  # fmt: skip
    return search


def _add_measure(commands: Any) -> argparse.ArgumentParser:
    measuring = commands.add_parser("measure", help="make the tables of an experiment")
    measuring.set_defaults(command=_measure)
    measuring.add_argument("experiment", help="see `ndekit list`, under measurements")
    measuring.add_argument("--part", action="append", help="a table, and another (default: all)")
    measuring.add_argument("--set", action="append", metavar="SIZE=N", help="see `ndekit list`")
    measuring.add_argument("--out", metavar="FOLDER", help="default: runs/EXPERIMENT")
    return measuring


def _add_papers(commands: Any) -> None:
    papers = commands.add_parser("papers", help="train what the published tables lack, for a while")
    papers.set_defaults(command=_papers)
    papers.add_argument("--minutes", type=number, default=10.0, help="in all (default: 10)")
    papers.add_argument("--list", action="store_true", help="only say what is done and missing")
    papers.add_argument("--data", metavar="FOLDER", help="default: $NDEKIT_DATA/mnist")
    papers.add_argument("--out", metavar="FOLDER", default=".papers", help="default: .papers")


if __name__ == "__main__":
    sys.exit(main())
