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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ..forward import stepping
from ..forward.loop import record_forward
from ..forward.outcome import Outcome, Solved
from ..forward.problem import Operands, Problem
from ..forward.record import Record
from ..programs.lanes import Lanes
from ..programs.own_rules import is_smooth
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
    # Whether the first carry is a function of the state, as for a reverse pass that takes each step
    # as one and gives it no cotangent; else it is an operand like any other.
    first_stage_anew: bool

    @property
    def num_operands(self) -> int:
        return sum(self.smooth)

    @property
    def size(self) -> int:
        """The length of $z$."""
        return self.num_operands + sum(map(is_smooth, jax.tree.leaves(self.problem.outcome)))

    def gradient(self, order: int, known: tuple, z: list, wanted: tuple[bool, ...]) -> list:
        r"""$\nabla \varphi$, or of its directional derivative of this order by $z$ and directions,
        `None` where there are none; `None` for parts that are not `wanted`. `known`: the operands
        that are not smooth, and the grid.
        """
        if order == 0:
            return self._gradient(known, z, wanted)
        half = len(z) // 2
        start, directions = z[:half], z[half:]
        either = tuple(a or b for a, b in zip(wanted[:half], wanted[half:], strict=True))
        moved = [d is not None for d in directions]

        def along(moving: list) -> list:
            return self.gradient(order - 1, known, put(moving, moved, start), either)

        value, tangent = jax.jvp(along, (chosen(start, moved),), (chosen(directions, moved),))
        return [*tangent, *value]

    def _gradient(self, known: tuple, z: list, wanted: tuple[bool, ...]) -> list:
        fixed, plan = known
        number = self.num_operands
        others = put(fixed, [not smooth for smooth in self.smooth], [None] * len(self.smooth))
        given, said = put(z[:number], self.smooth, others), z[number:]
        by_operand = put(wanted[:number], self.smooth, [False] * len(self.smooth))
        flat, pull_carry, of_carry = given, None, [False] * len(given)
        if self.first_stage_anew:
            flat, pull_carry, of_carry = self._with_first_stage(given, by_operand)
        record: Record = jax.tree.unflatten(self.plan, plan)
        outcome, recording = record_forward(self.problem, self.lanes, False, flat, record)
        values = list(filter(is_smooth, jax.tree.leaves(outcome)))
        if not any(by_operand):
            return [*[None] * number, *values]
        perturbed = tuple(a or b for a, b in zip(by_operand, of_carry, strict=True))
        solved, ct = Solved(flat, outcome, recording), with_cotangents(outcome, said)
        found = replay(self.problem, self.lanes, perturbed, False, solved, ct)
        found = put(found, perturbed, [None] * len(flat))
        each = zip(found, flat, by_operand, of_carry, strict=True)
        found = [
            jnp.zeros_like(x) if ct is None and (is_wanted or of_carry) else ct
            for ct, x, is_wanted, of_carry in each
        ]
        if pull_carry is not None:
            more = put(pull_carry(chosen(found, of_carry)), by_operand, found)
            each = zip(found, more, by_operand, of_carry, strict=True)
            found = [x + y if wanted and not carry else y for x, y, wanted, carry in each]
        return [*chosen(found, self.smooth), *values]

    def _with_first_stage(self, flat: list, wanted: list[bool]) -> tuple[list, Any, list[bool]]:
        """The operands with the first carry as a function of the state; the cotangents of those
        that are `wanted` from that of the carry; and which operands are the carry.
        """
        treedef = self.problem.treedef

        def carry_of(flat: list, _: Any) -> Any:
            operands: Operands = jax.tree.unflatten(treedef, flat)
            dynamics = stepping.dynamics_of(self.problem, operands)
            return self.problem.stepper.init(dynamics, operands.t0, operands.y0)

        run = lambda own: self.lanes.map(carry_of)(put(own, wanted, flat), None)
        carry0, vjp = jax.vjp(run, chosen(flat, wanted))
        leaves, structure = jax.tree.flatten(carry0)
        positions: Operands = jax.tree.unflatten(treedef, range(len(flat)))
        places = jax.tree.leaves(positions.carry0)
        of_carry = [i in places for i in range(len(flat))]
        pull = lambda cts: vjp(jax.tree.unflatten(structure, cts))[0]
        return put(leaves, of_carry, flat), pull, of_carry


def with_cotangents(outcome: Outcome, said: Sequence[Any]) -> Outcome:
    """The cotangents of those of the outcome's arrays that have any, in its structure."""
    rest = iter(said)
    fill = lambda x: next(rest) if is_smooth(x) else jnp.zeros_like(x)
    return jax.tree.map(fill, outcome)


def chosen(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    """Those with a flag."""
    return [x for x, is_chosen in zip(values, flags, strict=True) if is_chosen]


def put(values: Sequence[Any], flags: Sequence[bool], others: Sequence[Any]) -> list[Any]:
    """The inverse: `values` where the flags are, `others` elsewhere."""
    rest = iter(values)
    return [next(rest) if is_here else x for x, is_here in zip(others, flags, strict=True)]
