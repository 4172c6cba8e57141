"""Files of data sets: where they lie, and what is in them."""

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .dataset import DataError

DATA_VARIABLE = "NDEKIT_DATA"


def file_in(folder: str | os.PathLike | None, name: str) -> Path:
    """`name` in the folder given, else in `$NDEKIT_DATA`.

    Raises:
        DataError: if no folder is known, or the file is not in it.
    """
    if folder is None:
        folder = os.environ.get(DATA_VARIABLE)
        if not folder:
            raise DataError(
                f"No folder with `{name}` is known. Name it (`folder=`), or set `${DATA_VARIABLE}` "
                "to it."
            )
    path = Path(folder).expanduser() / name
    if not path.is_file():
        raise DataError(
            f"`{path}` does not exist. Name the folder that holds `{name}`, or set "
            f"`${DATA_VARIABLE}` to it."
        )
    return path


def read_npz(path: Path, axes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The arrays of a NumPy archive that are named in `axes`, which says how many axes each has.

    Raises:
        DataError: if the file is no such archive or a damaged one, or lacks one of the arrays.
    """
    try:
        # Opened here: NumPy leaves a file open that turns out to be damaged.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array")
            arrays = {name: archive[name] for name in axes if name in archive.files}
            found = archive.files
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"`{path}` should be a NumPy archive, but could not be read ({error}). Fetch the file "
            "again."
        ) from error
    missing = [name for name in axes if name not in arrays]
    if missing:
        raise DataError(
            f"`{path}` should hold the array `{missing[0]}`, but holds {', '.join(found[:8])}. Is "
            "it another file of that name?"
        )
    for name, array in arrays.items():
        if array.ndim != axes[name]:
            raise DataError(
                f"`{name}` of `{path}` should have {axes[name]} axes, but has the shape "
                f"{array.shape}. Fetch the file again."
            )
    return arrays


def check_equal_lengths(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Pass over columns of a table."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1 or not all(lengths.values()):
        raise DataError(
            f"The columns of `{path}` should have one length, but have {lengths}. Fetch the file "
            "again."
        )
