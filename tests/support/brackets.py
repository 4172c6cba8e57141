"""Lie brackets written out: of vector fields by their Jacobians, of letters as tensors."""

from types import SimpleNamespace

import jax
import numpy as np


def bracket_of_fields(v, w):
    """[V, W] = DW V - DV W, as a field."""
    return lambda y: jax.jacfwd(w)(y) @ v(y) - jax.jacfwd(v)(y) @ w(y)


def lie_element(channels, depth, seed=0):
    """A random Lie element: a record with `levels`, and its coefficients by brackets of letters.

    The coefficients are `(i,)`, `(i, j)` for [i, j], `(i, j, k)` for [i, [j, k]] -> number.
    """
    rng = np.random.default_rng(seed)
    letters = np.eye(channels)
    coefficients, levels = {}, [np.zeros((channels,) * (n + 1)) for n in range(depth)]
    for word in words(channels, depth):
        c = coefficients[word] = rng.normal() / len(word)
        levels[len(word) - 1] += c * _tensor(letters, word)
    return SimpleNamespace(levels=tuple(levels)), coefficients


def words(channels, depth):
    letters = range(channels)
    yield from ((i,) for i in letters)
    if depth > 1:
        yield from ((i, j) for i in letters for j in letters if i != j)
    if depth > 2:
        yield from ((i, j, k) for i in letters for j in letters for k in letters if j != k)


def _tensor(letters, word):
    if len(word) == 1:
        return letters[word[0]]
    a, b = letters[word[0]], _tensor(letters, word[1:])
    return np.multiply.outer(a, b) - np.multiply.outer(b, a)


def in_fields(columns, coefficients, y):
    """What the element is as a vector field, at `y`: letters are `columns(i)`, fields."""

    def field(word):
        if len(word) == 1:
            return columns(word[0])
        return bracket_of_fields(columns(word[0]), field(word[1:]))

    return sum(c * field(word)(y) for word, c in coefficients.items())
