"""The record of simulated series."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .series import Series


class Simulated(NamedTuple):
    """Series of a known process, and the paths that they were read from; NumPy arrays.

    Attributes:
        series: a padded batch of readings.
        ts: `(grid,)`, the times at which the paths are known.
        paths: `(batch, grid, channel)`, without noise of the readings.
        others: arrays with a row for each series, by name.
    """

    series: Series
    ts: Float[np.ndarray, " grid"]
    paths: Float[np.ndarray, "batch grid channel"]
    others: Mapping[str, np.ndarray]
