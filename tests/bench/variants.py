"""The ways to solve a case that are timed beside one another."""

from collections.abc import Callable
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from cases import LARGE, MAX_STEPS, Case
from jax import lax

import ndekit as nk

# Small enough to leave the gradient what it is, large enough that nothing is optimised away.
COST_WEIGHT = 1e-6


class Variant(NamedTuple):
    """How one side solves: by which `diffeqsolve`, with which adjoint, buffer and costs."""

    solve: Callable
    adjoint: Callable
    max_steps: int = MAX_STEPS
    costs: bool = False


def diffrax_variant(adjoint: Callable, max_steps: int) -> Variant:
    return Variant(diffrax.diffeqsolve, adjoint, max_steps)


def keeping_all(number: int) -> Callable:
    return lambda: diffrax.RecursiveCheckpointAdjoint(checkpoints=number)


DIFFRAX, NDEKIT, COSTS, FLOOR = "diffrax", "ndekit", "ndekit, costs on", "floor"
EVERYWHERE = {
    DIFFRAX: diffrax_variant(diffrax.RecursiveCheckpointAdjoint, MAX_STEPS),
    NDEKIT: Variant(nk.diffeqsolve, nk.ReplayAdjoint),
    COSTS: Variant(nk.diffeqsolve, nk.ReplayAdjoint, costs=True),
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


def variants_of(name: str) -> dict[str, Variant]:
    return EVERYWHERE | FITTED if name == LARGE else EVERYWHERE


def one_solve(case: Case, variant: Variant) -> Callable:
    """`(parameters, y0) -> Solution` of one lane."""
    saveat = diffrax.SaveAt(t1=True)
    if case.num_saves is not None:
        saveat = diffrax.SaveAt(ts=jnp.linspace(0.0, case.t1, case.num_saves))
    costs = {"steps": nk.StepCount(), "error": nk.StepError(), "stiffness": nk.StepStiffness()}
    options = {"costs": costs} if variant.costs else {}

    def solve(parameters, y0):
        return variant.solve(
            diffrax.ODETerm(lambda t, y, args: case.field(t, y, args)), diffrax.Tsit5(),
            0.0, case.t1, case.dt0, y0, parameters,
            saveat=saveat,
            stepsize_controller=diffrax.PIDController(rtol=case.tolerance, atol=case.tolerance),
            adjoint=variant.adjoint(),
            max_steps=variant.max_steps,
            **options,
        )  # fmt: skip

    return solve


def forward(case: Case, variant: Variant) -> Callable:
    """A new function `(parameters, y0) -> (ys, costs)`."""
    solve = one_solve(case, variant)

    def one(parameters, y0):
        sol = solve(parameters, y0)
        return sol.ys, sol.costs if variant.costs else {}

    return case.over_lanes(one)


def gradient_of(solve: Callable) -> Callable:
    """The gradient of the sum of squares of what `solve` gives, and of a little of each cost."""

    def loss(parameters, y0):
        ys, costs = solve(parameters, y0)
        return jnp.sum(ys**2) + COST_WEIGHT * sum(jnp.sum(cost) for cost in costs.values())

    return jax.grad(loss)


def floor(case: Case, num_evals: int) -> Callable:
    """As many evaluations of the field in a plain scan: no step control, no stages, no record."""

    def one(parameters, y0):
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
