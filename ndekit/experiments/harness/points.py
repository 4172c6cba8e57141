"""Points whose density is to be learnt."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Points(NamedTuple):
    """Points, and of each the log density of a volume: what a log density of the point is to be
    added to for that of what it stands for (0 where it stands for itself).
    """

    train_x: Float[np.ndarray, "train size"]
    train_y: Float[np.ndarray, " train"]
    validation_x: Float[np.ndarray, "validation size"]
    validation_y: Float[np.ndarray, " validation"]
    test_x: Float[np.ndarray, "test size"]
    test_y: Float[np.ndarray, " test"]
    yardsticks: Mapping[str, float]
