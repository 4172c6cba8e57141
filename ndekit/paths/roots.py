"""Inverses and quotients with derivatives also where the plain formula has none."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def rising_root(
    f: Callable[[Array], Array], target: Float[Array, "*times"], *, slack: float = 1e-5
) -> Float[Array, "*times"]:
    """The `t` in [0, 1] with `f(t) == target`, for an elementwise `f` that increases.

    Halving to the last bit, then two steps of Newton's method, which carry the derivatives by
    `target` and by what `f` is made of, to second order. NaN if `target` is beyond `f(0)` or `f(1)`
    by more than `slack`.
    """
    dtype = target.dtype

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        left, right = ends
        middle = 0.5 * (left + right)
        below = f(middle) < target
        return jnp.where(below, middle, left), jnp.where(below, right, middle)

    bits = jnp.finfo(dtype).nmant + 8
    ends = (jnp.zeros_like(target), jnp.ones_like(target))
    left, right = jax.lax.fori_loop(0, bits, halve, ends)
    t = jax.lax.stop_gradient(jnp.where(f(right) <= target, right, left))
    for _ in range(2):
        value, slope = jax.jvp(f, (t,), (jnp.ones_like(t),))
        # At an end where `f` is flat or vertical the root is exact as it is.
        regular = (slope > 0) & jnp.isfinite(slope)
        t = t - jnp.where(regular, (value - target) / jnp.where(regular, slope, 1), 0)
    inside = (f(jnp.zeros_like(t)) <= target + slack) & (f(jnp.ones_like(t)) >= target - slack)
    return jnp.where(inside, t, jnp.nan)


def not_below_zero(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Without what rounding has put below zero; its derivative is that of `x`."""
    return x + jax.lax.stop_gradient(jnp.maximum(x, 0) - x)


def without_rounding(t: Float[Array, "*times"]) -> Float[Array, "*times"]:
    """A time that rounding has put beyond 0 or 1 is taken back; its derivative stays."""
    slack = 8 * jnp.finfo(t.dtype).eps
    back = jnp.where(jnp.abs(t) < slack, jnp.maximum(t, 0), t)
    back = jnp.where(jnp.abs(t - 1) < slack, jnp.minimum(back, 1), back)
    return t + jax.lax.stop_gradient(back - t)


def as_time(t: object) -> Float[Array, "*shape"]:
    """A time, or a noise level, as a floating array."""
    t = jnp.asarray(t)
    return t if eqx.is_inexact_array(t) else t.astype(jnp.result_type(float))


def exprel(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""$(e^x - 1) / x$, which is 1 at 0, and smooth there."""
    small = jnp.abs(x) < 0.1
    near, far = jnp.where(small, x, 0), jnp.where(small, 1, x)
    series = jnp.ones_like(x)
    for k in range(10, 1, -1):
        series = 1 + near / k * series
    return jnp.where(small, series, jnp.expm1(far) / far)
