"""Short loops inside a program, written out: a search in a table of times, for example.

On an accelerator each turn of a loop is several launches, and the path of a CDE is searched at
every step. On CPU, where a search in a loop is as fast, it is the smaller program.
"""

from typing import Any

from jax.extend import core as jex_core

from .equations import primitive_names

# Turns of a loop, and operations in one of them.
_LONGEST, _LARGEST = 16, 32
# What is better off in a loop.
_HEAVY = frozenset("while scan cond dot_general conv_general_dilated sort".split())


def without_short_loops(program: jex_core.ClosedJaxpr) -> jex_core.ClosedJaxpr:
    """The same program, its short loops over a few cheap operations unrolled."""
    jaxpr = program.jaxpr
    eqns = [_written_out(eqn) for eqn in jaxpr.eqns]
    if all(new is old for new, old in zip(eqns, jaxpr.eqns, strict=True)):
        return program
    return jex_core.ClosedJaxpr(jaxpr.replace(eqns=eqns), program.consts)


def _written_out(eqn: jex_core.JaxprEqn) -> jex_core.JaxprEqn:
    if eqn.primitive.name == "scan":
        return _unrolled(eqn)
    if eqn.primitive.name not in ("jit", "pjit"):
        return eqn
    inner = eqn.params["jaxpr"]
    program = without_short_loops(inner)
    return eqn if program is inner else eqn.replace(params=eqn.params | {"jaxpr": program})


def _unrolled(eqn: jex_core.JaxprEqn) -> jex_core.JaxprEqn:
    params: dict[str, Any] = eqn.params
    length, body = params["length"], params["jaxpr"].jaxpr
    heavy = bool(body.effects) or not _HEAVY.isdisjoint(primitive_names(body))
    if heavy or _over_rows(eqn, body) or length > _LONGEST or len(body.eqns) > _LARGEST:
        return eqn
    return eqn.replace(params=params | {"unroll": length})


def _over_rows(eqn: jex_core.JaxprEqn, body: jex_core.Jaxpr) -> bool:
    """Whether a loop reads or writes a row in each turn: those have an axis more outside."""
    outside, inside = (*eqn.invars, *eqn.outvars), (*body.invars, *body.outvars)
    shapes = lambda atoms: [v.aval.shape for v in atoms]
    return shapes(outside) != shapes(inside)
