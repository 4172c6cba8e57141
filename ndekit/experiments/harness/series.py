"""Series as data, and models that solve each of them for itself."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from ...data import Series
from ...diagnose import StepTable
from ...models import AbstractKnownFlow
from .measuring import rows_of
from .solves import solve_options, with_solve
from .task import READINGS, AbstractTask, accepted_steps


class SeriesParts(NamedTuple):
    """Batches of series, and what is to be said of each: an array, or a tree of arrays, with a row
    for each series.

    Attributes:
        yardsticks: the metric on test data of rules that learn nothing, and of the best that can
            be, by name. They stand first in a table.
    """

    train_x: Series
    train_y: Any
    validation_x: Series
    validation_y: Any
    test_x: Series
    test_y: Any
    yardsticks: Mapping[str, float] = {}


class Work(NamedTuple):
    """What the solves of a batch cost: an entry for each series."""

    costs: Mapping[str, Any]
    stats: Mapping[str, Any]


class NoSolve(eqx.Module):
    """A model of one series that says something besides, but solves nothing."""

    model: Callable
    costs: Mapping[str, Any] = eqx.field(default_factory=dict)

    def __call__(self, series: Series, *, key: Any = None) -> tuple[Any, None]:
        return self.model(series)[0], None


class OfSeries(eqx.Module):
    """A model of one series, along each of a batch; costs that draw do so for each anew.

    Attributes:
        ode: `ode(series, key=...)` is what it says, and a solution or `None`; `ode.costs`.
        read: of what it says, the prediction.
        grid: where its steps end, if they are the same for all series; not to be trained, as
            arrays in a controller would be.
    """

    ode: Any
    read: Callable = eqx.nn.Identity()
    grid: tuple[float, ...] | None = eqx.field(static=True, default=None)

    def __call__(self, x: Series, args: Any = None, *, key: Any = None) -> tuple[Any, Work]:
        keys = None if key is None else jr.split(key, len(x))
        ode, given = self.ode, {}
        if self.grid is not None:
            grid = jnp.asarray(self.grid, x.ts.dtype)
            steps, given = diffrax.StepTo(grid), {"ts": grid[-1:]}
            ode = eqx.tree_at(lambda ode: ode.controller, ode, steps)

        def along(series: Series, key: Any) -> tuple[Any, Work]:
            said, solution = ode(series, key=key, **given)
            return self.read(said), _work_of(solution)

        return jax.vmap(along)(x, keys)


def _work_of(solution: Any) -> Work:
    if solution is None:
        none = jnp.zeros((), jnp.int32)
        return Work({}, {name: none for name in ("num_steps", "num_accepted_steps", "num_evals")})
    return Work(solution.costs, solution.stats)


class AbstractSeriesTask(AbstractTask):
    """Models of series, each solved for itself (`OfSeries`)."""

    one_by_one: ClassVar[bool] = True

    def see_solver(self, model: Any, max_steps: int, x: Any) -> StepTable:
        """The accepted steps along the first series, from 0; none of a model that takes none."""
        ode = model.ode
        if not takes_steps(ode):
            nothing = np.zeros(0)
            return StepTable(nothing, nothing, nothing, nothing, np.zeros(0, bool))
        options = (getattr(model, "grid", None), getattr(ode, "steps_per_gap", None))
        equal = any(option is not None for option in options)
        adaptive = isinstance(ode.controller, diffrax.PIDController) and not equal
        names = READINGS if adaptive else ("h",)
        told = with_solve(model, costs={name: READINGS[name] for name in names})
        work = told(jax.tree.map(jnp.asarray, rows_of(x, slice(1))))[1]
        return accepted_steps(jax.tree.map(lambda leaf: leaf[0], work), 0.0)


def takes_steps(ode: Any) -> bool:
    """Whether a model of one series solves anything."""
    known = isinstance(getattr(ode, "flow", None), AbstractKnownFlow)
    return getattr(ode, "solver", None) is not None and not known


def series_options(
    config: Any, regularizer: Any, solver: diffrax.AbstractSolver, equal: str
) -> dict[str, Any]:
    """How a model of series is solved, by name: by tolerances, or by `config.equal_steps` under the
    name `equal` that the model has for them.
    """
    options = solve_options(config, regularizer, solver)
    if config.equal_steps is None:
        return options
    kept = {name: options[name] for name in ("solver", "adjoint", "costs")}
    return kept | {equal: config.equal_steps}
