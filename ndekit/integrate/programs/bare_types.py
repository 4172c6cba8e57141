"""Programs without word of the devices along which their values vary.

Inside `jax.shard_map` JAX notes in the type of each array of which mesh it is, and along which axes
its values differ; and it casts wherever two of them meet. Here notes and casts are taken out again.
"""

from typing import Any

import jax
from jax.core import ShapedArray, Tracer
from jax.extend import core as jex_core
from jax.extend import linear_util
from jax.interpreters import ad, batching, mlir

# What only changes such a note.
_CASTS = frozenset({"pvary", "reduced_vary_cast_p", "ndekit_bare"})

_bare_p = jex_core.Primitive("ndekit_bare")


def no_mesh() -> Any:
    """A context in which types speak of no mesh, as on one device."""
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ()))


def axes_of(x: Any) -> frozenset:
    """The axes of the mesh along which an array varies."""
    return jax.typeof(x).mat.varying


def varying(aval: Any, axes: frozenset) -> Any:
    """A type of what varies along these axes of the mesh that there is; of none, without a mesh."""
    if not isinstance(aval, ShapedArray):
        return aval
    aval = ShapedArray(aval.shape, aval.dtype, weak_type=aval.weak_type)
    if not axes:
        return aval
    spec = jax.sharding.PartitionSpec(*[None] * aval.ndim)
    whole = jax.sharding.NamedSharding(jax.sharding.get_abstract_mesh(), spec)
    return aval.update(sharding=whole, manual_axis_type=aval.mat.update(varying=axes))


def bare(x: Any) -> Any:
    """An array as if there were no mesh."""
    return _bare_p.bind(x) if isinstance(x, Tracer) and not _is_bare(jax.typeof(x)) else x


def _is_bare(aval: Any) -> bool:
    return not isinstance(aval, ShapedArray) or aval.sharding.mesh.empty


def struct_of(x: Any) -> jax.ShapeDtypeStruct:
    """An array's shape and dtype alone."""
    aval = jax.typeof(x)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)


def traced_bare(fn: Any, *args: Any) -> jex_core.ClosedJaxpr:
    """`fn`, a function of arrays like these, as a program of one device."""
    with no_mesh():
        return jax.make_jaxpr(fn)(*map(struct_of, args))


def bare_program(program: jex_core.ClosedJaxpr) -> jex_core.ClosedJaxpr:
    """The same program, of types that speak of no mesh and without casts between them."""
    with no_mesh():
        return jex_core.ClosedJaxpr(_bare_jaxpr(program.jaxpr), program.consts)


def _bare_jaxpr(jaxpr: jex_core.Jaxpr) -> jex_core.Jaxpr:
    names: dict[Any, Any] = {}
    known = lambda atoms: [names.get(a, a) if isinstance(a, jex_core.Var) else a for a in atoms]

    def fresh(variables: Any) -> list[Any]:
        for v in variables:
            names[v] = jex_core.Var(varying(v.aval, frozenset()))
        return known(variables)

    constvars, invars, eqns = fresh(jaxpr.constvars), fresh(jaxpr.invars), []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in _CASTS:
            names.update(zip(eqn.outvars, known(eqn.invars), strict=True))
            continue
        params = {name: _bare_param(value, eqn.ctx) for name, value in eqn.params.items()}
        atoms = dict(invars=known(eqn.invars), outvars=fresh(eqn.outvars))
        eqns.append(eqn.replace(params=params, ctx=type(eqn.ctx)(), **atoms))
    outvars = known(jaxpr.outvars)
    return jaxpr.replace(constvars=constvars, invars=invars, eqns=eqns, outvars=outvars)


def _bare_param(value: Any, context: Any) -> Any:
    """What an operation is told: programs, types, and rules for derivatives that give programs."""
    if isinstance(value, jex_core.ClosedJaxpr):
        return bare_program(value)
    if isinstance(value, jex_core.Jaxpr):
        return _bare_jaxpr(value)
    if isinstance(value, ShapedArray):
        return varying(value, frozenset())
    if isinstance(value, linear_util.WrappedFun):
        return _bare_rule(value, context)
    if type(value) is tuple:
        return tuple(_bare_param(x, context) for x in value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_bare_param(x, context) for x in value))
    return value


def _bare_rule(rule: Any, context: Any) -> Any:
    """The derivative of a `jax.custom_jvp` or `jax.custom_vjp`, a program that is made when it is
    asked for, in the context of its operation.
    """

    def made(*zeros: Any) -> Any:
        with context.manager:
            jaxpr, consts, *rest = rule.call_wrapped(*zeros)
        with no_mesh():
            return _bare_jaxpr(jaxpr), list(map(bare, consts)), *rest

    return linear_util.wrap_init(made, debug_info=rule.debug_info)


def _bare_type(aval: Any) -> Any:
    with no_mesh():
        return varying(aval, frozenset())


_bare_p.def_impl(lambda x: x)
_bare_p.def_abstract_eval(_bare_type)
mlir.register_lowering(_bare_p, lambda ctx, x: [x])
batching.primitive_batchers[_bare_p] = lambda args, dims: (_bare_p.bind(*args), *dims)
ad.deflinear2(_bare_p, lambda ct, x: [ct])
