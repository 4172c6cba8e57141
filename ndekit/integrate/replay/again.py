r"""Derivatives of every order of a recorded solve, by forward mode over one reverse pass.

On its recorded grid a solve is a function $F(x)$ of its operands, and its reverse pass is the
gradient of $\varphi(x, c) = \langle c, F(x) \rangle$, with $c$ what the loss says of the outcome:
$\nabla_x \varphi = F'(x)^T c$ and $\nabla_c \varphi = F(x)$. The derivative of a gradient is
symmetric. So

$$\varphi''(z) \, \dot z, \qquad z = (x, c),$$

which forward mode over the loops gives, is also what reverse mode over the reverse pass asks for:
no loop is reversed twice. And it is the gradient of $\langle \nabla \varphi(z), \dot z \rangle$ by
$(z, \dot z)$, so that the same holds for its own derivatives.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad

from ..forward import stepping
from ..forward.loop import Outcome, Solved, record_forward
from ..forward.problem import Operands, Problem
from ..forward.record import Record, shared_by_lanes
from ..programs.lanes import Lanes
from ..programs.own_rules import (
    AbstractProgram,
    has_tangent,
    instantiated,
    mapped,
    no_tangent,
    operation,
    placed,
)
from .backwards import replay


@dataclass(frozen=True, eq=False)
class Potential:
    r"""$\varphi$ of a solve whose grid is known. $z$ is a list: the operands that are `smooth`, and
    the cotangents of those of the outcome's arrays that have any.
    """

    problem: Problem
    lanes: Lanes
    smooth: tuple[bool, ...]
    plan: Any  # the structure of the record without its states

    @property
    def num_operands(self) -> int:
        return sum(self.smooth)

    @property
    def size(self) -> int:
        """The length of $z$."""
        return self.num_operands + sum(map(is_smooth, jax.tree.leaves(self.problem.outcome)))

    def gradient(self, order: int, known: tuple, z: list, wanted: tuple[bool, ...]) -> list:
        r"""$\nabla \varphi$, or of its directional derivative of this order by $z$ and directions;
        `None` for parts that are not `wanted`. `known`: the operands that are not smooth, and the
        grid.
        """
        if order == 0:
            return self._gradient(known, z, wanted)
        half = len(z) // 2
        either = tuple(a or b for a, b in zip(wanted[:half], wanted[half:], strict=True))
        along = lambda z: self.gradient(order - 1, known, z, either)
        value, tangent = jax.jvp(along, (z[:half],), (z[half:],))
        return [*tangent, *value]

    def _gradient(self, known: tuple, z: list, wanted: tuple[bool, ...]) -> list:
        fixed, plan = known
        rest, number = iter(fixed), self.num_operands
        operands, said = iter(z[:number]), z[number:]
        flat = [next(operands if smooth else rest) for smooth in self.smooth]
        if not self.problem.chained:
            flat = self._with_first_stage(flat)
        record: Record = jax.tree.unflatten(self.plan, plan)
        outcome, recording = record_forward(self.problem, self.lanes, False, flat, record)
        values = list(filter(is_smooth, jax.tree.leaves(outcome)))
        by_operand = wanted[:number]
        if not any(by_operand):
            return [*[None] * number, *values]
        flags = iter(by_operand)
        perturbed = tuple(smooth and next(flags) for smooth in self.smooth)
        solved, ct = Solved(flat, outcome, recording), with_cotangents(outcome, said)
        found = iter(replay(self.problem, self.lanes, perturbed, False, solved, ct))
        pulled = [next(found) if is_wanted else None for is_wanted in by_operand]
        each = zip(pulled, z, by_operand, strict=False)
        zeros = [jnp.zeros_like(x) if ct is None and wanted else ct for ct, x, wanted in each]
        return [*zeros, *values]

    def _with_first_stage(self, flat: list) -> list:
        """The operands with the first carry as a function of the state: a reverse pass that takes
        each step as one gives it no cotangent of its own.
        """

        def carry_of(flat: list, _: Any) -> Any:
            operands: Operands = jax.tree.unflatten(self.problem.treedef, flat)
            dynamics = stepping.dynamics_of(self.problem, operands)
            return self.problem.stepper.init(dynamics, operands.t0, operands.y0)

        operands: Operands = jax.tree.unflatten(self.problem.treedef, flat)
        carry0 = self.lanes.map(carry_of)(flat, None)
        return jax.tree.leaves(dataclasses.replace(operands, carry0=carry0))

    def within(self, has_lane: tuple[bool, ...]) -> "Potential":
        return dataclasses.replace(self, lanes=self.lanes.within(has_lane))


@dataclass(frozen=True, eq=False)
class Curvature(AbstractProgram):
    r"""Of $\varphi''(z) \dot z$ the parts that are `wanted`, by the parts of $\dot z$ that are
    `moved`; linear in them, and its own transpose.

    Takes the operands that are not smooth, the grid, $z$, and the moved parts of $\dot z$. Of order
    k, $z$ is that of the directional derivative: $z$ and $\dot z$ of order k - 1.
    """

    primitive = operation("ndekit_curvature")

    potential: Potential
    order: int
    wanted: tuple[bool, ...]
    moved: tuple[bool, ...]

    def run(self, *arrays: Any) -> list[Any]:
        fixed, plan, z, directions = self._split(arrays)

        def of(moving: list) -> list:
            values = iter(moving)
            own = [next(values) if m else x for x, m in zip(z, self.moved, strict=True)]
            found = self.potential.gradient(self.order, (fixed, plan), own, self.wanted)
            return chosen(found, self.wanted)

        return jax.jvp(of, (chosen(z, self.moved),), (directions,))[1]

    def avals(self, *arrays: Any) -> list[Any]:
        return [x.update(weak_type=False) for x in chosen(self._split(arrays)[2], self.wanted)]

    def transpose(self, cts: Sequence[Any], arrays: Sequence[Any]) -> list[Any]:
        *known, directions = self._split(arrays)
        swapped = dataclasses.replace(self, wanted=self.moved, moved=self.wanted)
        before = [x for part in known for x in part]
        found = swapped(*before, *map(instantiated, cts))
        linear = map(ad.is_undefined_primal, directions)
        pulled = [x if is_linear else None for x, is_linear in zip(found, linear, strict=True)]
        return [None] * len(before) + pulled

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        found = self(*primals)
        return found, self.tangents(found, primals, tangents)

    def tangents(self, found: list, arrays: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
        """Of what was `found`: one order higher."""
        fixed, plan, z, directions = self._split(arrays)
        _, _, d_z, d_directions = self._split(tangents)
        given, d_given = iter(directions), iter(d_directions)
        each = list(zip(z, self.moved, strict=True))
        direction = [next(given) if is_moved else jnp.zeros_like(x) for x, is_moved in each]
        d_direction = [next(d_given) if is_moved else no_tangent(x) for x, is_moved in each]
        steps = [*d_z, *d_direction]
        moved = tuple(map(has_tangent, steps))
        if not any(moved):
            return list(map(no_tangent, found))
        wanted = (*self.wanted, *[False] * len(z))
        higher = Curvature(self.potential, self.order + 1, wanted, moved)
        return higher(*fixed, *plan, *z, *direction, *chosen(steps, moved))

    def of_operands(self, values: Sequence[Any], given: Sequence[Any]) -> list[Any]:
        """Tangents of all that is `given` before directions, from those of the solve's operands."""
        potential = self.potential
        known = len(given) - potential.size
        own = chosen(values, potential.smooth)
        return [*map(no_tangent, given[:known]), *own, *map(no_tangent, given[known + len(own) :])]

    def batch(self, arrays: list[Any], axes: tuple[int | None, ...]) -> tuple[list[Any], list]:
        has_lane = self._has_lane(axes)
        targets = self._targets(axes, has_lane)
        if targets is None:
            return mapped(self, arrays, axes)
        new = dataclasses.replace(self, potential=self.potential.within(has_lane))
        out = new(*placed(arrays, axes, targets))
        return out, [x.ndim - 1 if self.potential.lanes.last else 0 for x in out]

    def _has_lane(self, axes: Sequence[int | None]) -> tuple[bool, ...]:
        """Which of the solve's operands are mapped."""
        fixed, _, z, _ = self._split(axes)
        potential = self.potential
        copies = [z[i :: potential.size] for i in range(potential.num_operands)]
        own, rest = iter(copies), iter(fixed)
        each = [next(own) if smooth else [next(rest)] for smooth in potential.smooth]
        return tuple(any(axis is not None for axis in of_one) for of_one in each)

    def _targets(self, axes: Sequence[int | None], has_lane: tuple[bool, ...]) -> list | None:
        """Where each array has its lanes, if the solve may have one more level of them. Not if
        something that all lanes share has a direction or a derivative in each of them.
        """
        potential, where = self.potential, lambda flag: self.potential.lanes.axis if flag else None
        each = list(zip(has_lane, potential.smooth, strict=True))
        said = [True] * (potential.size - potential.num_operands)
        in_lanes = [*[lane for lane, smooth in each if smooth], *said] * 2**self.order
        directions = self._split(axes)[3]
        apart = any(
            axis is not None and not lane
            for axis, lane in zip(directions, chosen(in_lanes, self.moved), strict=True)
        )
        if apart or not any(has_lane) or not all(chosen(in_lanes, self.wanted)):
            return None
        fixed = [lane for lane, smooth in each if not smooth]
        moved = chosen(in_lanes, self.moved)
        own = lambda flags: [where(flag) for flag in flags]
        return [*own(fixed), *self._axes_of_plan(), *own(in_lanes), *own(moved)]

    def _axes_of_plan(self) -> list[int | None]:
        plan, lanes = self.potential.plan, self.potential.lanes
        numbered: Record = jax.tree.unflatten(plan, range(plan.num_leaves))
        shared = shared_by_lanes(numbered)
        axis = lanes.axis if lanes.last else lanes.axis + 1
        return [None if place in shared else axis for place in range(plan.num_leaves)]

    def _split(self, arrays: Sequence[Any]) -> tuple[list, list, list, list]:
        """The operands that are not smooth, the grid, z and the directions."""
        potential = self.potential
        rest = iter(arrays)
        fixed = [next(rest) for smooth in potential.smooth if not smooth]
        plan = [next(rest) for _ in range(potential.plan.num_leaves)]
        return fixed, plan, [next(rest) for _ in self.moved], list(rest)


def with_cotangents(outcome: Outcome, said: Sequence[Any]) -> Outcome:
    """The cotangents of those of the outcome's arrays that have any, in its structure."""
    rest = iter(said)
    fill = lambda x: next(rest) if is_smooth(x) else jnp.zeros_like(x)
    return jax.tree.map(fill, outcome)


def is_smooth(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def chosen(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    return [x for x, ischosen in zip(values, flags, strict=True) if ischosen]
