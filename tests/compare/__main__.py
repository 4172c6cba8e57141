"""`python -m compare`: many random configurations, a line for each, and a table at the end."""

import argparse
import collections
import contextlib
import faulthandler
import hashlib
import os
import pathlib
import pickle
import sys
import time

# As in tests/conftest.py: compilation is most of the time.
FLAGS = "--xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()
os.environ.setdefault("EQX_ON_ERROR", "raise")

import diffrax  # noqa: E402
import jax  # noqa: E402

import ndekit as nk  # noqa: E402

from .generate import configuration, title  # noqa: E402
from .judge import came_by, judged  # noqa: E402

PATIENCE = 300  # seconds for one configuration, after which the process says where it hangs


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=300, help="how many configurations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    parser.add_argument("--only", type=int, nargs="+", help="these, with the program of each")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for what diffrax gives back")
    parser.add_argument("--program", action="store_true", help="print programs and solve nothing")
    return parser.parse_args()


def main() -> int:
    chosen = arguments()
    numbers = chosen.only or range(chosen.first, chosen.first + chosen.n)
    drafts = [configuration(chosen.seed, number) for number in numbers]
    if chosen.program:
        print("\n".join(draft.program() for draft in drafts))
        return 0
    tally = [(draft, one(draft, chosen)) for draft in drafts]
    print(table(tally))
    return any(came.kind == "UNEXPLAINED" for _, came in tally)


def one(draft, chosen):
    in_full = bool(chosen.only)
    if in_full:
        print(f"{draft.program()}\n")
    start = time.perf_counter()
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    # What a failing solve prints of itself is compared, not read.
    with contextlib.redirect_stdout(sys.stderr):
        outcomes = came_by(draft, nk.diffeqsolve), by_diffrax(draft, chosen.keep)
        came = judged(draft, *outcomes)
    faulthandler.cancel_dump_traceback_later()
    jax.clear_caches()
    took = time.perf_counter() - start
    why = f" ({', '.join(came.reasons)})" if came.reasons else ""
    print(f"{draft.number:4d} {came.kind:14s}{took:5.1f} s  {title(draft)}{why}", flush=True)
    if came.kind == "refused alike":
        print(f"       {outcomes[1].said[:160]}", flush=True)
    for gap in came.gaps[: 40 if in_full else 6]:
        print(f"       {gap.where}: {gap.what[: 400 if in_full else 160]}", flush=True)
    if in_full:
        show(*outcomes)
    return came


def by_diffrax(draft, folder):
    """As it was kept, if the same program was solved before."""
    if folder is None:
        return came_by(draft, diffrax.diffeqsolve)
    name = hashlib.sha256(draft.program().encode()).hexdigest()[:20]
    path = folder / f"{name}.pickle"
    if not path.exists():
        theirs = came_by(draft, diffrax.diffeqsolve)
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(theirs))
    return pickle.loads(path.read_bytes())


def show(mine, theirs):
    for side, out in (("ndekit", mine), ("diffrax", theirs)):
        print(f"--- {side}: " + (f"{out.raised.__name__}: {out.said}" if out.raised else ""))
        for path, leaf in out.leaves.items():
            print(f"{path} {out.kinds[path]}: {str(leaf)[:300]}")


def table(tally):
    kinds = collections.Counter(came.kind for _, came in tally)
    reasons = collections.Counter(name for _, came in tally for name in came.reasons)
    wide = max(map(len, [*kinds, *reasons, "configurations"]))
    rows = [("configurations", len(tally)), *kinds.most_common(), *reasons.most_common()]
    return "\n".join(f"| {name:{wide}s} | {count:4d} |" for name, count in rows)


if __name__ == "__main__":
    sys.exit(main())
