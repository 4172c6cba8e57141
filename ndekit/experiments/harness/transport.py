"""Exact optimal transport between two samples of one size, on the host."""

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from ...couplings import assignment


def squared_distances(
    x0: Float[np.ndarray, "n size"], x1: Float[np.ndarray, "m size"]
) -> Float[np.ndarray, "n m"]:
    """In double precision, coordinate by coordinate: near points lose no digits."""
    total = np.zeros((len(x0), len(x1)))
    for ours, theirs in zip(x0.T.astype(float), x1.T.astype(float), strict=True):
        total += (ours[:, None] - theirs[None]) ** 2
    return total


def partners(
    x0: Float[np.ndarray, "n size"], x1: Float[np.ndarray, "n size"]
) -> Int[np.ndarray, " n"]:
    """For each row of `x1` the row of `x0` that the cheapest assignment gives it, at the price of
    the squared distance: a permutation. As [`ndekit.couplings.ExactOT`][], in double precision.
    """
    return np.asarray(assignment.partners(squared_distances(x0, x1)))


def wasserstein2(x0: Float[np.ndarray, "n size"], x1: Float[np.ndarray, "m size"]) -> float:
    r"""$W_2$ of two samples: the square root of the mean squared distance of the best pairs.

    Exact, and of two samples of one law not zero: it falls slowly with their number. The time is
    that of an assignment, about cubic. Infinite if a sample is not finite.

    Raises:
        ValueError: if the samples differ in shape.
    """
    if x0.shape != x1.shape:
        raise ValueError(
            f"Both samples must have as many points of one size, got {x0.shape} and {x1.shape}."
        )
    if not (np.isfinite(x0).all() and np.isfinite(x1).all()):
        return float("inf")
    costs = squared_distances(x0, x1)
    rows, columns = linear_sum_assignment(costs)
    return float(np.sqrt(costs[rows, columns].mean()))
