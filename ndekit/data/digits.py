"""The 8x8 handwritten digits that come with scikit-learn."""

import numpy as np

from .dataset import DataError, Dataset

_NUM_VALIDATION = 250
_NUM_TEST = 250  # 1797 - 250 - 250 = 1297 are left to train on


def digits() -> Dataset:
    """1797 images of 64 pixels in [0, 1]: 1297 to train on, 250 to choose by, 250 to test.

    The split is fixed and stratified: each class has its share of every part, rounded.

    Returns:
        A [`ndekit.data.Dataset`][] with `(images, 64)` float32 inputs and int32 labels from 0 to 9.

    Raises:
        DataError: if scikit-learn is not installed.

    Example:
        ```python
        import ndekit as nk

        data = nk.data.digits()
        assert data.train_x.shape == (1297, 64)
        ```

    Reference: Alpaydin and Kaynak (1998), *Optical Recognition of Handwritten Digits*, UCI;
    scikit-learn carries its test part.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "`digits` reads scikit-learn's images, but scikit-learn is not installed. "
            "Run `pip install ndekit[experiments]`."
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    x, y = (pixels / 16.0).astype(np.float32), labels.astype(np.int32)
    train, validation, test = stratified_split(y, (_NUM_VALIDATION, _NUM_TEST), seed=0)
    return Dataset("digits", 10, x[train], y[train], x[validation], y[validation], x[test], y[test])


def stratified_split(
    labels: np.ndarray, sizes: tuple[int, ...], *, seed: int
) -> tuple[np.ndarray, ...]:
    """Indices of the rest and of parts with these sizes, every class spread evenly over all."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # class by class, shuffled within
    # Every part is then read off at equal strides through the classes.
    parts = []
    for size in sizes:
        picks = (np.arange(size) * len(order)) // size
        parts.append(np.sort(order[picks]))
        order = np.delete(order, picks)
    return np.sort(order), *parts
