"""Which values of a step the record keeps, so that the reverse pass runs nothing again."""

import dataclasses

import jax

from ..forward.problem import Operands, Problem
from ..programs.linearized import linearized
from ..steppers.explicit import ExplicitRungeKutta


def with_stages_kept(problem: Problem, perturbed: Operands) -> Problem:
    """The problem, its dynamics linearized by what is `perturbed` (bools) and by the state."""
    arguments = problem.dynamics.jaxpr.in_avals
    times = problem.stepper.num_times
    moves = [*perturbed.constants, *[problem.moving] * times, *[True] * (len(arguments) - times)]
    kept = linearized(problem.dynamics, moves, _read(problem))
    return dataclasses.replace(problem, kept=kept)


def _read(problem: Problem) -> list[bool]:
    """Which of the outputs of the dynamics the reverse pass reads."""
    shapes = problem.dynamics.shapes
    everything = bool(problem.placements) or problem.interpolates or problem.moving
    if isinstance(problem.stepper, ExplicitRungeKutta) or everything:
        return [True] * len(jax.tree.leaves(shapes))
    y1, *rest = shapes
    at_steps = any(plan.every for plan in problem.plans)
    same = lambda flag, of: [flag] * len(jax.tree.leaves(of))
    return same(at_steps, y1) + same(False, rest)
