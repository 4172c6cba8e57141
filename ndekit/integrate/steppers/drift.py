"""What the engine asks of the terms of an SDE."""

from typing import Any

import diffrax
import equinox as eqx

from ...shapes import Args, State, Time


def counted_drift(terms: Any) -> tuple[Any, list[None]]:
    """The terms of an SDE, and a list that grows with each call of the drift while it is traced."""
    calls: list[None] = []
    drift = terms.terms[0].term

    def field(t: Time, y: State, args: Args) -> State:
        calls.append(None)
        return drift.vector_field(t, y, args)

    term: Any = diffrax.ODETerm(field)
    return eqx.tree_at(lambda terms: terms.terms[0].term, terms, term), calls


def drift_evals(solver: diffrax.AbstractSolver, calls: list[None]) -> int:
    """Evaluations of the drift in one step, from those seen while it was traced."""
    # `ReversibleHeun` evaluates at the start of a step as well, but of the first one only.
    return len(calls) - int(type(solver) is diffrax.ReversibleHeun)


def is_sde(terms: Any) -> bool:
    """Whether the terms, as diffrax prepares them, are a drift and Brownian noise."""
    if not isinstance(terms, diffrax.MultiTerm) or len(terms.terms) < 2:
        return False
    inner = [getattr(term, "term", term) for term in terms.terms]
    is_noise = lambda term: isinstance(getattr(term, "control", None), diffrax.AbstractBrownianPath)
    return type(inner[0]) is diffrax.ODETerm and all(map(is_noise, inner[1:]))
