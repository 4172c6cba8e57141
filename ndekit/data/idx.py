"""Arrays of bytes in gzipped IDX files, the format that MNIST comes in."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from .dataset import DataError

_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, ndim: int) -> UInt8[np.ndarray, "..."]:
    """The array in `path`: two zero bytes, a type, a number of axes, sizes, then the values.

    Args:
        path: a gzipped IDX file of unsigned bytes.
        ndim: the number of axes that it should have.

    Raises:
        DataError: if the file is absent, is no gzip file or a damaged one, or if its header does
            not say `ndim` axes of unsigned bytes, or does not fit its length.
    """
    content = _unzip(path)
    magic = bytes([0, 0, _UNSIGNED_BYTE, ndim])
    if content[:4] != magic:
        raise DataError(
            f"`{path}` should begin with the IDX header {magic.hex()} (unsigned bytes, {ndim} "
            f"axes), but begins with {content[:4].hex() or 'nothing'}. Fetch the file again."
        )
    start = 4 + 4 * ndim
    if len(content) < start:
        raise DataError(
            f"`{path}` ends inside its IDX header, after {len(content)} of {start} bytes. "
            "Fetch the file again."
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", count=ndim, offset=4))
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"`{path}` should hold {math.prod(shape)} values for its shape {shape}, but holds "
            f"{len(content) - start}. Fetch the file again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _unzip(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read()
    except FileNotFoundError as error:
        raise DataError(
            f"`{path}` is missing. Put the four gzipped IDX files of MNIST into that folder."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"`{path}` could not be unzipped ({error}). Fetch the file again."
        ) from error
