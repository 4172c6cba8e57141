"""A recorded solve, and its derivative both ways: forward over its grid, and back."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend import core as jex_core
from jax.interpreters import ad

from ..forward.loop import record_forward
from ..forward.outcome import Solved
from ..forward.problem import Problem
from ..programs.lanes import Lanes
from ..programs.own_rules import (
    AbstractProgram,
    has_tangent,
    instantiated,
    is_smooth,
    mapped,
    no_tangent,
    operation,
    placed,
)
from .backwards import replay
from .curvature import Curvature
from .potential import chosen, put, with_cotangents
from .recorded import Recorded, recorded
from .refusals import refuse_lost_derivatives


@dataclass(frozen=True, eq=False)
class Record(AbstractProgram):
    """From a solve's operands what is found of it: its outcome and its recording."""

    primitive = operation("ndekit_record")

    solve: Recorded
    traced: Any  # as a closed jaxpr

    def run(self, *flat: Any) -> list[Any]:
        solve = self.solve
        if solve.alone or not solve.problem.steps_at_once:
            return jex_core.jaxpr_as_fun(self.traced)(*flat)
        return jax.tree.leaves(record_forward(solve.problem, solve.lanes, False, list(flat)))

    def avals(self, *flat: Any) -> list[Any]:
        return self.traced.out_avals

    def when_mapped(self, over: Sequence[bool]) -> "Record":
        return dataclasses.replace(self, solve=dataclasses.replace(self.solve, alone=False))

    def is_shared(self) -> Sequence[bool]:
        return [axis is None for axis in self.solve.axes]

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        found, number = self(*primals), self.solve.num_values
        moved = tangents_of(self.solve, found, primals, tangents)
        # What reads a recording moves as the operands do.
        return found, [*moved, *map(no_tangent, found[number:])]


def record(
    problem: Problem, lanes: Lanes, perturbed: tuple[bool, ...], flat: Sequence[Any]
) -> tuple[Recorded, list[Any]]:
    """Solve, for derivatives by the operands that are `perturbed`; and what is found."""
    solve = recorded(problem, lanes, perturbed)
    run = lambda *flat: record_forward(solve.problem, lanes, solve.alone, list(flat))
    traced, shapes = jax.make_jaxpr(run, return_shape=True)(*flat)
    solve = dataclasses.replace(solve, shapes=shapes)
    return solve, Record(solve, traced)(*flat)


def tangents_of(
    solve: Recorded, found: Sequence[Any], flat: Sequence[Any], tangents: Sequence[Any]
) -> list[Any]:
    """The tangents of the outcome that is among what was `found`."""
    moved = tuple(map(has_tangent, tangents))
    values = found[: solve.num_values]
    if not any(moved):
        return list(map(no_tangent, values))
    solve, found = _serving(solve, found, flat, moved)
    pushed = Push(solve, moved)(*flat, *found, *chosen(tangents, moved))
    return put(pushed, list(map(is_smooth, values)), list(map(no_tangent, values)))


def _serving(
    solve: Recorded, found: Sequence[Any], flat: Sequence[Any], moved: tuple[bool, ...]
) -> tuple[Recorded, Sequence[Any]]:
    """The solve, or if its recording lacks what derivatives by more operands need, one that has."""
    either = tuple(a or b for a, b in zip(solve.perturbed, moved, strict=True))
    refuse_lost_derivatives(solve.given, either)
    if solve.serves(either):
        return solve, found
    return record(solve.given, solve.lanes, either, flat)


@dataclass(frozen=True, eq=False)
class Push(AbstractProgram):
    """Forward over the recorded grid: from the operands, what was found, and directions of the
    operands that are `moved`, the tangents of the outcome. `Pull` is its transpose.
    """

    primitive = operation("ndekit_push")

    solve: Recorded
    moved: tuple[bool, ...]

    def run(self, *arrays: Any) -> list[Any]:
        curvature, given = self._curvature(*self._split(arrays)[:2])
        return curvature.run(*given, *self._split(arrays)[2])

    def avals(self, *arrays: Any) -> list[Any]:
        values = filter(is_smooth, self._split(arrays)[1][: self.solve.num_values])
        return [ShapedArray(x.shape, x.dtype) for x in values]

    def when_mapped(self, over: Sequence[bool]) -> "Push":
        return dataclasses.replace(self, solve=_when_mapped(self.solve, self._split(over)[1]))

    def batch(self, arrays: list[Any], axes: tuple[int | None, ...]) -> tuple[list[Any], list]:
        """One more level of lanes, unless what they share has a direction in each of them."""
        flat, found, directions = self._split(axes)
        has_lane = tuple(axis is not None for axis in flat)
        own, lanes = chosen(has_lane, self.moved), self.solve.lanes
        apart = any(a is not None and not lane for a, lane in zip(directions, own, strict=True))
        if apart or not any(has_lane) or found[0] is None:
            return mapped(self, arrays, axes)
        targets = [*lanes.where(has_lane), *self.solve.axes, *lanes.where(own)]
        within = dataclasses.replace(self.solve, lanes=lanes.within(has_lane), alone=False)
        out = Push(within, self.moved)(*placed(arrays, axes, targets))
        return out, list(lanes.axes_of(out))

    def transpose(self, cts: Sequence[Any], arrays: Sequence[Any]) -> list[Any]:
        flat, found, directions = self._split(arrays)
        pulled = pull(self.solve, self.moved, flat, found, list(map(instantiated, cts)))
        own = zip(chosen(pulled, self.moved), directions, strict=True)
        linear = [_or_zero(ct, x) if ad.is_undefined_primal(x) else None for ct, x in own]
        return [*[None] * (len(flat) + len(found)), *linear]

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        pushed, (flat, found, directions) = self(*primals), self._split(primals)
        d_flat, _, d_directions = self._split(tangents)
        curvature, given = self._curvature(flat, found)
        d_given = curvature.of_operands(d_flat, given)
        moved = curvature.tangents(pushed, [*given, *directions], [*d_given, *d_directions])
        return pushed, moved

    def _curvature(self, flat: Sequence[Any], found: Sequence[Any]) -> tuple[Curvature, list[Any]]:
        # Of a linear function of what is said of the outcome, which may be said to be nothing.
        said = [jnp.zeros_like(x) for x in filter(is_smooth, found[: self.solve.num_values])]
        wanted, moved = ([False] * len(flat), True), (self.moved, False)
        return self.solve.curvature(flat, found, said, wanted, moved)

    def _split(self, arrays: Sequence[Any]) -> tuple[list, list, list]:
        start, end = len(self.moved), len(arrays) - sum(self.moved)
        return list(arrays[:start]), list(arrays[start:end]), list(arrays[end:])


def pull(
    solve: Recorded, wanted: tuple[bool, ...], flat: Sequence[Any], found: Sequence[Any], said: list
) -> list[Any]:
    """The cotangents of the operands that are `wanted`, from what is said of the outcome; `None`
    for what nothing depends on.
    """
    run = lambda *arrays: _replayed(solve, wanted, arrays)
    traced, shapes = jax.make_jaxpr(run, return_shape=True)(*flat, *found, *said)
    reached = tuple(ct is not None for ct in shapes)
    pulled = Pull(solve, wanted, reached, traced)(*flat, *found, *said)
    return put(pulled, reached, [None] * len(reached))


def _replayed(solve: Recorded, wanted: tuple[bool, ...], arrays: Sequence[Any]) -> list[Any]:
    """For each operand its cotangent, or `None`."""
    start, end = len(wanted), len(wanted) + solve.structure.num_leaves
    flat, found, said = list(arrays[:start]), arrays[start:end], arrays[end:]
    outcome, recording = jax.tree.unflatten(solve.structure, found)
    ct, known = with_cotangents(outcome, said), Solved(flat, outcome, recording)
    cts = replay(solve.problem, solve.lanes, wanted, solve.alone, known, ct)
    return put(cts, wanted, [None] * len(wanted))


@dataclass(frozen=True, eq=False)
class Pull(AbstractProgram):
    """The reverse pass: from the operands, what was found, and the cotangents of the outcome, those
    of the operands that are `reached`.
    """

    primitive = operation("ndekit_pull")

    solve: Recorded
    wanted: tuple[bool, ...]
    reached: tuple[bool, ...]
    traced: Any

    def run(self, *arrays: Any) -> list[Any]:
        if self.solve.alone or not self.solve.problem.steps_at_once:
            return jex_core.jaxpr_as_fun(self.traced)(*arrays)
        return chosen(_replayed(self.solve, self.wanted, arrays), self.reached)

    def avals(self, *arrays: Any) -> list[Any]:
        return self.traced.out_avals

    def when_mapped(self, over: Sequence[bool]) -> "Pull":
        _, found, _ = self._split(over)
        return dataclasses.replace(self, solve=_when_mapped(self.solve, found))

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        pulled, (flat, found, said) = self(*primals), self._split(primals)
        d_flat, _, d_said = self._split(tangents)
        moved = tuple(map(has_tangent, d_flat))
        if not any(map(has_tangent, (*d_flat, *d_said))):
            return pulled, list(map(no_tangent, pulled))
        solve, found = _serving(self.solve, found, flat, moved)
        speaks = any(map(has_tangent, d_said))
        wanted = (self.reached, False), (moved, speaks)
        # Whether the first carry has a cotangent of its own was said when this was traced.
        solve = solve.chained_as(self.solve)
        curvature, given = solve.curvature(flat, found, said, *wanted)
        directions = chosen(d_flat, moved)
        if speaks:
            directions += map(instantiated, d_said)
        return pulled, curvature(*given, *directions)

    def _split(self, arrays: Sequence[Any]) -> tuple[list, list, list]:
        start = len(self.wanted)
        end = start + self.solve.structure.num_leaves
        return list(arrays[:start]), list(arrays[start:end]), list(arrays[end:])


def _when_mapped(solve: Recorded, over: Sequence[bool]) -> Recorded:
    """Where the recording is that of one lane, steps are replayed many at once for each row too."""
    return dataclasses.replace(solve, alone=solve.alone and not any(over))


def _or_zero(ct: Any, of: Any) -> Any:
    return ad.Zero(of.aval) if ct is None else ct
