"""Engine and models beside diffrax: rows for pytest-benchmark. No time is asserted anywhere."""

import collections

import pytest
from cases import CASES
from measurement import COMPILED, WORKS
from series_races import RACES
from targets import has_floor
from variants import FLOOR, variants_of

pytestmark = pytest.mark.bench

_ticks = collections.deque()


def replayed_clock():
    """Shows times already taken: pytest-benchmark repeats one function, ours take turns."""
    return _ticks.popleft()


def report(benchmark, group, samples, **about):
    _ticks.extend(tick for seconds in samples for tick in (0.0, seconds))
    benchmark.group = group
    benchmark.extra_info.update(about)
    benchmark.pedantic(lambda: None, rounds=len(samples))


RUNS = [
    (name, variant, work)
    for name in CASES
    for variant in [*variants_of(name), *([FLOOR] if has_floor(name) else [])]
    for work in WORKS
]
COMPILATIONS = [(name, variant, work) for name in CASES for variant in COMPILED for work in WORKS]


@pytest.mark.benchmark(timer=replayed_clock)
@pytest.mark.parametrize(("case_name", "variant", "work"), RUNS)
def test_run(benchmark, measured, case_name, variant, work):
    report(benchmark, f"{case_name}: {work}", measured.run[variant, work])


@pytest.mark.benchmark(timer=replayed_clock)
@pytest.mark.parametrize(("case_name", "variant", "work"), COMPILATIONS)
def test_trace_and_compile(benchmark, measured, case_name, variant, work):
    stages = measured.compilation[variant, work]
    report(
        benchmark, f"{case_name}: trace + compile of {work}", [stage.seconds for stage in stages],
        trace=[stage.trace for stage in stages],
        lower=[stage.lower for stage in stages],
        compile=[stage.compile for stage in stages],
        gradient_temp_bytes=measured.temp_bytes(variant),
    )  # fmt: skip


@pytest.mark.benchmark(timer=replayed_clock)
@pytest.mark.parametrize("case_name", RACES)
def test_race(benchmark, measured, case_name):
    """All ways of a race at once; the row of the benchmark is that of the first."""
    way, samples = next(iter(measured.run.items()))
    report(benchmark, f"{case_name}: {way}", samples)
