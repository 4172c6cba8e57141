"""Ways to do the same work, timed in turns: what a race is, its measurement and its verdicts."""

import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from timing import Compilation, Samples, compile_from_nothing, run_in_turns
from verdicts import Verdict

COMPILE_ROUNDS = 3
# A solve in lanes may keep all its states where they take no more, see decision 023.
KEPT = 64 * 2**20


class Way(NamedTuple):
    """`make()` is a new function of arrays, so that whoever compiles it starts from nothing."""

    make: Callable[[], Callable]
    arguments: tuple


class Asked(NamedTuple):
    """Seconds of the way `above` over those of the way `below`, or over so many seconds."""

    what: str
    above: str
    below: str | float
    target: float | None = None
    at_least: bool = False


class Race(NamedTuple):
    """
    Attributes:
        asked: ratios of run times.
        compiled: ratios of the times of trace and compile; of these ways alone they are taken.
        memory: ways whose temporary memory is told, in units of so many bytes, and the most.
        agree: checks that the ways do the same work, before they are timed.
    """

    ways: dict[str, Way]
    asked: tuple[Asked, ...]
    compiled: tuple[Asked, ...] = ()
    memory: dict[str, tuple[int, float | None]] = {}
    rounds: int = 15
    agree: Callable[[], None] = lambda: None


class Raced(NamedTuple):
    name: str
    race: Race
    run: Samples
    compilation: dict[str, list[Compilation]]


def run_race(name: str, race: Race) -> Raced:
    """Compile times first: they empty the caches that the run times fill."""
    race.agree()
    asked = [way for a in race.compiled for way in (a.above, a.below)]
    compilation: dict[str, list[Compilation]] = {way: [] for way in [*asked, *race.memory]}
    for turn in range(COMPILE_ROUNDS):
        for way in compilation:
            if way in asked or turn == 0:
                make, arguments = race.ways[way]
                compilation[way].append(compile_from_nothing(make(), arguments))
    calls = {way: _call(jax.jit(make()), given) for way, (make, given) in race.ways.items()}
    run = run_in_turns(calls, race.rounds)
    jax.clear_caches()
    return Raced(name, race, run, compilation)


def _call(function: Callable, arguments: tuple) -> Callable:
    return lambda: function(*arguments)


def verdicts_of(raced: Raced) -> Iterator[Verdict]:
    for asked in raced.race.asked:
        above = raced.run[asked.above]
        if isinstance(asked.below, str):
            below = raced.run[asked.below]
        else:
            below = [asked.below] * len(above)
        yield _verdict(raced.name, asked, above, below)
    for asked in raced.race.compiled:
        times = [_seconds(raced.compilation[way]) for way in (asked.above, asked.below)]
        yield _verdict(raced.name, asked, *times)
    for way, (unit, most) in raced.race.memory.items():
        used = raced.compilation[way][0].temp_bytes
        what = f"memory of {way} / {'64 MiB' if unit == KEPT else 'its matrices'}"
        ratio = used / unit
        yield Verdict(raced.name, what, used, unit, "B", ratio, ratio, most, at_least=False)


def _verdict(name: str, asked: Asked, above: list, below: list) -> Verdict:
    """By the middle of the ratios within a round, so that drift cancels."""
    middle = statistics.median(a / b for a, b in zip(above, below, strict=True))
    return Verdict(
        name, asked.what, statistics.median(above), statistics.median(below), "s",
        middle, min(above) / min(below), asked.target, asked.at_least,
    )  # fmt: skip


def _seconds(done: list[Compilation]) -> list[float]:
    return [stages.seconds for stages in done]


def as_seconds(raced: Raced) -> dict[str, Any]:
    """The samples, for a file."""
    compiled = {way: [s._asdict() for s in done] for way, done in raced.compilation.items()}
    return {"seconds": raced.run, "compilation": compiled}
