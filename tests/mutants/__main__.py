"""`python -m mutants`: the tests without a fault, then each mutant with its tests, and a table."""

import argparse
import concurrent.futures
import pathlib
import sys
import tempfile
import time

from .mutant import Mutant
from .records import MUTANTS
from .trial import Trial, copied, environment, imports_itself, run, tried

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent.parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these, with what pytest says")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once")
    return parser.parse_args()


def main() -> int:
    chosen = arguments()
    mutants = [m for m in MUTANTS if chosen.only is None or m.name in chosen.only]
    unknown = {*(chosen.only or ())} - {m.name for m in mutants}
    wrong = [f"There is no mutant `{name}`; see `--list`." for name in sorted(unknown)]
    wrong += [said for m in mutants if (said := m.misfit(CHECKOUT))]
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 2
    if chosen.list:
        print("\n".join(f"{m.name:28} {m.module:34} {m.what}" for m in mutants))
        return 0
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as room:
        trials = all_tried(mutants, pathlib.Path(room), chosen.jobs, bool(chosen.only))
    if trials is None:
        return 2
    print(table(mutants, trials))
    caught = sum(trial.verdict == "caught" for trial in trials)
    print(f"\ncaught {caught} of {len(mutants)} in {time.perf_counter() - start:.0f} s")
    return int(caught < len(mutants))


def all_tried(
    mutants: list[Mutant], room: pathlib.Path, jobs: int, in_full: bool
) -> list[Trial] | None:
    """A trial for each mutant; `None` if the tests fail without any."""
    base = copied(CHECKOUT, room / "without")
    around = environment(base)
    if not imports_itself(base, around):
        print(f"Programs in {base} do not import the package from there.", file=sys.stderr)
        return None
    union = tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    trial = run(union, base, around)
    print(f"without a mutant: {trial.seconds:.0f} s", file=sys.stderr, flush=True)
    if trial.verdict != "survived":
        print(f"{trial.said}\nThe tests fail without a mutant.", file=sys.stderr)
        return None

    def one(mutant: Mutant) -> Trial:
        trial = tried(mutant, base, room)
        said = f"{trial.verdict:9}{trial.seconds:5.0f} s  {mutant.name}  {trial.by}"
        print(said, file=sys.stderr, flush=True)
        if in_full or trial.verdict == "broken":
            print(trial.said, file=sys.stderr, flush=True)
        return trial

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, mutants))


def table(mutants: list[Mutant], trials: list[Trial]) -> str:
    rows = [
        (m.name, m.module.removeprefix("ndekit."), m.what, found(trial), f"{trial.seconds:.0f}")
        for m, trial in zip(mutants, trials, strict=True)
    ]
    head = ("mutant", "module", "what", "caught by", "s")
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def found(trial: Trial) -> str:
    if trial.verdict == "caught":
        return trial.by
    return trial.verdict.upper() + (f": {trial.by}" if trial.by else "")


if __name__ == "__main__":
    sys.exit(main())
