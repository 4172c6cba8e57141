"""An attempt that has been made before, for a solve that goes over its recorded grid once more.

Rounding may differ from one program to the next, and a controller that looks at small differences
would choose other steps. The second time they are those of the record.
"""

import dataclasses
from typing import Any

import equinox as eqx

from ...shapes import Count, Flag, Time
from .grid import with_derivative_of
from .problem import Problem
from .record import Record


class Planned(eqx.Module):
    """What the record knows of an attempt, in all lanes."""

    t: Time
    t_end: Time
    t_after: Time  # where the next attempt starts
    accepted: Flag
    made_jump: Any


def planned(record: Record, number: Count) -> Planned:
    step = record.step(number, (None, None, None))
    made_jump = None if step.details is None else step.details.made_jump
    return Planned(step.t0, step.t1, record.times[number + 1], step.accepted, made_jump)


def on_grid(problem: Problem, lane: Any, plan: Planned) -> Any:
    """A lane before an attempt that is planned. Where the grid is differentiated, its times have
    the derivatives of those that the lane has come to.
    """
    t, t_end = plan.t, plan.t_end
    if problem.moving:
        same = lambda t: t
        t = with_derivative_of(same, t, lane.t)
        t_end = with_derivative_of(same, t_end, lane.t_next)
    made_jump = lane.made_jump if plan.made_jump is None else plan.made_jump
    return dataclasses.replace(lane, t=t, t_next=t_end, made_jump=made_jump)
