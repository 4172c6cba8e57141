"""Derivatives that a recorded solve does not have, refused by name."""

from typing import Any

import jax

from ..forward.problem import Operands, Problem


def times_of(operands: Operands) -> tuple:
    """All times in which the user has a say, and what the controller makes of them."""
    return (
        operands.t0, operands.t1, operands.stops, operands.t_next0, operands.controller,
        operands.controller_state0,
    )  # fmt: skip


def refuse_lost_derivatives(problem: Problem, perturbed: tuple[bool, ...]) -> None:
    """Raise for derivatives by operands that would be lost."""
    if problem.max_steps is None:
        raise ValueError(
            "The engine keeps the time of each step, so it needs to know how many there can "
            "be, but got `max_steps=None`. Give a number, or use `adjoint=diffrax.ForwardMode()`."
        )
    flags: Operands = jax.tree.unflatten(problem.treedef, perturbed)
    if problem.noise is not None and _any((times_of(flags), flags.ts)):
        raise ValueError(
            "A solve with `BrownianMotion` has no derivative by `t0`, `t1`, `dt0`, `saveat.ts` or "
            "the times of a step size controller: the path is nowhere differentiable. Pass them "
            "through `jax.lax.stop_gradient`."
        )
    if not problem.own_grid and _any((flags.controller, flags.controller_state0)):
        raise ValueError(
            "`ReplayAdjoint` holds the grid of steps constant, but the loss was differentiated by "
            "an array inside the step size controller. Stop its gradient with "
            "`jax.lax.stop_gradient`, or use `adjoint=diffrax.RecursiveCheckpointAdjoint()`."
        )


def _any(flags: Any) -> bool:
    return any(jax.tree.leaves(flags))
