"""Labelled series of the UCR and UEA archives, from their `.ts` files."""

import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from .dataset import DataError
from .folders import DATA_VARIABLE
from .series import Series
from .ts_files import read_ts


class LabelledSeries(NamedTuple):
    """Series with a class each, split into two parts by who published them.

    Attributes:
        name: of the data set.
        classes: their names; labels are numbers into it.
        train_x: series to train on; they differ in length.
        train_y: their labels.
        test_x: series to test by.
        test_y: their labels.
    """

    name: str
    classes: tuple[str, ...]
    train_x: list[Series]
    train_y: Int32[np.ndarray, " train"]
    test_x: list[Series]
    test_y: Int32[np.ndarray, " test"]


def ucr(name: str, folder: str | os.PathLike | None = None) -> LabelledSeries:
    """A data set of the UCR and UEA archives by its name, say `"JapaneseVowels"`.

    The times of a series are 0, 1, 2, ... unless its file has times of its own.

    Args:
        name: as in the archive; the files are `NAME_TRAIN.ts` and `NAME_TEST.ts`.
        folder: where these lie, or a folder `NAME` that holds them. By default `$NDEKIT_DATA/ucr`
            if they are there, else what the installed package aeon carries (`pip install aeon`; a
            dozen data sets, JapaneseVowels among them).

    Returns:
        [`ndekit.data.LabelledSeries`][].

    Raises:
        DataError: if the files are absent, damaged, without classes, or do not fit each other; the
            message names the line.

    Example:
        ```{.python .no-run}
        import ndekit as nk

        vowels = nk.data.ucr("JapaneseVowels")
        batches = nk.data.buckets(vowels.train_x, vowels.train_y, batch_size=32, key=key)
        ```

    Reference: Bagnall et al. (2018), *The UEA multivariate time series classification archive*;
    Dau et al. (2018), *The UCR time series archive*.
    """
    train_path, test_path = _files(name, folder)
    train, test = read_ts(train_path), read_ts(test_path)
    if train.classes != test.classes or train.num_channels != test.num_channels:
        raise DataError(
            f"`{train_path}` and `{test_path}` should have the same classes and channels, but have "
            f"{train.num_channels} channels with the classes {', '.join(train.classes)} and "
            f"{test.num_channels} with {', '.join(test.classes)}. Fetch both again."
        )
    return LabelledSeries(name, train.classes, train.series, train.labels, test.series, test.labels)


def _files(name: str, folder: str | os.PathLike | None) -> tuple[Path, Path]:
    folders = _default_folders() if folder is None else [Path(folder).expanduser()]
    for place in (place for top in folders for place in (top, top / name)):
        train, test = place / f"{name}_TRAIN.ts", place / f"{name}_TEST.ts"
        if train.is_file() and test.is_file():
            return train, test
    looked = ", ".join(f"`{top}`" for top in folders) or "no folder"
    raise DataError(
        f"`{name}_TRAIN.ts` and `{name}_TEST.ts` should lie side by side, but were not found; "
        f"looked in {looked}. Name their folder, set `${DATA_VARIABLE}` to the folder that holds "
        "`ucr/`, or `pip install aeon`, which carries some data sets."
    )


def _default_folders() -> list[Path]:
    root = os.environ.get(DATA_VARIABLE)
    folders = [Path(root).expanduser() / "ucr"] if root else []
    # Finding the package imports nothing of it, which would take seconds.
    spec = importlib.util.find_spec("aeon")
    places = spec.submodule_search_locations if spec is not None else None
    return folders + [Path(place) / "datasets" / "data" for place in places or ()]
