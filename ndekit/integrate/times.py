"""Times and states as diffrax takes them: promoted, and reflected so that time grows."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import PyTree

from .. import tree
from ..shapes import Args, State, Time


def is_concrete(x: Any) -> bool:
    return not isinstance(x, Tracer)


def differ(t0: Time, t1: Time) -> bool:
    """Whether two times are known to be different ones."""
    return is_concrete(t0) and is_concrete(t1) and bool(np.asarray(t0) != np.asarray(t1))


def promote_times(*times: Any) -> list[Any]:
    """All given times (`None`s are left alone) in one floating dtype, by diffrax's rule."""
    given = [t for t in times if t is not None]
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*given)
        if not jnp.issubdtype(dtype, jnp.floating):
            dtype = jnp.result_type(float)
        return [None if t is None else jnp.asarray(t, dtype) for t in times]


def promote_state(y0: PyTree, time: Any) -> State:
    """Time enters the state, so each leaf takes at least the dtype of time."""

    def promote(y: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return jnp.asarray(y, jnp.result_type(y, time))

    return jax.tree.map(promote, y0)


def reflected_field(
    terms: diffrax.ODETerm, args: Args, direction: Any
) -> Callable[[Time, State], State]:
    """The vector field in growing time: f(t, y), or -f(-t, y) for a solve that runs backwards."""

    def field(t: Time, y: State) -> State:
        out = terms.vf(t * direction, y, args)
        return jax.tree.map(lambda x: x * direction.astype(x.dtype), out)

    if is_concrete(direction) and np.asarray(direction) == 1:
        return lambda t, y: terms.vf(t, y, args)
    return field


class ReflectedTerm(diffrax.AbstractTerm):
    """A term in growing time, for a solve that runs backwards (`direction` is -1)."""

    term: diffrax.AbstractTerm
    direction: Any

    def vf(self, t: Time, y: State, args: Args) -> Any:
        return self.term.vf(t * self.direction, y, args)

    def contr(self, t0: Time, t1: Time, **kwargs: Any) -> Any:
        forwards = self.direction == 1
        first, last = jnp.where(forwards, t0, -t1), jnp.where(forwards, t1, -t0)
        return tree.multiply(self.direction, self.term.contr(first, last, **kwargs))

    def prod(self, vf: Any, control: Any) -> State:
        with jax.numpy_dtype_promotion("standard"):
            return self.term.prod(vf, control)


def reflected_terms(terms: PyTree, direction: Any) -> PyTree:
    """The terms of a solve in the time that grows."""
    if is_concrete(direction) and np.asarray(direction) == 1:
        return terms
    is_term = lambda x: isinstance(x, diffrax.AbstractTerm)
    return jax.tree.map(lambda term: ReflectedTerm(term, direction), terms, is_leaf=is_term)


def direction_of(t0: Any, t1: Any) -> Any:
    """1 if time grows from t0 to t1, else -1: a weak integer, which is what diffrax's controllers
    are told. Known at compile time if both ends are.
    """
    if is_concrete(t0) and is_concrete(t1):
        # By NumPy, which compiles nothing.
        return jnp.asarray(1 if np.asarray(t0) < np.asarray(t1) else -1)
    return jnp.where(t0 < t1, 1, -1)


def reflected(t: Any, direction: Any) -> Any:
    """A time, or times, in the time that grows."""
    if t is None or (is_concrete(direction) and np.asarray(direction) == 1):
        return t
    return t * direction


def within(t: Time, smallest: Time, largest: Time) -> Time:
    """`t`, but no less and no more than these; its derivative at a tie is that of the bound. What
    is not a number stays so.
    """
    t = jnp.where(t <= smallest, smallest, t)
    return jnp.where(t >= largest, largest, t)


def close_to(t1: Time) -> Time:
    """100 units in the last place before `t1`: from there on a step goes to `t1`."""
    if is_concrete(t1) and t1.dtype in (np.float32, np.float64):
        t = np.asarray(t1)
        for _ in range(100):  # by NumPy, which compiles nothing
            t = np.where(t == 0, -np.finfo(t.dtype).tiny, np.nextafter(t, t.dtype.type(-np.inf)))
        return jnp.asarray(t, t1.dtype)
    return lax.fori_loop(0, 100, lambda _, t: eqxi.prevbefore(t), lax.stop_gradient(t1))


def smallest_step_after(t: Time) -> Time:
    """The next time that arithmetic can tell from `t`."""
    return t + jnp.maximum(eqxi.nextafter(t) - t, jnp.finfo(t.dtype).tiny)


class CountedField:
    """A field that counts its calls while it is traced; a repeated one it answers from memory."""

    def __init__(self, field: Callable[[Time, State], State]):
        self.field = field
        self.calls = 0
        self._last: Any = (None, None, None)

    def __call__(self, t: Time, y: State) -> State:
        last_t, last_y, value = self._last
        if t is last_t and y is last_y:
            return value
        self.calls += 1
        value = self.field(t, y)
        self._last = (t, y, value)
        return value
