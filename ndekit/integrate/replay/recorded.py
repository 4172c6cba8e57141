"""What is known of a recorded solve before it runs: its problem, its lanes, what it is found in."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from ..forward.outcome import Outcome, Recording
from ..forward.problem import Operands, Problem
from ..forward.record import shared_by_lanes
from ..programs.lanes import Lanes
from ..programs.own_rules import is_smooth
from .curvature import Curvature
from .kept_stages import with_stages_kept
from .potential import Potential, chosen
from .refusals import refuse_lost_derivatives, times_of
from .steps_at_once import takes_steps_at_once


@dataclass(frozen=True, eq=False)
class Recorded:
    """A solve that is recorded. What is found of it: the arrays of its outcome, then those of its
    recording.
    """

    given: Problem
    problem: Problem  # as it is recorded
    lanes: Lanes
    perturbed: tuple[bool, ...]  # by which operands it can be differentiated
    alone: bool  # whether steps are noted to be replayed many at once: not under `jax.vmap`
    shapes: tuple[Outcome, Recording] | None = None

    @property
    def structure(self) -> Any:
        return jax.tree.structure(self.shapes)

    @property
    def num_values(self) -> int:
        """How many arrays the outcome has."""
        assert self.shapes is not None  # set when it is traced
        return len(jax.tree.leaves(self.shapes[0]))

    @property
    def axes(self) -> list[int | None]:
        """Where what is found has the axis of one more level of lanes; `None` for nowhere."""
        structure = self.structure
        _, recording = jax.tree.unflatten(structure, range(structure.num_leaves))
        axes: list[int | None] = [self.lanes.axis] * structure.num_leaves
        for place in jax.tree.leaves(recording.record):
            axes[place] = self.lanes.axis_of_rows
        for place in shared_by_lanes(recording.record):
            axes[place] = None
        return axes

    def serves(self, perturbed: tuple[bool, ...]) -> bool:
        """Whether the recording has what derivatives by these operands need."""
        same = perturbed == self.perturbed or self.problem.kept is None
        return same and _grid_of(self.given, perturbed) == self.problem.grid

    def chained_as(self, other: "Recorded") -> "Recorded":
        problem = dataclasses.replace(self.problem, chained=other.problem.chained)
        return dataclasses.replace(self, problem=problem)

    def curvature(
        self,
        flat: Sequence[Any],
        found: Sequence[Any],
        said: Sequence[Any],
        wanted: tuple,
        moved: tuple,
    ) -> tuple[Curvature, list[Any]]:
        """The second derivative of what is `said` of the outcome, and what it takes before the
        directions. `wanted` and `moved`: flags of operands, and one for all that is said.
        """
        smooth = tuple(map(is_smooth, flat))
        _, recording = jax.tree.unflatten(self.structure, found)
        plan = recording.record.without_states()
        arrays, treedef = jax.tree.flatten(plan)
        # What undoes a step is frozen, so states are kept here.
        problem = dataclasses.replace(
            self.given, grid=self.problem.grid, keeps_stages=False, undo=None
        )
        problem = dataclasses.replace(problem, chained=_is_chained(problem))
        flags = lambda of: (*chosen(of[0], smooth), *[of[1]] * len(said))
        potential = Potential(problem, self.lanes, smooth, treedef, not self.problem.chained)
        there = (True,) * potential.size
        new = Curvature(potential, 0, there, flags(wanted), flags(moved))
        fixed = chosen(flat, [not s for s in smooth])
        return new, [*fixed, *arrays, *chosen(flat, smooth), *said]


def recorded(problem: Problem, lanes: Lanes, perturbed: tuple[bool, ...]) -> Recorded:
    """A solve that can be differentiated by the operands that are `perturbed`."""
    refuse_lost_derivatives(problem, perturbed)
    new = dataclasses.replace(problem, grid=_grid_of(problem, perturbed))
    if problem.keeps_stages:
        new = with_stages_kept(new, jax.tree.unflatten(problem.treedef, perturbed))
    new = dataclasses.replace(new, steps_at_once=takes_steps_at_once(new, lanes))
    new = dataclasses.replace(new, chained=_is_chained(new))
    return Recorded(problem, new, lanes, perturbed, alone=new.steps_at_once)


def _is_chained(problem: Problem) -> bool:
    """Where the first stage matters beyond being part of the step, it is differentiated once as the
    last stage of the step before.
    """
    if problem.steps_at_once:  # whose steps are on their own
        return False
    asked = bool(problem.placements) or problem.interpolates or problem.returns_state
    asked = asked or problem.kept is not None
    return problem.stepper.keeps_carry or problem.moving or asked


def _grid_of(problem: Problem, perturbed: tuple[bool, ...]) -> str:
    """How the grid is differentiated, where it is one thing or another by what is perturbed."""
    flags: Operands = jax.tree.unflatten(problem.treedef, perturbed)
    if problem.moving or problem.noise is not None or not any(jax.tree.leaves(times_of(flags))):
        return problem.grid
    return "program" if problem.own_grid else "owned"
