"""MNIST, read from the four IDX files in a folder."""

import os
from pathlib import Path
from typing import Literal

import numpy as np

from ..numbers import count
from .dataset import DataError, Dataset
from .folders import DATA_VARIABLE
from .idx import read_idx


def mnist(
    folder: str | os.PathLike | None = None,
    *,
    size: Literal[28, 14] = 28,
    num_validation: int = 0,
) -> Dataset:
    """60,000 images to train on and 10,000 to test, with pixels in [0, 1].

    Args:
        folder: where the files `train-images-idx3-ubyte.gz`, `train-labels-idx1-ubyte.gz`,
            `t10k-images-idx3-ubyte.gz` and `t10k-labels-idx1-ubyte.gz` lie; by default
            `$NDEKIT_DATA/mnist`.
        size: pixels to a side; 14 keeps every second pixel of every second row.
        num_validation: how many of the last training images to hold out, 0 to 59,999.

    Returns:
        A [`ndekit.data.Dataset`][] with `(images, size**2)` float32 inputs and int32 labels.

    Raises:
        DataError: if no folder is known, or a file is absent, damaged or not MNIST's.
        ValueError: if `size` or `num_validation` is out of range.

    Example:
        ```{.python .no-run}
        import ndekit as nk

        data = nk.data.mnist("~/data/mnist", size=14, num_validation=5000)
        ```

    Reference: LeCun, Cortes and Burges, *The MNIST database of handwritten digits* (1998).
    """
    if count("size", size) not in (28, 14):
        raise ValueError(f"`size` must be 28 or 14 pixels, got {size}.")
    count("num_validation", num_validation, 0)
    folder = mnist_folder(folder)
    train_x, train_y = _read_part(folder, "train", size)
    test_x, test_y = _read_part(folder, "t10k", size)
    if num_validation >= len(train_x):
        raise ValueError(
            f"`num_validation` must lie from 0 to {len(train_x) - 1}, got {num_validation}."
        )
    cut = len(train_x) - num_validation
    return Dataset(
        f"mnist{size}", 10, train_x[:cut], train_y[:cut], train_x[cut:], train_y[cut:], test_x,
        test_y,
    )  # fmt: skip


def mnist_folder(folder: str | os.PathLike | None) -> Path:
    """The folder given, else `$NDEKIT_DATA/mnist`; an error that says how to name one."""
    if folder is None:
        root = os.environ.get(DATA_VARIABLE)
        if not root:
            raise DataError(
                f"MNIST needs a folder with its four gzipped IDX files. Name it (`--data`), or set "
                f"`${DATA_VARIABLE}` to the folder that holds `mnist/`."
            )
        folder = Path(root) / "mnist"
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"The MNIST folder `{folder}` does not exist. Name the folder that holds its four "
            f"gzipped IDX files, or set `${DATA_VARIABLE}` to the folder that holds `mnist/`."
        )
    return folder


def _read_part(folder: Path, part: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    images_path = folder / f"{part}-images-idx3-ubyte.gz"
    labels_path = folder / f"{part}-labels-idx1-ubyte.gz"
    images, labels = read_idx(images_path, ndim=3), read_idx(labels_path, ndim=1)
    if images.shape[1:] != (28, 28):
        raise DataError(
            f"`{images_path}` should hold images of 28x28 pixels, but holds "
            f"{images.shape[1]}x{images.shape[2]}. Is it MNIST?"
        )
    if len(images) != len(labels) or not len(images):
        raise DataError(
            f"`{images_path}` holds {len(images)} images, but `{labels_path}` holds {len(labels)} "
            "labels. Fetch both again."
        )
    if labels.max() > 9:
        raise DataError(f"`{labels_path}` should hold labels from 0 to 9, but has {labels.max()}.")
    stride = 28 // size
    x = images[:, ::stride, ::stride].reshape(len(images), -1).astype(np.float32) / 255.0
    return x, labels.astype(np.int32)
