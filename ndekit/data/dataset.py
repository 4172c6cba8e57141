"""The record of a labelled data set, split once and for all."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32


class DataError(ValueError):
    """A data set that is absent, incomplete or corrupt; the message says what to do."""


class Dataset(NamedTuple):
    """Inputs and labels of three disjoint parts, as NumPy arrays on the host.

    The coefficients and step sizes of an experiment are chosen on the validation part; the test
    part is looked at once, for the table. A data set without a validation part has empty arrays.
    """

    name: str
    num_classes: int
    train_x: Float32[np.ndarray, "train features"]
    train_y: Int32[np.ndarray, " train"]
    validation_x: Float32[np.ndarray, "validation features"]
    validation_y: Int32[np.ndarray, " validation"]
    test_x: Float32[np.ndarray, "test features"]
    test_y: Int32[np.ndarray, " test"]

    @property
    def num_features(self) -> int:
        return self.train_x.shape[1]
