"""Two programs for one thing: the one for a single lane, and the one that `jax.vmap` maps.

Which of the two is wanted is known only when JAX comes by, perhaps long after tracing. So the first
is a primitive, whose rules for `jax.vmap` and for forward mode are those of the second.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core
from jax.interpreters import ad, batching, mlir

_one_lane_p = jex_core.Primitive("ndekit_one_lane")
_one_lane_p.multiple_results = True


def for_batch_of_one(alone: Callable, otherwise: Callable, mapped: Callable, *args: Any) -> Any:
    """`alone(*args)`; under `jax.vmap` or forward mode `otherwise(*args)`, which gives the same
    shapes. Both close over no arrays. `mapped(out)` is a tree of bools: what has a lane axis then.
    """
    leaves, treedef = jax.tree.flatten(args)
    flat = lambda fn: lambda *leaves: fn(*jax.tree.unflatten(treedef, leaves))
    program, shapes = jax.make_jaxpr(flat(alone), return_shape=True)(*leaves)
    out = _one_lane_p.bind(
        *leaves,
        program=program,
        otherwise=lambda *leaves: jax.tree.leaves(flat(otherwise)(*leaves)),
        out_axes=tuple(0 if on else None for on in jax.tree.leaves(mapped(shapes))),
    )
    return jax.tree.unflatten(jax.tree.structure(shapes), out)


def _run(*leaves: Any, program: Any, **_: Any) -> list[Any]:
    return jex_core.jaxpr_as_fun(program)(*leaves)


def _batch(leaves: Any, axes: Any, *, otherwise: Callable, out_axes: tuple, **_: Any) -> tuple:
    # What has no lanes may be NumPy's.
    out = jax.vmap(otherwise, axes, list(out_axes))(*map(jnp.asarray, leaves))
    return out, list(out_axes)


def _jvp(primals: Any, tangents: Any, *, otherwise: Callable, **_: Any) -> tuple:
    directions = [_instantiated(x, t) for x, t in zip(primals, tangents, strict=True)]
    return jax.jvp(otherwise, tuple(map(jnp.asarray, primals)), tuple(directions))


def _instantiated(primal: Any, tangent: Any) -> Any:
    if not jnp.issubdtype(primal.dtype, jnp.inexact):
        return np.zeros(primal.shape, jax.dtypes.float0)
    return ad.instantiate_zeros(tangent)


_one_lane_p.def_impl(_run)
_one_lane_p.def_abstract_eval(lambda *_, program, **__: program.out_avals)
mlir.register_lowering(_one_lane_p, mlir.lower_fun(_run, multiple_results=True))
batching.primitive_batchers[_one_lane_p] = _batch
ad.primitive_jvps[_one_lane_p] = _jvp
