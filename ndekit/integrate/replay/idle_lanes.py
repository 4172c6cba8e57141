"""Lanes that do nothing in a replayed step: where they are evaluated all the same.

A lane that has ended, waits, or gave an attempt up runs through the program beside the others. Its
field is evaluated at the start of its solve, by a step of no length: there it has been evaluated
before. Elsewhere may stand anything (padding that is not a number, the outside of a domain), and
what is not a number does not go away when its derivative is multiplied by zero.
"""

from collections.abc import Callable
from typing import Any

import jax

from ... import tree
from ...shapes import Flag, State, Time
from ..forward.outcome import Recording
from ..forward.problem import Operands
from ..forward.record import RecordedStep


def is_looked_into(accepted: Flag, details: Any) -> Flag:
    """Whether an attempt is evaluated again: one that was accepted; and where the end of every
    attempt is differentiated, one that is finite.
    """
    finite = getattr(details, "finite", None)
    return accepted if finite is None else finite


def place_of(
    operands: Operands,
    keeps_carry: bool,
    place: tuple[tuple[Time, Time], tuple[State, Any]],
    looked_into: Flag,
) -> tuple[tuple[Time, Time], tuple[State, Any]]:
    """The ends of an attempt and the state before it, or a step of no length from the start."""
    carry = operands.carry0 if keeps_carry else place[1][1]
    start = (operands.t0, operands.t0), (operands.y0, carry)
    return tree.where(looked_into, place, start)


def memo_of(where: Callable, recording: Recording, step: RecordedStep) -> Any:
    """What a step left, or what one of no length leaves."""
    memo, still = step.memo, recording.still
    if not jax.tree.leaves(memo):
        return memo
    still = tree.zeros_like(memo) if still is None else still
    return where(is_looked_into(step.accepted, step.details), memo, still)
