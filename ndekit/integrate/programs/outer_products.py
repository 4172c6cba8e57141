r"""Sums of outer products as one product of matrices.

Where a state is one vector, each stage of a step adds $g_i h_i^T$ to the derivative by a matrix of
weights: six passes over that matrix, or one that computes everything anew for each of its entries.
Side by side, $\sum_i g_i h_i^T = [g_1 \ldots g_s] [h_1 \ldots h_s]^T$ is one product of small
matrices. (Products that are summed already, over a batch, gain nothing.)
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core as jex_core

from ...tree import sum_in_order


class _Product(NamedTuple):
    """One term of a sum: an outer product, perhaps transposed."""

    eqns: tuple[Any, ...]
    transposed: Any
    factors: tuple[Any, Any]

    @property
    def kind(self) -> Any:
        """Equal for terms that may become one."""
        shapes = tuple((v.aval.shape, v.aval.dtype) for v in self.factors)
        about = self.eqns[0].params
        return self.transposed, shapes, tuple((k, str(about[k])) for k in sorted(about))


def merge_outer_products(fn: Callable, *args: Any) -> Any:
    """`fn(*args)`, with sums of outer products as one product of matrices."""
    leaves, treedef = jax.tree.flatten(args)
    flat = lambda *leaves: fn(*jax.tree.unflatten(treedef, leaves))
    program, shapes = jax.make_jaxpr(flat, return_shape=True)(*leaves)
    out = _run(program, _plan(program.jaxpr), leaves)
    return jax.tree.unflatten(jax.tree.structure(shapes), out)


def _run(program: jex_core.ClosedJaxpr, plan: tuple, leaves: list[Any]) -> list[Any]:
    """The program, in stretches between the sums."""
    absorbed, sums = plan
    jaxpr = program.jaxpr
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*program.consts, *leaves], strict=True))
    read = lambda v: v.val if isinstance(v, jex_core.Literal) else known[v]
    stretch = []
    for eqn in jaxpr.eqns:
        if id(eqn) in sums:
            _go_on(jaxpr, stretch, known)
            known[eqn.outvars[0]] = _sum_of(sums[id(eqn)], read)
            stretch = []
        elif id(eqn) not in absorbed:
            stretch.append(eqn)
    _go_on(jaxpr, stretch, known)
    return [read(v) for v in jaxpr.outvars]


def _go_on(jaxpr: jex_core.Jaxpr, eqns: list[Any], known: dict[Any, Any]) -> None:
    """Run some equations of a program; `known` are values by variable."""
    given = dict.fromkeys(v for eqn in eqns for v in eqn.invars if isinstance(v, jex_core.Var))
    given, made = [v for v in given if v in known], [v for eqn in eqns for v in eqn.outvars]
    part = jaxpr.replace(constvars=[], invars=given, outvars=made, eqns=eqns)
    out = jex_core.jaxpr_as_fun(jex_core.ClosedJaxpr(part, []))(*[known[v] for v in given])
    known.update(zip(made, out, strict=True))


def _sum_of(terms: list[Any], read: Callable) -> Any:
    """`terms` are variables and lists of products of one kind."""
    return sum_in_order([_product_of(t, read) if isinstance(t, list) else read(t) for t in terms])


def _product_of(products: list[_Product], read: Callable) -> Any:
    params = dict(products[0].eqns[0].params)
    _, batched = params.pop("dimension_numbers")
    factors = [[read(p.factors[side]) for p in products] for side in (0, 1)]
    sides = [jnp.stack(factor, axis=-1) for factor in factors]
    contracted = tuple((side.ndim - 1,) for side in sides)
    out = lax.dot_general_p.bind(*sides, dimension_numbers=(contracted, batched), **params)
    transposed = products[0].transposed
    return out if transposed is None else lax.transpose(out, transposed)


def _plan(jaxpr: jex_core.Jaxpr) -> tuple[set[int], dict[int, list[Any]]]:
    """Equations to be left out, and the terms of each sum that takes their place."""
    made_by = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
    uses = Counter(v for eqn in jaxpr.eqns for v in eqn.invars if isinstance(v, jex_core.Var))
    uses.update(v for v in jaxpr.outvars if isinstance(v, jex_core.Var))
    alone = lambda v: None if isinstance(v, jex_core.Literal) or uses[v] > 1 else made_by.get(v)
    inner = {
        id(eqn)
        for outer in jaxpr.eqns
        if outer.primitive.name == "add_any"
        for eqn in map(alone, outer.invars)
        if eqn is not None and eqn.primitive.name == "add_any"
    }
    absorbed, sums = set(), {}
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "add_any" and id(eqn) not in inner:
            adds, terms = _flattened(eqn, alone)
            merged = _grouped(terms, alone)
            if len(merged) < len(terms):
                sums[id(eqn)] = merged
                absorbed |= {id(add) for add in adds if add is not eqn}
                groups = [term for term in merged if isinstance(term, list)]
                absorbed |= {id(e) for group in groups for p in group for e in p.eqns}
    return absorbed, sums


def _flattened(eqn: Any, alone: Callable) -> tuple[list[Any], list[Any]]:
    """The additions of a sum, and its terms in order."""
    adds, terms = [eqn], []
    for v in eqn.invars:
        part = alone(v)
        if part is not None and part.primitive.name == "add_any":
            more_adds, more_terms = _flattened(part, alone)
            adds, terms = adds + more_adds, terms + more_terms
        else:
            terms.append(v)
    return adds, terms


def _grouped(terms: list[Any], alone: Callable) -> list[Any]:
    """The terms, products of one kind together."""
    groups, rest = {}, []
    for v in terms:
        product = _product(alone(v), alone)
        if product is None:
            rest.append(v)
        else:
            groups.setdefault(product.kind, []).append((product, v))
    for group in groups.values():
        rest.append([p for p, _ in group] if len(group) > 1 else group[0][1])
    return rest


def _product(eqn: Any, alone: Callable) -> _Product | None:
    transposed, eqns = None, []
    if eqn is not None and eqn.primitive.name == "transpose":
        transposed, eqns = eqn.params["permutation"], [eqn]
        eqn = alone(eqn.invars[0])
    if eqn is None or eqn.primitive.name != "dot_general":
        return None
    contracted, _ = eqn.params["dimension_numbers"]
    if contracted[0]:
        return None
    return _Product((eqn, *eqns), transposed, tuple(eqn.invars))
