"""Costs that are told in which units the controller looks at a step."""

import dataclasses
from typing import Any

import jax

from ...shapes import Scalar, Time
from ..control.controllers import clips_around
from ..control.in_units import InUnits, Units
from ..times import direction_of, promote_times
from .contracts import AbstractPlacement, AbstractStepCost, AbstractTrajectoryCost
from .step import Step

Wanted = dict[str, AbstractPlacement | AbstractTrajectoryCost]


class Measured(AbstractStepCost):
    """A step cost in units of the controller."""

    cost: AbstractStepCost
    units: Units

    def of_step(self, step: Step) -> Scalar:
        return self.cost.of_step(dataclasses.replace(step, units=self.units))


def measured(costs: Wanted, controller: Any, t0: Time, t1: Time) -> Wanted:
    """The same costs, in the units of the controller if it has its own."""
    _, inner = clips_around(controller)
    if not isinstance(inner, InUnits) or not costs:
        return costs
    units = Units(inner.unit, direction_of(*promote_times(t0, t1)))
    is_cost: Any = lambda node: isinstance(node, AbstractStepCost)
    wrap = lambda node: Measured(node, units) if is_cost(node) else node
    return jax.tree.map(wrap, costs, is_leaf=is_cost)
