"""Run times of cases on the device that JAX finds, for GPUs: those of compilation are not taken.

    python tests/bench/on_device.py                                     # the default list
    python tests/bench/on_device.py "lorenz, 4096 lanes" "sde, Heun adaptive"
    python tests/bench/on_device.py --rounds 1                          # a look

The variants of a case are compiled side by side, then called in turns, as `make bench` does. Prints
a row when a case is done. A *known scan* is the solve written by hand as a `lax.scan` over its
steps, where their number is known before it runs; a *floor* evaluates the field as often.
"""

import argparse
import datetime
import statistics
from concurrent.futures import ThreadPoolExecutor

import jax
from cases import CASES
from measurement import WORKS, calls_of, counts_of
from tables import PACKAGES, quantity
from targets import in_float64
from timing import run_in_turns
from variants import DIFFRAX, EVERYWHERE, FLOOR, NDEKIT, floor_works

ROUNDS = 10
KNOWN_SCAN = "known scan"
BESIDE = (DIFFRAX, FLOOR, KNOWN_SCAN)
# Of these docs/benchmarks.md has no figures of a GPU, or old ones: they come first, as a visit may
# be short.
FIRST = (
    "sde, Euler, 50 steps",
    "sde, Euler, 1000 steps",
    "neural cde, Heun on the grid",  # timed before its searches were unrolled
    "robertson, Kvaerno5",
    "neural cde, Tsit5 adaptive",
)
# Thousands of steps of one lane after the other.
LAST = ("van der pol 1000, Kvaerno5",)
# One explicit solve alone says little of a GPU.
DEFAULT = [
    *FIRST,
    *(name for name in CASES if "single" not in name and name not in FIRST + LAST),
    *LAST,
]


def all_calls(case, num_evals):
    """A call of each (variant, work). A solve by hand is the known scan, and no floor."""
    calls = calls_of(case, EVERYWHERE, num_evals)
    if case.by_hand is None:
        return calls
    calls = {key: call for key, call in calls.items() if key[0] != FLOOR}
    for work, function in floor_works(case, num_evals).items():
        known = jax.jit(function)
        calls[KNOWN_SCAN, work] = lambda known=known: known(*case.arguments)
    return calls


def seconds_of(name, rounds):
    """Samples by (variant, work), and the number of steps."""
    jax.config.update("jax_enable_x64", in_float64(name))
    case = CASES[name](name)
    counts = counts_of(case, EVERYWHERE[NDEKIT])
    calls = all_calls(case, counts.get("num_evals"))
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda call: jax.block_until_ready(call()), calls.values()))
    return run_in_turns(calls, rounds), counts["num_steps"]


def row_of(name, rounds):
    samples, num_steps = seconds_of(name, rounds)
    cells = [name, str(num_steps)]
    for work in WORKS:
        ours = samples[NDEKIT, work]
        cells.append(quantity(statistics.median(ours), "s"))
        for variant in BESIDE:
            theirs = samples.get((variant, work), [])
            ratios = [other / own for other, own in zip(theirs, ours, strict=False)]
            cells.append(f"{statistics.median(ratios):.2f}" if ratios else "")
    return f"| {' | '.join(cells)} |"


def main(names, rounds):
    device = jax.devices()[0]
    versions = ", ".join(f"{name} {version_of(name)}" for name in PACKAGES)
    print(f"{datetime.date.today()}; {device.platform} ({device.device_kind}); {versions}\n")
    head = ["case", "steps"]
    for work in WORKS:
        head += [work, *(f"{variant} / ndekit, {work}" for variant in BESIDE)]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for name in names:
        print(row_of(name, rounds), flush=True)
        jax.clear_caches()


def version_of(name):
    try:
        return __import__(name).__version__
    except (ImportError, AttributeError):
        return "from its sources"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="CASE", help="see tests/bench/cases.py")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    main(options.names or DEFAULT, options.rounds)
