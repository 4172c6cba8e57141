"""A solve as data: the arrays it depends on, and what is fixed at compile time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend import core as jex_core

from .. import tree
from ..shapes import State, Time
from .costs import Placements
from .fences import Fence, fence_at, is_duplicated, no_fence
from .step import Step
from .stepper import ExplicitRungeKutta, Trial


class Operands(eqx.Module):
    """Every array that a solve depends on, with time reflected so that it grows."""

    # Differentiable.
    constants: list[Any]  # what the field closes over: parameters, args
    costs: Any  # arrays inside the costs
    y0: State
    carry0: Any
    t0: Any
    t1: Any
    ts: Any
    # Frozen: on the recorded grid nothing depends on these.
    t_next0: Any
    close_to_t1: Any
    controller: Any
    controller_state0: Any
    totals0: Any


@dataclass(frozen=True, eq=False)
class Problem:
    """What a compiled solve is specialised to."""

    field_jaxpr: jex_core.ClosedJaxpr
    stepper: ExplicitRungeKutta
    interpolation: Callable[..., diffrax.AbstractLocalInterpolation]
    controller: Any  # without its arrays
    placements: Any  # without their arrays
    error_order: Any
    max_steps: int | None
    checkpoints: int | None
    solver_name: str
    fenced: bool
    treedef: Any = None  # of the operands
    outcome: Any = None  # shapes and dtypes of what one lane gives

    def fence(self, attempt: Any) -> Fence:
        return fence_at(attempt) if self.fenced else no_fence

    def field(self, operands: Operands, attempt: Any = None) -> Callable[[Time, State], State]:
        """The vector field; inside a loop, with the loop's counter, fenced if it wants it."""
        fence = no_fence if attempt is None else self.fence(attempt)

        def field(t: Time, y: State) -> State:
            return fence(evaluate(self.field_jaxpr, operands.constants, t, fence(y)))

        return field

    def full_controller(self, operands: Operands) -> Any:
        return eqx.combine(operands.controller, self.controller)

    def full_placements(self, operands: Operands) -> Placements:
        return eqx.combine(operands.costs, self.placements)

    def view(self, operands: Operands, t0: Time, t1: Time, y0: State, trial: Trial) -> Step:
        """The step as its costs see it."""
        controller = self.full_controller(operands)
        adaptive = isinstance(controller, diffrax.PIDController)
        return Step(
            t0=t0,
            t1=t1,
            y0=y0,
            y1=trial.y1,
            error=trial.error,
            rates=trial.rates,
            stages=trial.stages,
            nodes=self.stepper.c,
            weights=self.stepper.b,
            error_order=self.error_order,
            rtol=controller.rtol if adaptive else None,
            atol=controller.atol if adaptive else None,
            norm=controller.norm if adaptive else None,
            field=self.field(operands),
            solver_name=self.solver_name,
        )


def evaluate(jaxpr: jex_core.ClosedJaxpr, constants: list[Any], t: Time, y: State) -> State:
    """Run a converted field on other constants than those it was traced with."""
    leaves, treedef = jax.tree.flatten(y)
    out = jex_core.jaxpr_as_fun(jex_core.ClosedJaxpr(jaxpr.jaxpr, constants))(t, *leaves)
    return jax.tree.unflatten(treedef, out)


def convert_field(
    field: Callable[[Time, State], State], t: Time, y: State
) -> tuple[jex_core.ClosedJaxpr, list[Any]]:
    """Trace the field once and pull out the arrays that it closes over, traced ones included."""

    def flat(t: Time, *leaves: Any) -> list[Any]:
        out = field(t, jax.tree.unflatten(jax.tree.structure(y), leaves))
        return jax.tree.leaves(out)

    leaves = jax.tree.leaves(y)
    jaxpr, out = jax.make_jaxpr(flat, return_shape=True)(t, *leaves)
    for got, leaf in zip(out, leaves, strict=True):
        if (got.shape, got.dtype) != (leaf.shape, leaf.dtype):
            raise ValueError(
                f"The vector field must return the shape and dtype of `y0`, {leaf.dtype}"
                f"{list(leaf.shape)}, but returned {got.dtype}{list(got.shape)}."
            )
    return jaxpr, [jnp.asarray(c) for c in jaxpr.consts]


def needs_fences(jaxpr: jex_core.ClosedJaxpr) -> bool:
    return is_duplicated(jaxpr.jaxpr)


def result_dtype(operands: Operands) -> Any:
    return tree.real_dtype(operands.y0)
