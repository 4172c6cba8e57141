"""The solve inside a model: made as a config has it, and changed afterwards."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax.random as jr

from ...integrate import ReplayAdjoint
from ...models import NeuralODE

# Of a prediction for which nobody gave a key.
_SEED = 2021


def solve_options(
    config: Any, regularizer: Any, solver: diffrax.AbstractSolver = diffrax.Tsit5()
) -> dict[str, Any]:
    """How a `NeuralODE` or a `NeuralSDE` of the experiment is solved, by name."""
    return dict(
        solver=solver,
        controller=diffrax.PIDController(
            rtol=config.rtol, atol=config.atol, pcoeff=config.pcoeff, icoeff=config.icoeff
        ),
        adjoint=ReplayAdjoint(step_sizes=regularizer.step_sizes),
        costs=regularizer.costs,
        dt0=config.dt0,
        max_steps=config.max_steps,
    )


def ode_of(config: Any, field: Any, regularizer: Any, **options: Any) -> NeuralODE:
    """An ODE with the solve that the experiment has."""
    return NeuralODE(field, **solve_options(config, regularizer), **options)


def with_solve(model: Any, **changes: Any) -> Any:
    """The model with other options of its solve, `model.ode`."""
    where = lambda model: [getattr(model.ode, name) for name in changes]
    return eqx.tree_at(where, model, list(changes.values()), is_leaf=lambda x: x is None)


def with_part(where: Callable[[Any], Any], model: Any, part: Any) -> Any:
    """The model with another part, `None` for none: a solve that is kept apart, put back."""
    return eqx.tree_at(where, model, part, is_leaf=lambda x: x is None)


def key_or_fixed(key: Any) -> Any:
    """The key given, or that of all predictions for which nobody gave one."""
    return jr.key(_SEED) if key is None else key
