"""Parts of a data set that have no individual in common."""

import math
from collections.abc import Sequence
from typing import Any

import jax.random as jr
import numpy as np
from jaxtyping import Array, Key, UInt

from ..numbers import real


def split(
    by: Any,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    *,
    key: Key[Array, ""] | UInt[Array, "2"],
) -> tuple[np.ndarray, ...]:
    """Rows of disjoint parts, such that what belongs to one individual is in one part.

    Series of the same patient or speaker resemble each other: with one of them in each part, a test
    measures memory.

    Args:
        by: the individual of each row, numbers or strings; a range of numbers if rows are
            independent.
        fractions: of the individuals, for each part; positive, with sum 1.
        key: decides who goes where.

    Returns:
        Increasing row numbers, one array for each part.

    Raises:
        ValueError: if the fractions are none, or there are too few individuals for so many parts.

    Example:
        ```python
        import jax.random as jr
        import numpy as np
        import ndekit as nk

        speakers = np.array(["a", "a", "b", "c", "c", "d"])
        train, test = nk.data.split(speakers, (0.5, 0.5), key=jr.key(0))
        assert not set(speakers[train]) & set(speakers[test])
        ```
    """
    for i, fraction in enumerate(fractions):
        real(f"fractions[{i}]", fraction, above=0.0)
    if not math.isclose(sum(fractions), 1.0, abs_tol=1e-6):
        raise ValueError(f"`fractions` must have the sum 1, got {sum(fractions):g}.")
    by = np.asarray(by)
    if by.ndim != 1:
        raise ValueError(f"`by` must name one individual for each row, got shape {by.shape}.")
    individuals, individual = np.unique(by, return_inverse=True)
    ends = np.rint(np.cumsum(fractions) * len(individuals)).astype(int)
    if np.any(np.diff(ends, prepend=0) == 0):
        raise ValueError(
            f"`by` must name individuals enough for parts of {list(fractions)}, got "
            f"{len(individuals)}."
        )
    place = np.asarray(jr.permutation(key, len(individuals)))
    part = np.searchsorted(ends, place, side="right")[individual]
    return tuple(np.flatnonzero(part == i) for i in range(len(ends)))
