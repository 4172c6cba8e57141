"""The measurements as Markdown and as JSON."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
from collections.abc import Iterable

from measurement import Measurement
from races import Raced, as_seconds, verdicts_of
from variants import FLOOR
from verdicts import Verdict, verdicts

PACKAGES = ("ndekit", "jax", "jaxlib", "diffrax", "equinox")


def machine() -> dict:
    """What to note beside seconds."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def processor() -> str:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine_line(about: dict) -> str:
    packages = ", ".join(f"{name} {about[name]}" for name in PACKAGES)
    load = " ".join(str(load) for load in about["load_average"])
    return (
        f"{about['date']}; {about['processor']}, {about['cores']} cores, load average at the end "
        f"{load}; Python {about['python']}, {packages}; float32, stiff cases float64."
    )


def quantity(number: float, unit: str) -> str:
    if unit == "B" and number < 1024:
        return f"{number:.0f} B"
    if unit == "B":
        return f"{number / 1024:.0f} KiB" if number < 1024**2 else f"{number / 1024**2:.1f} MiB"
    if number < 1e-3:
        return f"{number * 1e6:.0f} µs"
    return f"{number * 1e3:.3g} ms" if number < 1 else f"{number:.2f} s"


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    rows = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def ratio_row(v: Verdict) -> list[str]:
    quotient = f"{quantity(v.of, v.unit)} / {quantity(v.by, v.unit)}"
    numbers = (
        [f"{v.ratio:.2f}", f"{v.ratio_of_least:.2f}"]
        if v.unit == "s"
        else [f"{v.ratio:.0f}" if v.ratio >= 10 else f"{v.ratio:.3f}"] * 2
    )
    return [v.case, v.what, quotient, *numbers, v.wanted, v.verdict]


def ratio_table(found: Iterable[Verdict]) -> str:
    head = ["case", "what", "median / median", "ratio", "of least", "target", "verdict"]
    return markdown_table(head, map(ratio_row, found))


def time_table(measurements: list[Measurement]) -> str:
    return markdown_table(
        ["case", "variant", "work", "median", "least", "median / floor"],
        [row for m in measurements for row in time_rows(m)],
    )


def time_rows(m: Measurement) -> Iterable[list[str]]:
    for (variant, work), samples in m.run.items():
        middle = statistics.median(samples)
        floor = m.run.get((FLOOR, work))
        over_floor = f"{middle / statistics.median(floor):.2f}" if floor else ""
        seconds = [quantity(middle, "s"), quantity(min(samples), "s")]
        yield [m.case.name, variant, work, *seconds, over_floor]


def steps_table(measurements: list[Measurement]) -> str:
    rows = (
        [m.case.name, *map(str, m.num_steps.values()), str(m.num_evals or "")] for m in measurements
    )
    return markdown_table(["case", "steps of diffrax", "steps of ndekit", "evaluations"], rows)


def page(measurements: list[Measurement], races: list[Raced], about: dict) -> str:
    parts = [machine_line(about)]
    if measurements:
        parts += [
            "## Ratios", ratio_table(v for m in measurements for v in verdicts(m)),
            "## Times", time_table(measurements),
            "## Steps (of the lane that takes most)", steps_table(measurements),
        ]  # fmt: skip
    if races:
        parts += ["## Irregular series", ratio_table(v for r in races for v in verdicts_of(r))]
    return "\n\n".join(parts) + "\n"


def as_json(measurements: list[Measurement], races: list[Raced], about: dict) -> str:
    cases = {
        m.case.name: {
            "num_steps": m.num_steps,
            "num_evals": m.num_evals,
            "seconds": {" | ".join(key): samples for key, samples in m.run.items()},
            "compilation": {
                " | ".join(key): [stages._asdict() for stages in done]
                for key, done in m.compilation.items()
            },
            "verdicts": [v._asdict() | {"verdict": v.verdict} for v in verdicts(m)],
        }
        for m in measurements
    }
    series = {
        raced.name: as_seconds(raced)
        | {"verdicts": [v._asdict() | {"verdict": v.verdict} for v in verdicts_of(raced)]}
        for raced in races
    }
    return json.dumps({"machine": about, "cases": cases, "series": series}, indent=1)
