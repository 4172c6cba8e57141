r"""Polynomials through the rates at the last steps, and their integrals over the next.

A place is a time $t$, or its logarithm. With $v$ the distance from the start of the step, both of
time ($w = 1$) and of its logarithm ($w = t$, as $dt = t\, dv$), a step adds
$\int_0^V P(v)\, w\, dv$ of the polynomial $P(v) = \sum_k c_k v^k$ through the rates.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp

from ... import tree
from ...shapes import State, Time
from ...tree import sum_in_order

# Terms of a series that is exact to rounding within one unit.
_TERMS = 20
_NOTHING = 1e-13


def distance(start: Time, t: Time, logarithmic: bool) -> Time:
    """From `start` to `t`; of logarithms, of which both must have the same sign or be 0."""
    if not logarithmic:
        return t - start
    return jnp.log(_off_zero(t, start) / _off_zero(start, t))


def _off_zero(t: Time, beside: Time) -> Time:
    """A time that has a logarithm: in place of 0 one that is so small beside another that nothing
    depends on how small it is.
    """
    return jnp.where(t == 0, jnp.where(beside == 0, 1, _NOTHING * beside), t)


def moments(start: Time, t: Time, number: int, logarithmic: bool) -> list[Time]:
    r"""$\int v^k\, dt$ from `start` to `t`, for $k = 0$ to `number - 1`."""
    v = distance(start, t, logarithmic)
    if not logarithmic:
        return [v ** (k + 1) / (k + 1) for k in range(number)]
    start = _off_zero(start, t)
    found, power = [jnp.expm1(v)], 1
    for k in range(1, number):
        power = power * v
        found.append(power * jnp.exp(v) - k * found[-1])
    # Near 0 these are differences of numbers that are almost equal.
    is_near = jnp.abs(v) < 1
    near = jnp.where(is_near, v, 0)
    return [
        start * jnp.where(is_near, _series(near, k), far) if k else t - start
        for k, far in enumerate(found)
    ]


def _series(v: Time, k: int) -> Time:
    r"""$\int_0^v x^k e^x dx = \sum_n v^{n + k + 1} / (n! (n + k + 1))$."""
    total = 0 * v
    for n in reversed(range(_TERMS)):
        total = total * v + 1 / (math.factorial(n) * (n + k + 1))
    return total * v ** (k + 1)


def newton(places: Sequence[Time], rates: Sequence[State], number: Any) -> list[State]:
    """Divided differences of the first `number` rates, and 0 beyond them."""
    row, found = list(rates), [rates[0]]
    for width in range(1, len(rates)):
        row = [
            tree.masked(
                number > i + width, _slope(places[i], places[i + width], row[i], row[i + 1])
            )
            for i in range(len(row) - 1)
        ]
        found.append(row[0])
    return found


def _slope(start: Time, end: Time, before: State, after: State) -> State:
    gap = jnp.where(end == start, 1, end - start)
    return tree.multiply(1 / gap, tree.subtract(after, before))


def _powers(places: Sequence[Time]) -> list[list[Time]]:
    r"""For each $i$ the coefficients of $\prod_{j < i} (v - p_j)$."""
    found = [[jnp.ones_like(places[0])]]
    for place in places[:-1]:
        last = found[-1]
        raised = [jnp.zeros_like(place), *last]
        scaled = [*[place * x for x in last], jnp.zeros_like(place)]
        found.append([a - b for a, b in zip(raised, scaled, strict=True)])
    return found


def integrals(places: Sequence[Time], weights: Sequence[Time]) -> list[Time]:
    """Of each of Newton's products over the step."""
    return [
        sum_in_order([c * w for c, w in zip(product, weights, strict=False)])
        for product in _powers(places)
    ]


def in_powers(places: Sequence[Time], differences: Sequence[State]) -> list[State]:
    r"""The coefficients $c_k$ of $\sum_i d_i \prod_{j < i} (v - p_j)$."""
    products = _powers(places)
    return [
        weighted((product[k] for product in products[k:]), differences[k:])
        for k in range(len(differences))
    ]


def weighted(weights: Iterable[Time], trees: Sequence[State]) -> State:
    """The sum of the trees, each times a number."""
    terms = [tree.multiply(w, x) for w, x in zip(weights, trees, strict=True)]
    return functools.reduce(tree.add, terms)


def classical_step(field: Callable, t0: Time, t1: Time, y0: State, k1: State) -> State:
    """A step of the classical Runge-Kutta method, from the rate `k1` at its start."""
    h, middle = t1 - t0, t0 + (t1 - t0) / 2
    ahead = lambda part, k: tree.add(y0, tree.multiply(part, k))
    k2 = field(middle, ahead(h / 2, k1))
    k3 = field(middle, ahead(h / 2, k2))
    k4 = field(t1, ahead(h, k3))
    return tree.add(y0, weighted([h / 6, h / 3, h / 3, h / 6], [k1, k2, k3, k4]))


class AdamsInterpolation(diffrax.AbstractLocalInterpolation):
    """Within a step: the integral of its polynomial up to there."""

    t0: Time
    t1: Time
    y0: State
    coefficients: list[State]
    logarithmic: bool = eqx.field(static=True)

    def evaluate(self, t0: Time, t1: Time | None = None, left: bool = True) -> State:
        """The state at `t0`, or its increment from `t0` to `t1`."""
        if t1 is not None:
            return tree.subtract(self.evaluate(t1), self.evaluate(t0))
        weights = moments(self.t0, t0, len(self.coefficients), self.logarithmic)
        return tree.add(self.y0, weighted(weights, self.coefficients))
