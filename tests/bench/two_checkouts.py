"""The engine of another checkout beside this one, in turns in one process.

`python tests/bench/two_checkouts.py PATH [CASE ...]`, for example with a `git worktree` of an
older commit. Prints, for each case, seconds here by seconds there: forward, gradient, and trace +
compile; and by how much values and gradients differ, relative to the largest entry.
"""

import importlib
import pathlib
import statistics
import sys
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np

# Where they are called: a program that calls Python back, as an older one may, is run so anyway.
jax.config.update("jax_cpu_enable_async_dispatch", False)

_register, _names = jax.ffi.register_ffi_target, set()


def _register_once(name, *given, **options):
    """XLA refuses a second handler of one name: that of the first checkout serves both."""
    if name not in _names:
        _names.add(name)
        _register(name, *given, **options)


jax.ffi.register_ffi_target = _register_once
HERE = pathlib.Path(__file__).resolve().parent
OURS = ("ndekit", "cases", "variants", "targets", "measurement")


def load(root):
    """The package and the benchmarks of one checkout, under names that the next one may take."""
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]
    sys.path[:0] = [str(root), str(root / "tests" / "bench")]
    names = ("ndekit", "cases", "variants", "targets")
    found = SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    del sys.path[:2]
    assert pathlib.Path(found.ndekit.__file__).is_relative_to(root), found.ndekit.__file__
    return found


def works_of(checkout, name):
    """The arguments of a case, and new functions of it by ndekit."""
    case = checkout.cases.CASES[name](name)
    variant = checkout.variants.EVERYWHERE["ndekit"]
    return case, lambda: checkout.variants.works(case, variant)


def row_of(there, here, name, compile_rounds=3):
    from timing import compile_in_turns

    sides = {"there": works_of(there, name), "here": works_of(here, name)}
    arguments, makes = sides["here"][0].arguments, {s: make for s, (_, make) in sides.items()}
    with jax.enable_x64(here.targets.in_float64(name)):
        run = [ratio_of_seconds(sides, work) for work in ("forward", "gradient")]
        gradients = {side: partial(_gradient, make) for side, make in makes.items()}
        done = compile_in_turns(gradients, arguments, compile_rounds)
        apart = largest_difference(sides)
    least = {side: min(c.seconds for c in each) for side, each in done.items()}
    return [name, *run, least["here"] / least["there"], apart]


def largest_difference(sides):
    found = [
        [
            np.asarray(leaf, float)
            for work in ("forward", "gradient")
            for leaf in jax.tree.leaves(jax.jit(make()[work])(*case.arguments))
        ]
        for case, make in sides.values()
    ]
    pairs = zip(*found, strict=True)
    return max(np.max(np.abs(a - b)) / max(np.max(np.abs(a)), 1e-300) for a, b in pairs)


def ratio_of_seconds(sides, work):
    from timing import run_in_turns

    calls = {
        side: partial(jax.jit(make()[work]), *case.arguments)
        for side, (case, make) in sides.items()
    }
    samples = run_in_turns(calls, sides["here"][0].rounds)
    return statistics.median(samples["here"]) / statistics.median(samples["there"])


def _gradient(make):
    return make()["gradient"]


def main(path, *names):
    there, here = load(pathlib.Path(path).resolve()), load(HERE.parent.parent)
    sys.path.insert(0, str(HERE))
    print(f"{'seconds here / there':34s} forward  gradient  trace + compile    apart", flush=True)
    for name in names or here.cases.CASES:
        row = row_of(there, here, name)
        print(
            f"{row[0]:34s} {row[1]:7.2f}  {row[2]:8.2f}  {row[3]:15.2f}  {row[4]:7.1e}", flush=True
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
