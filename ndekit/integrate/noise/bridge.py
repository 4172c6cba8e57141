r"""Brownian increments with their Levy areas, and what they are on each half of an interval.

On an interval of length h a motion is told by $W$, $H$ and $K$, independent and normal with
variances $h$, $h/12$ and $h/720$: its increment, space-time and space-time-time Levy area (Foster,
Lyons and Oberhauser 2020, "An optimal polynomial approximation of Brownian motion"). Here they
stand on the first axis of an array, as many as are wanted.
"""

from typing import Any

import diffrax
import jax.numpy as jnp
import numpy as np

AREAS = (diffrax.BrownianIncrement, diffrax.SpaceTimeLevyArea, diffrax.SpaceTimeTimeLevyArea)
_VARIANCES = np.array([1.0, 1 / 12, 1 / 720])
# What the halves of an interval add to the whole: W, H and K are linear in those of the halves.
_FROM_LEFT = np.array([[1, 0, 0], [1 / 4, 1 / 2, 0], [0, 1 / 8, 1 / 4]])
_FROM_RIGHT = np.array([[1, 0, 0], [-1 / 4, 1 / 2, 0], [0, -1 / 8, 1 / 4]])


def _conditional(number: int) -> tuple[np.ndarray, np.ndarray]:
    """The left half given the whole: its mean, by the whole, and a root of its covariance."""
    whole, left = np.diag(_VARIANCES[:number]), _FROM_LEFT[:number, :number]
    gain = whole / 2 @ left.T @ np.linalg.inv(whole)
    return gain, np.linalg.cholesky(whole / 2 - gain @ whole @ gain.T)


_LEFT_OF_WHOLE = {number: _conditional(number) for number in (1, 2, 3)}


def whole(normal: Any, h: Any) -> Any:
    """An interval of which nothing is known, out of as many normal numbers."""
    number, root = len(normal), jnp.sqrt(h).astype(normal.dtype)
    if number == 1:
        return normal * root
    return _apply(np.diag(np.sqrt(_VARIANCES[:number])), normal) * root


def split(normal: Any, whole: Any, h: Any) -> tuple[Any, Any]:
    """The halves of an interval of length `h` given the whole, out of as many normal numbers."""
    number = len(whole)
    gain, root = _LEFT_OF_WHOLE[number]
    left = _apply(gain, whole) + jnp.sqrt(h).astype(whole.dtype) * _apply(root, normal)
    back = np.linalg.inv(_FROM_RIGHT[:number, :number])
    return left, _apply(back, whole - _apply(_FROM_LEFT[:number, :number], left))


def _apply(matrix: np.ndarray, x: Any) -> Any:
    """`matrix @ x` along the first axis, written out: the matrices are tiny and mostly zero."""
    rows = []
    for row in matrix:
        terms = [float(a) * x[j] for j, a in enumerate(row) if a != 0]
        rows.append(sum(terms[1:], terms[0]))
    return jnp.stack(rows)


def to_moments(x: Any, h: Any) -> Any:
    r"""$W$, $\int w$ and $\int u \, w_u \, du$ on an interval of length `h`, from $W$, $H$, $K$.

    These add up over neighbouring intervals of any lengths (`joined`).
    """
    moments = [x[0]]
    if len(x) > 1:
        moments.append(h * (x[1] + x[0] / 2))
    if len(x) > 2:
        moments.append(h / 2 * moments[1] + h * h / 12 * x[0] - h * h * x[2])
    return jnp.stack(moments)


def from_moments(m: Any, h: Any) -> Any:
    """$W$, $H$ and $K$, the inverse of `to_moments`; zero for an interval without length."""
    safe = jnp.where(h > 0, h, 1)
    x = [m[0]]
    if len(m) > 1:
        x.append(m[1] / safe - m[0] / 2)
    if len(m) > 2:
        x.append((safe / 2 * m[1] - m[2]) / (safe * safe) + m[0] / 12)
    return jnp.where(h > 0, jnp.stack(x), 0)


def joined(first: Any, h1: Any, second: Any, h2: Any) -> Any:
    """The moments of two neighbouring intervals as one."""
    m = [first[0] + second[0]]
    if len(first) > 1:
        m.append(first[1] + first[0] * h2 + second[1])
    if len(first) > 2:
        onwards = first[0] * (h1 * h2 + h2 * h2 / 2) + h1 * second[1]
        m.append(first[2] + onwards + second[2])
    return jnp.stack(m)


def without_first(both: Any, first: Any, h1: Any, h2: Any) -> Any:
    """The moments of the second of two neighbouring intervals, the inverse of `joined`."""
    m = [both[0] - first[0]]
    if len(both) > 1:
        m.append(both[1] - first[1] - first[0] * h2)
    if len(both) > 2:
        m.append(both[2] - first[2] - first[0] * (h1 * h2 + h2 * h2 / 2) - h1 * m[1])
    return jnp.stack(m)
