"""Solves inside `jax.shard_map`, as each device makes them on its own.

With its checks on, `jax.shard_map` wants every loop to say which of its values differ between
devices: those of our loops, of diffrax's, and of the libraries below. But nothing in a solve speaks
across devices. So a solve is traced as if there were one device, and meets JAX as one operation:
what goes in is cast to vary along all axes along which any of it does, and so does all that comes
out. The cast of an array that all devices share is where JAX sums its derivative over the devices,
once, outside of all loops.
"""

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core as jex_core
from jax.interpreters import ad, batching, mlir

from .bare_types import axes_of, bare, bare_program, no_mesh, struct_of, traced_bare, varying
from .closure_convert import convert
from .reverse_only import reverse_only

_on_each_p = jex_core.Primitive("ndekit_on_each_device")
_on_each_p.multiple_results = True


class _DoesMore(Exception):
    """A program that does more than compute, such as speak with other devices."""


def on_each_device(fn: Callable, *args: Any) -> Any:
    """`fn(*args)`, of which JAX does not see the inside where it would ask for axes of a mesh. What
    does more than compute runs as it is.
    """
    if not _are_axes_checked():
        return fn(*args)
    try:
        program, given, finished = _traced(fn, args)
    except _DoesMore:
        return fn(*args)
    axes = frozenset().union(*map(axes_of, given))
    bound = _bind if axes else lambda program, axes, given: _run(*given, program=program, axes=axes)
    return finished(bound(program, axes, given))


def _are_axes_checked() -> bool:
    names = jax.sharding.get_abstract_mesh().manual_axes
    return bool(names) and bool(axes_of(jax.lax.pcast(jnp.zeros(()), tuple(names), to="varying")))


def _traced(fn: Callable, args: Any) -> tuple[jex_core.ClosedJaxpr, list[Any], Callable]:
    """`fn` as a program, the arrays that it takes, and what makes its result of what it gives."""
    leaves, treedef = jax.tree.flatten(args)
    traced = [i for i, x in enumerate(leaves) if isinstance(x, Tracer)]
    mesh = jax.sharding.get_abstract_mesh()
    leaves = [_without_closure(mesh, x) for x in leaves]
    rest: list[Any] = []

    def flat(*arrays: Any) -> list[Any]:
        values = dict(zip(traced, arrays, strict=True))
        out = fn(*jax.tree.unflatten(treedef, [values.get(i, x) for i, x in enumerate(leaves)]))
        found, other = eqx.partition(out, lambda x: isinstance(x, Tracer))
        found, structure = jax.tree.flatten(found)
        rest[:] = structure, other
        return found

    given = [leaves[i] for i in traced]
    program = traced_bare(flat, *given)
    if program.effects:
        raise _DoesMore
    program, constants = _with_constants_given(bare_program(program))
    structure, other = rest
    finished = lambda found: eqx.combine(jax.tree.unflatten(structure, found), other)
    return program, [*constants, *given], finished


def _with_constants_given(
    program: jex_core.ClosedJaxpr,
) -> tuple[jex_core.ClosedJaxpr, list[Any]]:
    """The program with the traced ones among its constants as its first arguments."""
    jaxpr, pairs = program.jaxpr, list(zip(program.jaxpr.constvars, program.consts, strict=True))
    given = [(v, c) for v, c in pairs if isinstance(c, Tracer)]
    kept = [(v, c) for v, c in pairs if not isinstance(c, Tracer)]
    invars = [*(v for v, _ in given), *jaxpr.invars]
    info = jaxpr.debug_info._replace(arg_names=None, result_paths=None)
    jaxpr = jaxpr.replace(constvars=[v for v, _ in kept], invars=invars, debug_info=info)
    return jex_core.ClosedJaxpr(jaxpr, [c for _, c in kept]), [c for _, c in given]


def _without_closure(mesh: Any, leaf: Any) -> Any:
    """A function that may close over arrays of the mesh, its inside traced on its own."""
    inner = inspect.unwrap(leaf) if callable(leaf) else leaf
    closed = isinstance(inner, types.FunctionType) and inner.__closure__
    if closed or isinstance(inner, (functools.partial, types.MethodType)):
        return functools.partial(_apart, mesh, leaf)
    return leaf


def _apart(mesh: Any, fn: Callable, *args: Any, **kwargs: Any) -> Any:
    arrays, rest = eqx.partition((args, kwargs), eqx.is_array)
    leaves, treedef = jax.tree.flatten(arrays)

    def run(*leaves: Any) -> Any:
        args, kwargs = eqx.combine(jax.tree.unflatten(treedef, leaves), rest)
        return fn(*args, **kwargs)

    with jax.sharding.use_abstract_mesh(mesh):
        program, shapes = jax.make_jaxpr(run, return_shape=True)(*map(struct_of, leaves))
    if program.effects:
        raise _DoesMore
    program = bare_program(program)
    program = jex_core.ClosedJaxpr(program.jaxpr, list(map(bare, program.consts)))
    out = jex_core.jaxpr_as_fun(program)(*leaves)
    return jax.tree.unflatten(jax.tree.structure(shapes), out)


def _bind(program: jex_core.ClosedJaxpr, axes: frozenset, given: list[Any]) -> list[Any]:
    cast = lambda x: jax.lax.pcast(x, tuple(axes - axes_of(x)), to="varying")
    given = [cast(x) if axes - axes_of(x) else x for x in given]
    return _on_each_p.bind(*given, program=program, axes=axes)


def _run(*given: Any, program: jex_core.ClosedJaxpr, axes: frozenset) -> list[Any]:
    return jex_core.jaxpr_as_fun(program)(*given)


def _abstract(*_: Any, program: jex_core.ClosedJaxpr, axes: frozenset) -> list[Any]:
    return [varying(aval, axes) for aval in program.out_avals]


def _lower(ctx: Any, *given: Any, **params: Any) -> Any:
    of_one_device = lambda avals: [varying(aval, frozenset()) for aval in avals]
    with no_mesh():
        bare = dict(avals_in=of_one_device(ctx.avals_in), avals_out=of_one_device(ctx.avals_out))
        return mlir.lower_fun(_run, multiple_results=True)(ctx.replace(**bare), *given, **params)


def _batch(
    given: Any, dims: Any, *, program: jex_core.ClosedJaxpr, axes: frozenset
) -> tuple[list[Any], list[Any]]:
    given, out_dims = list(map(jnp.asarray, given)), []
    kind = next(i for i, dim in enumerate(dims) if dim is not None)

    def mapped(*given: Any) -> list[Any]:
        shared: dict[int, Any] = {}

        def of_lane(*given: Any) -> list[Any]:
            # What has no lanes is not mapped by JAX, and stays so: the counters of a record.
            out = _run(*given, program=program, axes=axes)
            shared.update((i, x) for i, x in enumerate(out) if type(x) is not type(given[kind]))
            out_dims[:] = [None if i in shared else 0 for i in range(len(out))]
            return [x for i, x in enumerate(out) if i not in shared]

        of_lanes = iter(jax.vmap(of_lane, tuple(dims))(*given))
        return [shared[i] if dim is None else next(of_lanes) for i, dim in enumerate(out_dims)]

    return _bind(traced_bare(mapped, *given), axes, given), out_dims


def _jvp(
    primals: Any, tangents: Any, *, program: jex_core.ClosedJaxpr, axes: frozenset
) -> tuple[Any, Any]:
    primals = [jnp.asarray(x) for x in primals]
    is_float = [jnp.issubdtype(x.dtype, jnp.inexact) for x in primals]
    perturbed = [ok and type(t) is not ad.Zero for ok, t in zip(is_float, tangents, strict=True)]
    rest = [None if p else x for x, p in zip(primals, perturbed, strict=True)]
    active = [x for x, p in zip(primals, perturbed, strict=True) if p]
    directions = [reverse_only(t) for t, p in zip(tangents, perturbed, strict=True) if p]
    function = _with_way_back(program, axes, perturbed)
    out, d_out = jax.jvp(lambda *active: function(list(active), rest), active, directions)
    return out, [_without_float0(d) for d in d_out]


def _without_float0(tangent: Any) -> Any:
    if tangent.dtype == jax.dtypes.float0:
        return ad.Zero(jax.core.ShapedArray(tangent.shape, tangent.dtype))
    return tangent


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
        out, of_all = jax.vjp(
            lambda *active: _run(*join(active, rest), program=program, axes=axes), *active
        )
        of_floats = lambda cts: of_all(_with_float0(out, cts))
        cts = [x for x in out if jnp.issubdtype(x.dtype, jnp.inexact)]
        converted, kept = convert(of_floats, cts)
        back[:] = [converted]
        return [*out, *kept]

    @jax.custom_vjp
    def run(active: list, rest: list) -> list[Any]:
        return _bind(program, axes, join(active, rest))

    def forward(active: list, rest: list) -> tuple[list[Any], list[Any]]:
        given = join(active, rest)
        recording = traced_bare(recorded, *given)
        out, number = _bind(recording, axes, given), len(program.out_avals)
        return out[:number], out[number:]

    def backward(kept: list[Any], cts: list[Any]) -> tuple[list, None]:
        cts = [ct for ct in cts if ct.dtype != jax.dtypes.float0]
        of_kept = lambda *given: back[0](list(given[: len(kept)]), *given[len(kept) :])
        given = [*kept, *cts]
        return _bind(traced_bare(of_kept, *given), axes, given), None

    run.defvjp(forward, backward)
    return run


def _with_float0(out: list[Any], cts: list[Any]) -> list[Any]:
    values = iter(cts)
    is_float = lambda x: jnp.issubdtype(x.dtype, jnp.inexact)
    nothing = lambda x: np.zeros(x.shape, jax.dtypes.float0)
    return [next(values) if is_float(x) else nothing(x) for x in out]


_on_each_p.def_impl(_run)
_on_each_p.def_abstract_eval(_abstract)
mlir.register_lowering(_on_each_p, _lower)
batching.primitive_batchers[_on_each_p] = _batch
ad.primitive_jvps[_on_each_p] = _jvp
