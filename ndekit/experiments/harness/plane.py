"""Samples of two laws of the plane, a source and a target, and pairs of them to train on."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from .transport import wasserstein2

Law = Callable[[np.random.Generator, int], np.ndarray]
Coupling = Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]  # as `ndekit.couplings`
_MEASURED = 2_000  # points by which the least energy is known


class Ends(NamedTuple):
    """Pairs of source and target, `x`, and samples of the target, `y`.

    Attributes:
        train_x: for each sample several pairs, of which an update takes one.
        least_energy: $W_2^2$ of source and target.
        yardsticks: $W_2$ to the test samples of a fresh sample of the target, and of the source.
    """

    train_x: Float[np.ndarray, "train partners 2 2"]
    train_y: Float[np.ndarray, "train 2"]
    validation_x: Float[np.ndarray, "validation 1 2 2"]
    validation_y: Float[np.ndarray, "validation 2"]
    test_x: Float[np.ndarray, "test 1 2 2"]
    test_y: Float[np.ndarray, "test 2"]
    least_energy: float
    yardsticks: Mapping[str, float]


def normal(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.normal(size=(size, 2))


def eight_gaussians(
    rng: np.random.Generator, size: int, radius: float = 5.0, deviation: float = 1.0
) -> np.ndarray:
    """On a circle: wider than those of `cnf_toys`."""
    angles = rng.integers(0, 8, size) * np.pi / 4
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return radius * circle + deviation * normal(rng, size)


def half_circles(rng: np.random.Generator, size: int, noise: float) -> np.ndarray:
    """scikit-learn's moons, of radius 1, one turned over and moved; as there evenly spaced, half
    of the points on each.
    """
    upper, places = np.arange(size) % 2, rng.permutation(size)
    angles = np.pi * (np.arange(size) // 2) / max(1, (size - 1) // 2)
    turn = 2 * upper - 1
    x = np.stack([1 - upper + turn * np.cos(angles), 0.5 * (1 - upper) + turn * np.sin(angles)], 1)
    return x[places] + noise * normal(rng, size)


def moons(rng: np.random.Generator, size: int) -> np.ndarray:
    """Of radius 2 with noise of deviation 0.1, 1 to the left of scikit-learn's."""
    return 2 * half_circles(rng, size, 0.05) - np.array([1.0, 0.0])


# Of one moon's noise of 0.1: mean and mean square over both coordinates of the law.
_MEAN, _SQUARE = 0.375, (1.0 + (1.25 - 2 / np.pi) / 2) / 2 + 0.01


def wide_moons(rng: np.random.Generator, size: int) -> np.ndarray:
    """With mean 0 and deviation 7, of both coordinates together."""
    return 7 * (half_circles(rng, size, 0.1) - _MEAN) / np.sqrt(_SQUARE - _MEAN**2)


def wide_gaussians(rng: np.random.Generator, size: int) -> np.ndarray:
    return eight_gaussians(rng, size, 12.0, 1.5)


def s_curve(rng: np.random.Generator, size: int) -> np.ndarray:
    """Two three-quarter circles of radius 1.5, with noise of deviation 0.075."""
    turned = 3 * np.pi * (rng.uniform(size=size) - 0.5)
    x = np.stack([np.sin(turned), np.sign(turned) * (np.cos(turned) - 1)], axis=1)
    return 1.5 * (x + 0.05 * normal(rng, size))


# Of source and target.
PROBLEMS: dict[str, tuple[Law, Law]] = {
    "normal_8gaussians": (normal, eight_gaussians),
    "normal_moons": (normal, moons),
    "8gaussians_moons": (wide_gaussians, wide_moons),
    "normal_scurve": (normal, s_curve),
}


@functools.cache
def draw_ends(name: str, sizes: tuple[int, int, int]) -> Ends:
    """Training, validation and test samples of a problem, in pairs as they come."""
    source, target = PROBLEMS[name]
    rng = np.random.default_rng(25)
    x0s, x1s = ([law(rng, size).astype(np.float32) for size in sizes] for law in (source, target))
    pairs = [np.stack([x0, x1], axis=1)[:, None] for x0, x1 in zip(x0s, x1s, strict=True)]
    fresh = target(rng, sizes[2])
    some = slice(_MEASURED)
    apart = wasserstein2(x0s[2][some], x1s[2][some])
    yardsticks = {
        "a fresh sample": wasserstein2(fresh, x1s[2]),
        f"the source ({len(x0s[2][some])} points)": apart,
    }
    parts = [part for both in zip(pairs, x1s, strict=True) for part in both]
    return Ends(*parts, least_energy=apart**2, yardsticks=yardsticks)


def coupled(ends: Ends, coupling: Coupling, number: int, among: int) -> Ends:
    """With `number` pairs for each training sample, each found among `among` at random."""
    rng, x0, x1 = np.random.default_rng(26), ends.train_x[:, 0, 0], ends.train_y
    pairs = np.empty((len(x1), number, 2, 2), np.float32)
    for column in range(number):
        sources, targets = rng.permutation(len(x0)), rng.permutation(len(x1))
        for start in range(0, len(x1), among):
            rows = targets[start : start + among]
            found = coupling(x0[sources[start : start + among]], x1[rows])
            pairs[rows, column] = np.stack(found, axis=1)
    return ends._replace(train_x=pairs)
