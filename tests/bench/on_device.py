"""Run times of cases on the device that JAX finds, for GPUs: those of compilation are not taken.

    python tests/bench/on_device.py                                     # the cases in lanes
    python tests/bench/on_device.py "lorenz, 4096 lanes" "sde, Heun adaptive"

The variants of a case are compiled side by side, then called in turns, as `make bench` does. Prints
a row when a case is done.
"""

import datetime
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
from cases import CASES
from measurement import WORKS, calls_of, counts_of
from tables import PACKAGES, quantity
from targets import in_float64
from timing import run_in_turns
from variants import DIFFRAX, EVERYWHERE, FLOOR, NDEKIT

ROUNDS = 10
IN_LANES = [name for name in CASES if "single" not in name and not in_float64(name)]


def seconds_of(name):
    """Samples by (variant, work), and the number of steps."""
    jax.config.update("jax_enable_x64", in_float64(name))
    case = CASES[name](name)
    counts = counts_of(case, EVERYWHERE[NDEKIT])
    calls = calls_of(case, EVERYWHERE, counts.get("num_evals"))
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda call: jax.block_until_ready(call()), calls.values()))
    return run_in_turns(calls, ROUNDS), counts["num_steps"]


def row_of(name):
    samples, num_steps = seconds_of(name)
    cells = [name, str(num_steps)]
    for work in WORKS:
        ours = samples[NDEKIT, work]
        cells.append(quantity(statistics.median(ours), "s"))
        for variant in (DIFFRAX, FLOOR):
            theirs = samples.get((variant, work), [])
            ratios = [other / own for other, own in zip(theirs, ours, strict=False)]
            cells.append(f"{statistics.median(ratios):.2f}" if ratios else "")
    return f"| {' | '.join(cells)} |"


def main(names):
    device = jax.devices()[0]
    versions = ", ".join(f"{name} {version_of(name)}" for name in PACKAGES)
    print(f"{datetime.date.today()}; {device.platform} ({device.device_kind}); {versions}\n")
    head = ["case", "steps"]
    for work in WORKS:
        head += [work, f"diffrax / ndekit, {work}", f"floor / ndekit, {work}"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for name in names:
        print(row_of(name), flush=True)
        jax.clear_caches()


def version_of(name):
    try:
        return __import__(name).__version__
    except (ImportError, AttributeError):
        return "from its sources"


if __name__ == "__main__":
    main(sys.argv[1:] or IN_LANES)
