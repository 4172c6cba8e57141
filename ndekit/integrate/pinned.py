"""Where `jax.vmap` puts the lanes of what the engine computes itself.

`jax.vmap` moves its axis to the front wherever a number meets an array: for many lanes of a small
state that makes rows of three numbers out of three rows of lanes, and a step three times slower.
These two primitives do nothing but keep the axis behind.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_last_p = Primitive("ndekit_lanes_last")
_spread_p = Primitive("ndekit_spread")


def lanes_last(x: Any) -> Any:
    """`x`, its lanes behind its other axes."""
    return _last_p.bind(jnp.asarray(x))


def spread(number: Any, like: Any) -> Any:
    """A number for each of the elements of `like`."""
    return _spread_p.bind(jnp.asarray(number), shape=jnp.shape(like))


def _move_last(args: tuple, dims: tuple) -> tuple[Any, int]:
    (x,), (axis,) = args, dims
    return _last_p.bind(jnp.moveaxis(x, axis, -1)), x.ndim - 1


def _spread(x: Any, *, shape: tuple[int, ...]) -> Any:
    return lax.broadcast(x, shape)


def _spread_lanes(args: tuple, dims: tuple, *, shape: tuple[int, ...]) -> tuple[Any, int]:
    return _spread_p.bind(*args, shape=shape), len(shape) + dims[0]


def _gather(ct: Any, x: Any, *, shape: tuple[int, ...]) -> list[Any]:
    return [jnp.sum(ct, axis=tuple(range(len(shape))))]


_last_p.def_impl(lambda x: x)
_last_p.def_abstract_eval(lambda x: x)
mlir.register_lowering(_last_p, lambda ctx, x: [x])
batching.primitive_batchers[_last_p] = _move_last
ad.deflinear2(_last_p, lambda ct, x: [_last_p.bind(ct)])

_spread_p.def_impl(_spread)
_spread_p.def_abstract_eval(lambda x, *, shape: ShapedArray((*shape, *x.shape), x.dtype))
mlir.register_lowering(_spread_p, mlir.lower_fun(_spread, multiple_results=False))
batching.primitive_batchers[_spread_p] = _spread_lanes
ad.deflinear2(_spread_p, _gather)
