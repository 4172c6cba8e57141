"""The ratios that count, each with its target."""

import math
import statistics
from collections.abc import Iterator
from typing import Literal, NamedTuple

from cases import LARGE, MAX_STEPS
from measurement import WORKS, Measurement
from variants import COSTS, DIFFRAX, FITTED, NDEKIT

# How much faster than diffrax's default.
FASTER = {
    ("lorenz", "lanes", "forward"): 5.0,
    ("lorenz", "lanes", "gradient"): 8.0,
    ("small_mlp", "any", "gradient"): 2.5,
}
NO_SLOWER = 1.0
FASTER_THAN_BEST = 1.5
COMPILE = 0.5
GRADIENT_PER_FORWARD = {"large_mlp": 4.0}
COSTS_ON = {"lorenz": 1.25, "small_mlp": 1.05, "large_mlp": 1.05}
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
    parts = [speed, speed_beside_the_best, compilation, gradient_per_forward, costs_on, memory]
    return [verdict for part in parts for verdict in part(m)]


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
        yield ratio(
            m, f"{work}: diffrax / ndekit", (DIFFRAX, work), (NDEKIT, work),
            faster_target(m, work), at_least=True,
        )  # fmt: skip


def faster_target(m: Measurement, work: str) -> float | None:
    family, lanes = m.case.family, "single" if m.case.lanes is None else "lanes"
    target = FASTER.get((family, lanes, work), FASTER.get((family, "any", work)))
    if m.case.num_saves is not None and work == "gradient":
        return None  # asked of the end value alone
    return NO_SLOWER if target is None and work == "forward" else target


def speed_beside_the_best(m: Measurement) -> Iterator[Verdict]:
    """diffrax's fastest setting against ours with the default buffer and with the same one."""
    if m.case.name != LARGE:
        return
    settings = [DIFFRAX, *(name for name in FITTED if name.startswith("diffrax"))]
    for work in reversed(WORKS):
        best = min(settings, key=lambda name: statistics.median(m.run[name, work]))
        fitted = f"ndekit, max_steps={best.partition('max_steps=')[2]}"
        target = FASTER_THAN_BEST if work == "gradient" else None
        for ours in [NDEKIT, fitted] if fitted in FITTED else [NDEKIT]:
            what = f"{work}: best diffrax ({best.removeprefix('diffrax, ')}) / {ours}"
            yield ratio(m, what, (best, work), (ours, work), target, at_least=True)


def compilation(m: Measurement) -> Iterator[Verdict]:
    for work in WORKS:
        ours, theirs = (
            [c.seconds for c in m.compilation[variant, work]] for variant in (NDEKIT, DIFFRAX)
        )
        middle = statistics.median(ours), statistics.median(theirs)
        yield Verdict(
            m.case.name, f"trace + compile of {work}: ndekit / diffrax", *middle, "s",
            middle[0] / middle[1], min(ours) / min(theirs),
            COMPILE if work == "gradient" else None, at_least=False,
        )  # fmt: skip


def gradient_per_forward(m: Measurement) -> Iterator[Verdict]:
    for variant in (NDEKIT, DIFFRAX):
        target = GRADIENT_PER_FORWARD.get(m.case.family) if variant == NDEKIT else None
        what = f"gradient / forward of {variant}"
        yield ratio(m, what, (variant, "gradient"), (variant, "forward"), target, at_least=False)


def costs_on(m: Measurement) -> Iterator[Verdict]:
    for work in WORKS:
        yield ratio(
            m, f"{work}: costs on / off", (COSTS, work), (NDEKIT, work),
            COSTS_ON[m.case.family], at_least=False,
        )  # fmt: skip


def memory(m: Measurement) -> Iterator[Verdict]:
    """In states of all lanes, with and without the time of every step, which is a number each."""
    ours, theirs = m.temp_bytes(NDEKIT), m.temp_bytes(DIFFRAX)
    state, but_times = m.case.state_bytes, ours - m.case.record_of_times_bytes
    for what, used, target in (
        ("memory of the gradient but the times / state, ndekit", but_times, STATES),
        ("memory of the gradient / state, ndekit", ours, STATES),
        ("memory of the gradient / state, diffrax", theirs, None),
    ):
        states = used / state
        yield Verdict(m.case.name, what, used, state, "B", states, states, target, at_least=False)
