"""Memory for records that is taken, but not written to before there is something to write.

A record has room for `max_steps`, and a solve uses a fiftieth of it. `jax.lax.empty` leaves its
memory alone on accelerators and fills it with zeros on CPU: for 4096 lanes that took as long as
the whole gradient of their solve.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

# Less than this is zeroed in a few microseconds.
_LARGE = 2**16
# LAPACK's factorization of a batch of matrices, one of the calls that JAX keeps stable. Of a batch
# of no matrices it writes nothing, whatever the size of what it is asked to write to.
_FACTORIZE = {"float32": "lapack_sgetrf_ffi", "float64": "lapack_dgetrf_ffi"}

_untouched_p = Primitive("ndekit_untouched")


def uninitialized(shape: tuple[int, ...], dtype: Any, beside: Any = ()) -> Any:
    """An array of whatever numbers its memory holds; write before you read.

    It has an axis for each `jax.vmap` that maps something in `beside`: a loop that writes mapped
    numbers to an array without that axis would fill a copy for each lane first.
    """
    dtype = jnp.dtype(dtype)
    large = math.prod(shape) * dtype.itemsize >= _LARGE and dtype.name in _FACTORIZE
    # What is looked for NaNs must not hold chance ones.
    config: Any = jax.config
    left_alone = large and not config.jax_debug_nans and _is_left_alone()
    # Not `lax.empty` itself: that takes a lane axis from every `jax.vmap` around it.
    beside = lax.stop_gradient(jax.tree.leaves(beside))
    return _untouched_p.bind(*beside, shape=shape, dtype=dtype, left_alone=left_alone)


def _in_lanes(beside: Any, axes: Any, *, shape: tuple[int, ...], dtype: Any, **_: Any) -> Any:
    size = next(x.shape[a] for x, a in zip(beside, axes, strict=True) if a is not None)
    return uninitialized((size, *shape), dtype, beside), 0


def _on_cpu(*beside: Any, shape: tuple[int, ...], dtype: Any, left_alone: bool) -> Any:
    if not left_alone:
        return lax.empty(shape, dtype)
    struct = jax.ShapeDtypeStruct
    results = struct(shape, dtype), struct((0, 1), jnp.int32), struct((0,), jnp.int32)
    return jax.ffi.ffi_call(_FACTORIZE[dtype.name], results)(jnp.zeros((0, 1, 1), dtype))[0]


def _elsewhere(*beside: Any, shape: tuple[int, ...], dtype: Any, left_alone: bool) -> Any:
    return lax.empty(shape, dtype)


@functools.cache
def _is_left_alone() -> bool:
    """Whether this jaxlib takes such a call."""
    try:
        with jax.ensure_compile_time_eval(), jax.default_device(jax.devices("cpu")[0]):
            call = lambda: _on_cpu(shape=(2,), dtype=jnp.dtype("float32"), left_alone=True)
            jax.block_until_ready(jax.jit(call)())
    except Exception:  # whatever it says: there is another way
        return False
    return True


_untouched_p.def_impl(_elsewhere)
_untouched_p.def_abstract_eval(lambda *_, shape, dtype, left_alone: ShapedArray(shape, dtype))
batching.primitive_batchers[_untouched_p] = _in_lanes
mlir.register_lowering(_untouched_p, mlir.lower_fun(_elsewhere, multiple_results=False))
mlir.register_lowering(
    _untouched_p, mlir.lower_fun(_on_cpu, multiple_results=False), platform="cpu"
)
