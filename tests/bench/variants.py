"""The ways to solve a case that are timed beside one another."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from cases import MAX_STEPS, Case
from jax import lax
from targets import TARGETS

import ndekit as nk

# Small enough to leave the gradient what it is, large enough that nothing is optimised away.
COST_WEIGHT = 1e-6


class Variant(NamedTuple):
    """How one side solves: by which `diffeqsolve`, with which adjoint, buffer and costs."""

    solve: Callable
    adjoint: Callable
    max_steps: int = MAX_STEPS
    costs: bool = False
    end_alone: bool = False


def diffrax_variant(adjoint: Callable, max_steps: int) -> Variant:
    return Variant(diffrax.diffeqsolve, adjoint, max_steps)


def keeping_all(number: int) -> Callable:
    return lambda: diffrax.RecursiveCheckpointAdjoint(checkpoints=number)


DIFFRAX, NDEKIT, COSTS, FLOOR = "diffrax", "ndekit", "ndekit, costs on", "floor"
END_ALONE = "ndekit, end value alone"
EVERYWHERE = {
    DIFFRAX: diffrax_variant(diffrax.RecursiveCheckpointAdjoint, MAX_STEPS),
    NDEKIT: Variant(nk.diffeqsolve, nk.ReplayAdjoint),
}
# Where a buffer that just fits is affordable, these are diffrax's fastest.
FITTED = {
    "diffrax, checkpoints=max_steps=32": diffrax_variant(keeping_all(32), 32),
    "diffrax, checkpoints=max_steps=16": diffrax_variant(keeping_all(16), 16),
    "diffrax, direct, max_steps=32": diffrax_variant(diffrax.DirectAdjoint, 32),
    "diffrax, direct, max_steps=16": diffrax_variant(diffrax.DirectAdjoint, 16),
    "ndekit, max_steps=32": Variant(nk.diffeqsolve, nk.ReplayAdjoint, 32),
    "ndekit, max_steps=16": Variant(nk.diffeqsolve, nk.ReplayAdjoint, 16),
}


# Beside a target of their own.
ASKED = {
    "costs": {COSTS: Variant(nk.diffeqsolve, nk.ReplayAdjoint, costs=True)},
    "saves": {END_ALONE: Variant(nk.diffeqsolve, nk.ReplayAdjoint, end_alone=True)},
    "beside_the_best": FITTED,
}


def variants_of(name: str) -> dict[str, Variant]:
    asked = [variants for target, variants in ASKED.items() if target in TARGETS[name]]
    return dict(itertools.chain(EVERYWHERE.items(), *(variants.items() for variants in asked)))


def one_solve(case: Case, variant: Variant) -> Callable:
    """`(parameters, given) -> Solution` of one lane."""
    costs = {"steps": nk.StepCount(), "error": nk.StepError(), "stiffness": nk.StepStiffness()}
    options = {"costs": costs} if variant.costs else {}

    def solve(parameters, given):
        terms, y0 = case.start(parameters, given)
        if variant.solve is diffrax.diffeqsolve:
            terms = case.for_diffrax(terms)
        return variant.solve(
            terms, case.solver, 0.0, case.t1, case.dt0, y0, parameters,
            saveat=diffrax.SaveAt(t1=True) if variant.end_alone else case.saveat,
            stepsize_controller=case.controller,
            adjoint=variant.adjoint(),
            max_steps=variant.max_steps,
            **options,
        )  # fmt: skip

    return solve


def forward(case: Case, variant: Variant) -> Callable:
    """A new function `(parameters, given) -> (ys, costs)`."""
    solve = one_solve(case, variant)

    def one(parameters, given):
        sol = solve(parameters, given)
        return sol.ys, sol.costs if variant.costs else {}

    return case.over_lanes(one)


def gradient_of(solve: Callable) -> Callable:
    """The gradient of the sum of squares of what `solve` gives, and of a little of each cost."""

    def loss(parameters, given):
        ys, costs = solve(parameters, given)
        return jnp.sum(ys**2) + COST_WEIGHT * sum(jnp.sum(cost) for cost in costs.values())

    return jax.grad(loss)


def floor(case: Case, num_evals: int) -> Callable:
    """The solve by hand; else as many evaluations of the field in a plain scan: no step control, no
    stages, no record.
    """

    def one(parameters, y0):
        if case.by_hand is not None:
            return case.by_hand(parameters, y0), {}
        advance = lambda y, _: (y + 1e-3 * case.field(0.0, y, parameters), None)
        y1, _ = lax.scan(advance, y0, None, length=num_evals)
        return y1, {}

    return case.over_lanes(one)


def works(case: Case, variant: Variant) -> dict[str, Callable]:
    """New function objects, so that whoever compiles them starts from nothing."""
    return {
        "forward": forward(case, variant),
        "gradient": gradient_of(forward(case, variant)),
    }


def floor_works(case: Case, num_evals: int) -> dict[str, Callable]:
    return {"forward": floor(case, num_evals), "gradient": gradient_of(floor(case, num_evals))}
