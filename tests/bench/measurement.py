"""Everything that is measured about one case."""

from typing import Any, NamedTuple

import jax
import numpy as np
from cases import CASES, Case
from targets import has_floor, in_float64
from timing import Compilation, Samples, compile_in_turns, run_in_turns
from variants import DIFFRAX, FLOOR, NDEKIT, Variant, floor_works, one_solve, variants_of, works

COMPILED = (DIFFRAX, NDEKIT)
COMPILE_ROUNDS = 3
WORKS = ("forward", "gradient")


class Measurement(NamedTuple):
    """Keys are (variant, work)."""

    case: Case
    num_steps: dict[str, int]
    num_evals: int | None  # of the vector field, where that is known
    run: Samples
    compilation: dict[Any, list[Compilation]]

    def temp_bytes(self, variant: str) -> int:
        """Temporary memory of the gradient, from the compiled program."""
        return self.compilation[variant, "gradient"][0].temp_bytes


def measure(name: str) -> Measurement:
    """Everything about one case, in its precision; what was traced in another is forgotten."""
    jax.config.update("jax_enable_x64", in_float64(name))
    try:
        return _measure(name)
    finally:
        jax.config.update("jax_enable_x64", False)
        jax.clear_caches()


def _measure(name: str) -> Measurement:
    """Compile times first: they empty the caches that the run times fill."""
    case = CASES[name](name)
    arguments = case.arguments
    variants = variants_of(name)
    make = {
        (variant, work): lambda variant=variant, work=work: works(case, variants[variant])[work]
        for work in WORKS
        for variant in COMPILED
    }
    compilation = compile_in_turns(make, arguments, COMPILE_ROUNDS)
    counts = {variant: counts_of(case, variants[variant]) for variant in COMPILED}
    num_steps = {variant: count["num_steps"] for variant, count in counts.items()}
    num_evals = counts[NDEKIT].get("num_evals")
    calls = calls_of(case, variants, num_evals)
    return Measurement(case, num_steps, num_evals, run_in_turns(calls, case.rounds), compilation)


def calls_of(case: Case, variants: dict[str, Variant], num_evals: int | None) -> dict[Any, Any]:
    """A call of each (variant, work), the floor's among them where there is one."""
    functions = {variant: works(case, variants[variant]) for variant in variants}
    if has_floor(case.name):
        functions[FLOOR] = floor_works(case, num_evals)
    return {
        (variant, work): _call(jax.jit(function), case.arguments)
        for variant, both in functions.items()
        for work, function in both.items()
    }


def _call(function: Any, arguments: tuple) -> Any:
    return lambda: function(*arguments)


def counts_of(case: Case, variant: Variant) -> dict[str, int]:
    """Of the lane that has most: the others wait for it."""
    solve = one_solve(case, variant)
    stats = jax.jit(case.over_lanes(lambda *given: solve(*given).stats))
    return jax.tree.map(lambda count: int(np.max(count)), stats(*case.arguments))
