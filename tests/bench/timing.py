"""Times of functions that take turns, so that a drift of the machine hits all of them alike."""

import gc
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

# A sample shorter than this is repeated: below it the clock and the scheduler have a say.
SAMPLE_SECONDS = 2e-3
WARM_UP = 3

# By (variant, work).
Samples = dict[Any, list[float]]


class Compilation(NamedTuple):
    """Wall clock of the three stages, and the temporary memory of the program."""

    trace: float
    lower: float
    compile: float
    temp_bytes: int

    @property
    def seconds(self) -> float:
        return self.trace + self.lower + self.compile


def run_in_turns(calls: dict[Any, Callable], rounds: int) -> Samples:
    """Seconds of one call of each, `rounds` times; each round starts with another one."""
    repeats = {name: _repeats(call) for name, call in calls.items()}
    samples = {name: [] for name in calls}
    names = list(calls)
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                samples[name].append(_seconds(calls[name], repeats[name]))
    finally:
        gc.enable()
    return samples


def _repeats(call: Callable) -> int:
    for _ in range(WARM_UP):
        least = _seconds(call, 1)
    return max(1, math.ceil(SAMPLE_SECONDS / least))


def _seconds(call: Callable, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(call())
    return (time.perf_counter() - start) / repeats


def compile_in_turns(
    make: dict[Any, Callable], arguments: tuple, rounds: int
) -> dict[Any, list[Compilation]]:
    """Each function made anew and compiled from nothing, `rounds` times."""
    done = {name: [] for name in make}
    for _ in range(rounds):
        for name in make:
            done[name].append(compile_from_nothing(make[name](), arguments))
    return done


def compile_from_nothing(function: Callable, arguments: tuple) -> Compilation:
    jax.clear_caches()
    gc.collect()
    start = time.perf_counter()
    traced = jax.jit(function).trace(*arguments)
    after_trace = time.perf_counter()
    lowered = traced.lower()
    after_lower = time.perf_counter()
    program = lowered.compile()
    end = time.perf_counter()
    memory: Any = program.memory_analysis()
    stages = after_trace - start, after_lower - after_trace, end - after_lower
    return Compilation(*stages, memory.temp_size_in_bytes)
