"""The second derivative of a solve as a linear program that is its own transpose."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend import core as jex_core
from jax.interpreters import ad

from ..forward.record import Record, shared_by_lanes
from ..programs.equations import primitive_names
from ..programs.own_rules import (
    AbstractProgram,
    has_tangent,
    instantiated,
    mapped,
    no_tangent,
    operation,
    placed,
)
from .potential import Potential, chosen, put


@dataclass(frozen=True, eq=False)
class Curvature(AbstractProgram):
    r"""Of $\varphi''(z) \dot z$ the parts that are `wanted`, by the parts of $\dot z$ that are
    `moved`; linear in them.

    Takes the operands that are not smooth, the grid, $z$, and the moved parts of $\dot z$. Of order
    k, $z$ is that of a directional derivative: $z$ and $\dot z$ of order k - 1, where the latter
    need not be `there`.
    """

    primitive = operation("ndekit_curvature")

    potential: Potential
    order: int
    there: tuple[bool, ...]
    wanted: tuple[bool, ...]
    moved: tuple[bool, ...]

    def run(self, *arrays: Any) -> list[Any]:
        fixed, plan, z, directions = self._split(arrays)

        def of(moving: list) -> list:
            own = put(moving, self.moved, z)
            found = self.potential.gradient(self.order, (fixed, plan), own, self.wanted)
            return chosen(found, self.wanted)

        tangents = lambda moving, directions: jax.jvp(of, (moving,), (directions,))[1]
        given = (chosen(z, self.moved), directions)
        program = jax.make_jaxpr(tangents)(*given)
        _refuse_lost_tangents(program)
        return jex_core.jaxpr_as_fun(program)(*jax.tree.leaves(given))

    def avals(self, *arrays: Any) -> list[Any]:
        return [x.update(weak_type=False) for x in chosen(self._split(arrays)[2], self.wanted)]

    def transpose(self, cts: Sequence[Any], arrays: Sequence[Any]) -> list[Any]:
        known, directions = arrays[: -sum(self.moved)], arrays[-sum(self.moved) :]
        swapped = dataclasses.replace(self, wanted=self.moved, moved=self.wanted)
        found = swapped(*known, *map(instantiated, cts))
        each = zip(found, directions, strict=True)
        pulled = [x if ad.is_undefined_primal(direction) else None for x, direction in each]
        return [*[None] * len(known), *pulled]

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        found = self(*primals)
        return found, self.tangents(found, primals, tangents)

    def tangents(self, found: list, arrays: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
        """Of what was `found`: one order higher."""
        fixed, plan, z, directions = self._split(arrays)
        _, _, d_z, d_directions = self._split(tangents)
        nothing: list[Any] = [None] * len(z)
        steps = [*d_z, *put(d_directions, self.moved, nothing)]
        moved = tuple(step is not None and has_tangent(step) for step in steps)
        if not any(moved):
            return list(map(no_tangent, found))
        of_z = [*z, *put(directions, self.moved, nothing)]
        higher = Curvature(
            self.potential,
            self.order + 1,
            there=tuple(x is not None for x in of_z),
            wanted=(*self.wanted, *[False] * len(z)),
            moved=moved,
        )
        given = chosen(of_z, higher.there)
        return higher(*fixed, *plan, *given, *chosen(steps, moved))

    def of_operands(self, values: Sequence[Any], given: Sequence[Any]) -> list[Any]:
        """Tangents of all that is `given` before directions, from those of the solve's operands."""
        potential = self.potential
        known = len(given) - potential.size
        own = chosen(values, potential.smooth)
        return [*map(no_tangent, given[:known]), *own, *map(no_tangent, given[known + len(own) :])]

    def batch(self, arrays: list[Any], axes: tuple[int | None, ...]) -> tuple[list[Any], list]:
        has_lane, lanes = self._has_lane(axes), self.potential.lanes
        targets = self._targets(axes, has_lane)
        if targets is None:
            return mapped(self, arrays, axes)
        within = dataclasses.replace(self.potential, lanes=lanes.within(has_lane))
        out = dataclasses.replace(self, potential=within)(*placed(arrays, axes, targets))
        return out, list(lanes.axes_of(out))

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
        potential = self.potential
        each = list(zip(has_lane, potential.smooth, strict=True))
        said = [True] * (potential.size - potential.num_operands)
        in_lanes = [*[lane for lane, smooth in each if smooth], *said] * 2**self.order
        moved = chosen(in_lanes, self.moved)
        directions = zip(self._split(axes)[3], moved, strict=True)
        apart = any(axis is not None and not lane for axis, lane in directions)
        if apart or not any(has_lane) or not all(chosen(in_lanes, self.wanted)):
            return None
        fixed = [lane for lane, smooth in each if not smooth]
        where = potential.lanes.where
        own = where(chosen(in_lanes, self.there))
        return [*where(fixed), *self._axes_of_plan(), *own, *where(moved)]

    def _axes_of_plan(self) -> list[int | None]:
        plan, axis = self.potential.plan, self.potential.lanes.axis_of_rows
        numbered: Record = jax.tree.unflatten(plan, range(plan.num_leaves))
        shared = shared_by_lanes(numbered)
        return [None if place in shared else axis for place in range(plan.num_leaves)]

    def _split(self, arrays: Sequence[Any]) -> tuple[list, list, list, list]:
        """The operands that are not smooth, the grid, z with `None` for what is not there, and the
        directions.
        """
        potential, rest = self.potential, iter(arrays)
        fixed = [next(rest) for smooth in potential.smooth if not smooth]
        plan = [next(rest) for _ in range(potential.plan.num_leaves)]
        return (
            fixed,
            plan,
            [next(rest) if is_there else None for is_there in self.there],
            list(rest),
        )


def _refuse_lost_tangents(program: Any) -> None:
    """Where forward mode meets a `jax.custom_vjp` function, JAX says so when it compiles."""
    if "custom_lin" in primitive_names(program.jaxpr):
        raise TypeError(
            "Forward mode and second derivatives of a solve need forward mode of its steps, but "
            "something in them is a `jax.custom_vjp` function, which has none: diffrax's own loop "
            "over the stages of an implicit solver, or a part of the vector field. Use "
            "`adjoint=diffrax.ForwardMode()` for forward mode, and `diffrax.DirectAdjoint()` for "
            "second derivatives; or write the field's part as a `jax.custom_jvp` function."
        )
