"""What one reads in a program: names of operations, variables, and which equations are needed."""

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from jax.extend import core as jex_core


def primitive_names(jaxpr: jex_core.Jaxpr) -> set[str]:
    """The names of all primitives in a jaxpr, those of inner jaxprs included."""
    return set().union(*map(names_of, jaxpr.eqns))


def names_of(eqn: jex_core.JaxprEqn) -> set[str]:
    """The name of its primitive, and of those inside it."""
    inner = map(primitive_names, jex_core.jaxprs_in_params(eqn.params))
    return {eqn.primitive.name}.union(*inner)


def variables(atoms: Iterable[Any]) -> list[Any]:
    """All but the literals."""
    return [v for v in atoms if isinstance(v, jex_core.Var)]


def needed_for(
    wanted: Iterable[Any],
    eqns: Sequence[Any],
    known: AbstractSet[Any] = frozenset(),
    besides: Callable[[Any], bool] = lambda eqn: False,
) -> list[Any]:
    """Those equations by which `wanted` are computed from `known` and what has none, and those
    that `besides` says, with what they need.
    """
    needed, kept = set(variables(wanted)) - known, []
    for eqn in reversed(eqns):
        if needed.intersection(eqn.outvars) or besides(eqn):
            kept.append(eqn)
            needed |= set(variables(eqn.invars)) - known
    return kept[::-1]
