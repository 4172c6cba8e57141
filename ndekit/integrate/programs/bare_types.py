"""Programs without word of the devices along which their values vary.

Inside `jax.shard_map` JAX notes in the type of each array of which mesh it is, and along which axes
its values differ; and it casts wherever two of them meet. Here notes and casts are taken out again.
"""

from typing import Any

import jax
from jax.core import ShapedArray
from jax.extend import core as jex_core
from jax.extend import linear_util

# What only changes such a note.
_CASTS = frozenset({"pvary", "reduced_vary_cast_p"})

# Where an operation with a derivative of its own keeps it.
_RULES = frozenset({"jvp_jaxpr_fun", "fwd_jaxpr_thunk"})


def no_mesh() -> Any:
    """A context in which types speak of no mesh, as on one device."""
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ()))


def axes_of(x: Any) -> frozenset:
    """The axes of the mesh along which an array varies."""
    return jax.typeof(x).mat.varying


def varying(aval: Any, axes: frozenset) -> Any:
    """A type of what varies along these axes of the mesh that there is, if there is one."""
    if not isinstance(aval, ShapedArray):
        return aval
    aval = ShapedArray(aval.shape, aval.dtype, weak_type=aval.weak_type)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return aval
    spec = jax.sharding.PartitionSpec(*[None] * aval.ndim)
    whole = jax.sharding.NamedSharding(mesh, spec)
    return aval.update(sharding=whole, manual_axis_type=aval.mat.update(varying=axes))


def is_bare(x: Any) -> bool:
    """Whether an array's type speaks of no mesh."""
    return jax.typeof(x).sharding.mesh.empty


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
        params = {name: _bare_param(name, value, eqn.ctx) for name, value in eqn.params.items()}
        inputs, outputs = known(eqn.invars), fresh(eqn.outvars)
        context: Any = type(eqn.ctx)()  # made where there is no mesh
        eqns.append(eqn.replace(invars=inputs, outvars=outputs, params=params, ctx=context))
    outvars = known(jaxpr.outvars)
    return jaxpr.replace(constvars=constvars, invars=invars, eqns=eqns, outvars=outvars)


def _bare_param(name: str, value: Any, context: Any) -> Any:
    """What an operation is told: programs, types, and rules for derivatives that give programs."""
    if isinstance(value, jex_core.ClosedJaxpr):
        return bare_program(value)
    if isinstance(value, jex_core.Jaxpr):
        return _bare_jaxpr(value)
    if isinstance(value, ShapedArray):
        return varying(value, frozenset())
    if name in _RULES:
        return _bare_rule(value, context)
    if not isinstance(value, tuple):
        return value
    parts = [_bare_param("", x, context) for x in value]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


def _bare_rule(rule: Any, context: Any) -> Any:
    """The derivative of a `jax.custom_jvp` or `jax.custom_vjp`, a program that is made when it is
    asked for, in the context of its operation.
    """

    def made(*zeros: Any) -> Any:
        with context.manager:
            jaxpr, consts, *rest = rule.call_wrapped(*zeros)
        with no_mesh():
            return _bare_jaxpr(jaxpr), consts, *rest

    return linear_util.wrap_init(made, debug_info=rule.debug_info)
