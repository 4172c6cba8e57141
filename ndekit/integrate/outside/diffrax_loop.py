"""The other ways through the door: inside diffrax, by the engine's loop or by diffrax's own."""

import dataclasses
from typing import Any

import diffrax
import equinox as eqx
from diffrax import is_event, is_successful
from jaxtyping import PyTree

from ...shapes import Args, Time
from ..adjoint import ReplayAdjoint, WithCosts
from ..control.known_length import num_turns_of
from ..costs.contracts import Placements
from ..forward.failures import thrown
from ..prepare.resets_part import turns_with
from ..prepare.saved_along_noise import refuse_bridge
from ..prepare.step_noise import saves_on_bridge
from ..solution import Solution
from ..steppers.explicit import explicit_runge_kutta
from .recorder import recorder_beside

# What a solve is continued with.
_CONTINUED = ("solver_state", "controller_state", "made_jump", "discrete_terminating_event")


@eqx.filter_jit
def solve_in_loop(*problem: Any, adjoint: WithCosts, throw: bool, **options: Any) -> Solution:
    """Solve by the engine, prepared and dressed by diffrax."""
    if all(options[name] is None for name in ("event", *_CONTINUED)):
        _, _, t0, t1, dt0, *_ = problem
        num_turns = num_turns_of(options["stepsize_controller"], t0, t1, dt0)
        num_turns = turns_with(adjoint.resets, num_turns)
        adjoint = dataclasses.replace(adjoint, num_turns=num_turns)
    sol = diffrax.diffeqsolve(*problem, adjoint=adjoint, throw=False, **options)
    fields = _fields_of(sol)
    fields["stats"] = stats = dict(sol.stats)
    besides = stats.pop("besides")
    sol = Solution(**fields, costs=besides["costs"], resets=besides["resets"])
    bad = ~(is_successful(sol.result) | is_event(sol.result))
    y0, max_steps = problem[5], options["max_steps"]
    return thrown(sol, besides["failure"], y0, bad, max_steps) if throw else sol


def solve_through_diffrax(
    terms: PyTree,
    solver: diffrax.AbstractSolver,
    t0: Time,
    t1: Time,
    dt0: Time | None,
    y0: PyTree,
    args: Args,
    *,
    placements: Placements,
    key: Any,
    saveat: diffrax.SaveAt,
    stepsize_controller: diffrax.AbstractStepSizeController,
    adjoint: Any,
    solver_state: Any,
    **options: Any,
) -> Solution:
    """Solve in diffrax's own loop, costs read by the recorder. `options` are diffrax's keyword
    arguments, passed on unread.
    """
    if isinstance(adjoint, ReplayAdjoint):
        adjoint = diffrax.RecursiveCheckpointAdjoint(checkpoints=adjoint.checkpoints)
    _refuse_lost_gradients(adjoint, placements)
    if saves_on_bridge(terms, saveat):
        refuse_bridge("ndekit's own loop: no progress meter, no adjoint of diffrax's")
    recorder, asked = None, saveat.solver_state
    if placements:
        recorder = recorder_beside(stepsize_controller, solver, placements, key)
        saveat = eqx.tree_at(lambda s: s.solver_state, saveat, True)
        if solver_state is not None:
            _, totals = recorder.init(terms, t0, t1, y0, args)
            solver_state = (solver_state, totals)
    sol = diffrax.diffeqsolve(
        terms,
        solver if recorder is None else recorder,
        t0,
        t1,
        dt0,
        y0,
        args,
        saveat=saveat,
        stepsize_controller=stepsize_controller,
        adjoint=adjoint,
        solver_state=solver_state,
        **options,
    )
    fields = _fields_of(sol)
    fields["stats"] = dict(sol.stats) | _evals(terms, solver, sol)
    costs = {}
    if recorder is not None:
        costs = recorder.costs_of(sol)
        inner, _ = sol.solver_state  # pyright: ignore
        fields["solver_state"] = inner if asked else None
    return Solution(**fields, costs=costs)


def _fields_of(sol: diffrax.Solution) -> dict[str, Any]:
    return {name: getattr(sol, name) for name in diffrax.Solution.__dataclass_fields__}


def _refuse_lost_gradients(adjoint: Any, placements: Placements) -> None:
    lossy = (diffrax.BacksolveAdjoint, diffrax.ImplicitAdjoint)
    if placements and isinstance(adjoint, lossy):
        raise ValueError(
            f"`{type(adjoint).__name__}` cannot carry costs that are read at every step "
            f"({', '.join(map(repr, placements))}): it does not differentiate the solver's own "
            "steps. Use `ReplayAdjoint()`, read one step with `OneStep(cost)` under "
            "`BacksolveAdjoint`, or leave `costs` out."
        )


def _evals(terms: PyTree, solver: diffrax.AbstractSolver, sol: diffrax.Solution) -> dict[str, Any]:
    """True evaluations where the scheme is known: diffrax evaluates as our stepper does."""
    stepper = explicit_runge_kutta(solver)
    if stepper is None or not isinstance(terms, diffrax.ODETerm):
        return {}
    first = int(stepper.first_same_as_last)
    return {"num_evals": first + stepper.evals_per_step * sol.stats["num_steps"]}
