"""The ratios that count, each with its target."""

import math
import statistics
from collections.abc import Iterator
from typing import Literal, NamedTuple

from cases import MAX_STEPS
from measurement import WORKS, Measurement
from targets import COMPILE, TARGETS, has_floor
from variants import COSTS, DIFFRAX, END_ALONE, FITTED, FLOOR, NDEKIT

STATES = 2 * math.sqrt(MAX_STEPS) + 40


class Verdict(NamedTuple):
    """`of` over `by`: seconds or bytes, by the middle and by the least of the samples."""

    case: str
    what: str
    of: float
    by: float
    unit: Literal["s", "B"]
    ratio: float
    ratio_of_least: float
    target: float | None
    at_least: bool

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        met = self.ratio >= self.target if self.at_least else self.ratio <= self.target
        return "met" if met else "**missed**"

    @property
    def wanted(self) -> str:
        return "" if self.target is None else f"{'≥' if self.at_least else '≤'} {self.target:g}"


def verdicts(m: Measurement) -> list[Verdict]:
    parts = [
        speed, speed_beside_the_best, beside_the_floor, gradient_per_forward, saving, costs_on,
        compilation, memory,
    ]  # fmt: skip
    return [verdict for part in parts for verdict in part(m)]


def target_of(m: Measurement, what: str) -> float | None:
    return TARGETS[m.case.name].get(what)


def ratio(m, what, above, below, target, *, at_least) -> Verdict:
    """Of run times: the middle of the ratios within each round, so that drift cancels."""
    a, b = m.run[above], m.run[below]
    middle = statistics.median(x / y for x, y in zip(a, b, strict=True))
    return Verdict(
        m.case.name, what, statistics.median(a), statistics.median(b), "s",
        middle, min(a) / min(b), target, at_least,
    )  # fmt: skip


def speed(m: Measurement) -> Iterator[Verdict]:
    for work in WORKS:
        what, target = f"{work}: diffrax / ndekit", target_of(m, work)
        yield ratio(m, what, (DIFFRAX, work), (NDEKIT, work), target, at_least=True)


def speed_beside_the_best(m: Measurement) -> Iterator[Verdict]:
    """diffrax's fastest setting against ours with the default buffer and with the same one."""
    wanted = target_of(m, "beside_the_best")
    if wanted is None:
        return
    settings = [DIFFRAX, *(name for name in FITTED if name.startswith("diffrax"))]
    for work in reversed(WORKS):
        best = min(settings, key=lambda name: statistics.median(m.run[name, work]))
        fitted = f"ndekit, max_steps={best.partition('max_steps=')[2]}"
        target = wanted if work == "gradient" else None
        for ours in [NDEKIT, fitted] if fitted in FITTED else [NDEKIT]:
            what = f"{work}: best diffrax ({best.removeprefix('diffrax, ')}) / {ours}"
            yield ratio(m, what, (best, work), (ours, work), target, at_least=True)


def beside_the_floor(m: Measurement) -> Iterator[Verdict]:
    if has_floor(m.case.name):
        target = target_of(m, "floor")
        for work in WORKS if m.case.by_hand else ("forward",):
            above, below, what = (NDEKIT, work), (FLOOR, work), f"{work}: ndekit / floor"
            yield ratio(m, what, above, below, target, at_least=False)


def gradient_per_forward(m: Measurement) -> Iterator[Verdict]:
    for variant in (NDEKIT, DIFFRAX):
        target = target_of(m, "gradient_per_forward") if variant == NDEKIT else None
        what = f"gradient / forward of {variant}"
        yield ratio(m, what, (variant, "gradient"), (variant, "forward"), target, at_least=False)


def saving(m: Measurement) -> Iterator[Verdict]:
    target = target_of(m, "saves")
    for work in WORKS if target else ():
        what = f"{work}: {m.case.num_saves} saves / end value alone"
        yield ratio(m, what, (NDEKIT, work), (END_ALONE, work), target, at_least=False)


def costs_on(m: Measurement) -> Iterator[Verdict]:
    target = target_of(m, "costs")
    for work in WORKS if target else ():
        what = f"{work}: costs on / off"
        yield ratio(m, what, (COSTS, work), (NDEKIT, work), target, at_least=False)


def compilation(m: Measurement) -> Iterator[Verdict]:
    for works in (("forward",), ("gradient",), WORKS):
        ours, theirs = (
            [sum(times) for times in zip(*(_compiled(m, variant, w) for w in works), strict=True)]
            for variant in (NDEKIT, DIFFRAX)
        )
        middle = statistics.median(ours), statistics.median(theirs)
        yield Verdict(
            m.case.name, f"trace + compile of {' + '.join(works)}: ndekit / diffrax", *middle, "s",
            middle[0] / middle[1], min(ours) / min(theirs),
            COMPILE if works == WORKS else None, at_least=False,
        )  # fmt: skip


def _compiled(m: Measurement, variant: str, work: str) -> list[float]:
    return [stages.seconds for stages in m.compilation[variant, work]]


def memory(m: Measurement) -> Iterator[Verdict]:
    """In states of all lanes, with and without the time of every step, which is a number each."""
    ours, theirs = m.temp_bytes(NDEKIT), m.temp_bytes(DIFFRAX)
    state, but_times = m.case.state_bytes, ours - m.case.record_of_times_bytes
    saves = TARGETS[m.case.name].get("memory_per_save", 0) * (m.case.num_saves or 0)
    for what, used, target in (
        ("memory of the gradient but the times / state, ndekit", but_times, STATES + saves),
        ("memory of the gradient / state, ndekit", ours, STATES + saves),
        ("memory of the gradient / state, diffrax", theirs, None),
    ):
        states = used / state
        yield Verdict(m.case.name, what, used, state, "B", states, states, target, at_least=False)
