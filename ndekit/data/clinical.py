"""Two clinical registries, as series of visits with gaps."""

import os
from pathlib import Path

import numpy as np

from ..numbers import count
from .dataset import DataError
from .folders import check_equal_lengths, file_in, read_npz
from .long_tables import Panel, from_long

_PRESSURES = (60.0, 260.0)  # mmHg; outside are typing errors, such as 13,682
_LABORATORY = ("bili", "chol", "albumin", "alk_phos", "ast", "platelet", "protime")
_TAKEN_ONCE = ("age", "sex", "trt", "futime", "status")


def nafld(folder: str | os.PathLike | None = None, *, min_visits: int = 4) -> Panel:
    """HDL cholesterol and blood pressure of people followed up for fatty liver disease.

    Two channels, `hdl` (mg/dl) and `sbp` (systolic blood pressure, mmHg; what lies outside 60 to
    260 is left out), at times in days from the date of inclusion, many before it. Several readings
    of a day are averaged.

    Args:
        folder: where `nafld.npz` lies; by default `$NDEKIT_DATA`.
        min_visits: people with fewer days of readings are left out. With 4 there are 11,880, and
            185,941 readings.

    Returns:
        A [`ndekit.data.Panel`][]; `others` holds `age` (years), `male` (0 or 1), `bmi` (NaN where
        unknown), `futime` (days of follow-up) and `status` (1: died).

    Raises:
        DataError: if the file is absent, damaged or another one.

    Example:
        ```{.python .no-run}
        import ndekit as nk

        people = nk.data.nafld("~/data")
        people.series[0].ts  # days
        ```

    Reference: Allen et al. (2018), *Nonalcoholic fatty liver disease incidence and impact on
    metabolic burden and death*; `nafld2` of the R package survival.
    """
    count("min_visits", min_visits)
    path = file_in(folder, "nafld.npz")
    names = ("id", "age", "male", "bmi", "futime", "status")
    columns = ("patient", "day", "channel", "value")
    axes = dict.fromkeys((*columns, "channels", *(f"base_{name}" for name in names)), 1)
    arrays = read_npz(path, axes)
    table = {name: arrays[name] for name in columns}
    base = {name: arrays[f"base_{name}"] for name in names}
    check_equal_lengths(path, table)
    check_equal_lengths(path, base)
    channels = _names_of(path, table["channel"], arrays["channels"])
    low, high = _PRESSURES
    value = table["value"]
    kept = (channels == "hdl") | ((channels == "sbp") & (value >= low) & (value <= high))
    panel = from_long(
        table["patient"][kept], table["day"][kept], channels[kept], value[kept],
        repeats="mean", names=("hdl", "sbp"),
    )  # fmt: skip
    often = np.array([len(series.ts) >= min_visits for series in panel.series])
    return _with_others(path, panel.rows(often), base.pop("id"), base)


def pbcseq(folder: str | os.PathLike | None = None) -> Panel:
    """Laboratory values of 312 patients with primary biliary cholangitis, at 1945 visits.

    Seven channels: `bili` (bilirubin, mg/dl), `chol` (cholesterol, mg/dl, missing at 42 % of the
    visits), `albumin` (g/dl), `alk_phos` (alkaline phosphatase, U/l), `ast` (U/ml), `platelet`
    (per 1000 in a ml) and `protime` (s); times in days from the first visit.

    Args:
        folder: where `pbcseq.npz` lies; by default `$NDEKIT_DATA`.

    Returns:
        A [`ndekit.data.Panel`][]; `others` holds `age` (years), `sex` and `trt` as coded in the
        source, `futime` (days of follow-up) and `status` (0 alive, 1 transplanted, 2 died).

    Raises:
        DataError: if the file is absent, damaged or another one.

    Example:
        ```{.python .no-run}
        import ndekit as nk

        patients = nk.data.pbcseq("~/data")
        died = patients.others["status"] == 2
        ```

    Reference: Murtaugh et al. (1994), *Primary biliary cirrhosis: prediction of short-term survival
    based on repeated patient visits*; `pbcseq` of the R package survival.
    """
    path = file_in(folder, "pbcseq.npz")
    table = read_npz(path, dict.fromkeys(("id", "day", *_LABORATORY, *_TAKEN_ONCE), 1))
    check_equal_lengths(path, table)
    size = len(_LABORATORY)
    panel = from_long(
        np.repeat(table["id"], size),
        np.repeat(table["day"], size),
        np.tile(_LABORATORY, len(table["id"])),
        np.stack([table[name] for name in _LABORATORY], axis=-1).ravel(),
        names=_LABORATORY,
    )
    ids, first = np.unique(table["id"], return_index=True)
    return _with_others(path, panel, ids, {name: table[name][first] for name in _TAKEN_ONCE})


def _names_of(path: Path, numbers: np.ndarray, names: np.ndarray) -> np.ndarray:
    if not {"hdl", "sbp"} <= set(names.tolist()) or np.any((numbers < 0) | (numbers >= len(names))):
        raise DataError(
            f"`{path}` should number its readings by the channels hdl and sbp among others, but "
            f"has {names.tolist()} and numbers to {numbers.max()}. Is it another file of that name?"
        )
    return names[numbers]


def _with_others(path: Path, panel: Panel, ids: np.ndarray, others: dict) -> Panel:
    """The panel with what is known once of each individual; `ids` tells whose row is whose."""
    order = np.argsort(ids, kind="stable")
    places = np.minimum(np.searchsorted(ids[order], panel.ids), len(ids) - 1)
    rows = order[places]
    unknown = ids[rows] != panel.ids
    if unknown.any():
        raise DataError(
            f"`{path}` should say who patient {panel.ids[np.argmax(unknown)]} is, but does not. "
            "Fetch the file again."
        )
    return panel._replace(others={name: array[rows] for name, array in others.items()})
