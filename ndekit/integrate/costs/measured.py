"""Costs that are told in which units the controller looks at a step."""

import dataclasses
from typing import Any

import jax

from ...shapes import Scalar, Time
from ..control.controllers import clips_around
from ..control.in_units import InUnits, Units
from ..times import direction_of, promote_times
from .contracts import AbstractStepCost, Placements
from .step import Step


class Measured(AbstractStepCost):
    """A step cost in units of the controller."""

    cost: AbstractStepCost
    units: Units

    def of_step(self, step: Step) -> Scalar:
        return self.cost.of_step(dataclasses.replace(step, units=self.units))


def measured(placements: Placements, controller: Any, t0: Time, t1: Time) -> Placements:
    """The same costs, in the units of the controller if it has its own."""
    _, inner = clips_around(controller)
    if not isinstance(inner, InUnits) or not placements:
        return placements
    units = Units(inner.unit, direction_of(*promote_times(t0, t1)))
    is_cost: Any = lambda node: isinstance(node, AbstractStepCost)
    wrap = lambda node: Measured(node, units) if is_cost(node) else node
    return jax.tree.map(wrap, placements, is_leaf=is_cost)
