"""A program of one device as one operation inside `jax.shard_map`, and so its reverse pass.

What goes in is cast to vary along all axes along which any of it does, and so does all that comes
out. The cast of an array that all devices share is where JAX sums its derivative over the devices,
once, outside of all loops. All that the reverse pass keeps comes out of the operation and goes into
the next: to JAX it varies, as it must where `jax.shard_map` itself is differentiated.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core
from jax.interpreters import ad, batching, mlir

from .bare_types import axes_of, no_mesh, traced_bare, varying
from .closure_convert import convert
from .own_rules import has_tangent, is_smooth, no_tangent
from .reverse_only import reverse_only

_on_each_p = jex_core.Primitive("ndekit_on_each_device")
_on_each_p.multiple_results = True


def of_each_device(
    program: jex_core.ClosedJaxpr, axes: frozenset, given: list[Any], forward: bool = False
) -> list[Any]:
    cast = lambda x: jax.lax.pcast(x, tuple(axes - axes_of(x)), to="varying")
    given = [cast(x) if axes - axes_of(x) else x for x in given]
    return _on_each_p.bind(*given, program=program, axes=axes, forward=forward)


def _run(*given: Any, program: jex_core.ClosedJaxpr, **_: Any) -> list[Any]:
    return jex_core.jaxpr_as_fun(program)(*given)


def _abstract(
    *given: Any, program: jex_core.ClosedJaxpr, axes: frozenset, forward: bool
) -> list[Any]:
    return [varying(aval, axes) for aval in program.out_avals]


def _lower(ctx: Any, *given: Any, **params: Any) -> Any:
    of_one_device = lambda avals: [varying(aval, frozenset()) for aval in avals]
    with no_mesh():
        bare = dict(avals_in=of_one_device(ctx.avals_in), avals_out=of_one_device(ctx.avals_out))
        return mlir.lower_fun(_run, multiple_results=True)(ctx.replace(**bare), *given, **params)


def _batch(
    given: Any, dims: Any, *, program: jex_core.ClosedJaxpr, axes: frozenset, forward: bool
) -> tuple[list[Any], list[Any]]:
    given, out_dims = list(map(jnp.asarray, given)), []
    kind = next(i for i, dim in enumerate(dims) if dim is not None)

    def mapped(*given: Any) -> list[Any]:
        shared: dict[int, Any] = {}

        def of_lane(*given: Any) -> list[Any]:
            # What has no lanes is not mapped by JAX, and stays so: the counters of a record.
            out = _run(*given, program=program)
            shared.update((i, x) for i, x in enumerate(out) if type(x) is not type(given[kind]))
            out_dims[:] = [None if i in shared else 0 for i in range(len(out))]
            return [x for i, x in enumerate(out) if i not in shared]

        of_lanes = iter(jax.vmap(of_lane, tuple(dims))(*given))
        return [shared[i] if dim is None else next(of_lanes) for i, dim in enumerate(out_dims)]

    return of_each_device(traced_bare(mapped, *given), axes, given, forward), out_dims


def _jvp(
    primals: Any, tangents: Any, *, program: jex_core.ClosedJaxpr, axes: frozenset, forward: bool
) -> tuple[Any, Any]:
    primals = [jnp.asarray(x) for x in primals]
    pairs = zip(primals, tangents, strict=True)
    perturbed = [is_smooth(x) and has_tangent(t) for x, t in pairs]
    rest = [None if p else x for x, p in zip(primals, perturbed, strict=True)]
    active = [x for x, p in zip(primals, perturbed, strict=True) if p]
    if forward:
        given = [t for t, p in zip(tangents, perturbed, strict=True) if p]
        return _onwards(program, axes, perturbed, primals, given)
    directions = [reverse_only(t) for t, p in zip(tangents, perturbed, strict=True) if p]
    function = _with_way_back(program, axes, perturbed)
    out, d_out = jax.jvp(lambda *active: function(list(active), rest), active, directions)
    return out, [d if is_smooth(x) else no_tangent(x) for x, d in zip(out, d_out, strict=True)]


def _onwards(
    program: jex_core.ClosedJaxpr, axes: frozenset, perturbed: list[bool], primals: list[Any],
    tangents: list[Any],
) -> tuple[list[Any], list[Any]]:  # fmt: skip
    """Values and tangents, those of integers as symbolic zeros."""

    def pushed(*given: Any) -> list[Any]:
        primals, directions = given[: len(perturbed)], iter(given[len(perturbed) :])
        nothing = lambda x: np.zeros(x.shape, jax.dtypes.float0)
        still = lambda x: jnp.zeros_like(x) if is_smooth(x) else nothing(x)
        pairs = zip(primals, perturbed, strict=True)
        along = tuple(next(directions) if p else still(x) for x, p in pairs)
        out, d_out = jax.jvp(partial(_run, program=program), primals, along)
        return [*out, *(d for x, d in zip(out, d_out, strict=True) if is_smooth(x))]

    given, number = [*primals, *tangents], len(program.out_avals)
    found = of_each_device(traced_bare(pushed, *given), axes, given, True)
    out, rest = found[:number], iter(found[number:])
    return out, [next(rest) if is_smooth(x) else no_tangent(x) for x in out]


def _with_way_back(
    program: jex_core.ClosedJaxpr, axes: frozenset, perturbed: list[bool]
) -> Callable:
    """The program as a function of (perturbed arguments, the rest) whose reverse pass is, like the
    program itself, one operation.
    """
    back: list[Any] = []

    def join(active: Any, rest: Any) -> list[Any]:
        values = iter(active)
        return [next(values) if p else x for x, p in zip(rest, perturbed, strict=True)]

    def recorded(*given: Any) -> list[Any]:
        rest = [None if p else x for x, p in zip(given, perturbed, strict=True)]
        active = [x for x, p in zip(given, perturbed, strict=True) if p]
        out, of_all = jax.vjp(lambda *active: _run(*join(active, rest), program=program), *active)
        of_floats = lambda cts: of_all(_with_float0(out, cts))
        cts = [x for x in out if is_smooth(x)]
        converted, kept = convert(of_floats, cts)
        back[:] = [converted]
        return [*out, *kept]

    @jax.custom_vjp
    def run(active: list, rest: list) -> list[Any]:
        return of_each_device(program, axes, join(active, rest))

    def forward(active: list, rest: list) -> tuple[list[Any], list[Any]]:
        given = join(active, rest)
        recording = traced_bare(recorded, *given)
        out, number = of_each_device(recording, axes, given), len(program.out_avals)
        return out[:number], out[number:]

    def backward(kept: list[Any], cts: list[Any]) -> tuple[list, None]:
        cts = [ct for ct in cts if ct.dtype != jax.dtypes.float0]
        of_kept = lambda *given: back[0](list(given[: len(kept)]), *given[len(kept) :])
        given = [*kept, *cts]
        return of_each_device(traced_bare(of_kept, *given), axes, given), None

    run.defvjp(forward, backward)
    return run


def _with_float0(out: list[Any], cts: list[Any]) -> list[Any]:
    values = iter(cts)
    nothing = lambda x: np.zeros(x.shape, jax.dtypes.float0)
    return [next(values) if is_smooth(x) else nothing(x) for x in out]


_on_each_p.def_impl(_run)
_on_each_p.def_abstract_eval(_abstract)
mlir.register_lowering(_on_each_p, _lower)
batching.primitive_batchers[_on_each_p] = _batch
ad.primitive_jvps[_on_each_p] = _jvp
