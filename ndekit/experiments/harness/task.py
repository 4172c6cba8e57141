"""What a model of an experiment is for, and how well it does."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from ...diagnose import StepTable, record_steps
from ...integrate import AbstractStepCost, EachStep, Step
from ...regularize import StepError, StepStiffness
from ...shapes import Scalar
from .solves import with_solve


class Metric(NamedTuple):
    """What models are compared by, besides their cost.

    Attributes:
        name: of what is measured.
        larger_is_better: whether more of it is better.
        unit, unit_name: what a number of it is multiplied by to be shown, and what it is then in.
    """

    name: str
    larger_is_better: bool
    unit: float
    unit_name: str


class AbstractTask(abc.ABC):
    """Models of one kind: `model(x, key=...)` is `(prediction, solution)`, `model.ode` its solve.

    Attributes:
        metric: what they are compared by.
        one_by_one: whether each sample is solved for itself, instead of a batch as one state.
        measured: how many training samples are looked at when a model is measured; `None` for all.
    """

    metric: ClassVar[Metric]
    one_by_one: ClassVar[bool] = False
    measured: ClassVar[int | None] = None

    @abc.abstractmethod
    def build_model(
        self, config: Any, regularizer: Any, data: Any, *, key: Key[Array, ""]
    ) -> Any: ...

    @abc.abstractmethod
    def judge(
        self, prediction: Any, targets: Any, step: Int[Array, ""] | None = None
    ) -> tuple[Array, Array]:
        """The loss, in training that of update `step`, and the metric: means over the samples."""

    @abc.abstractmethod
    def see_solver(self, model: Any, max_steps: int, x: Any) -> StepTable:
        """Each step of the solve of one batch."""

    def bias(self, model: Any, data: Any) -> float | None:
        """How far the dynamics are from the true ones; `None` where nobody knows these."""
        return None


class AbstractODETask(AbstractTask):
    """Models with an ODE inside, solved from what `model.encoder` makes of `x`."""

    def see_solver(self, model: Any, max_steps: int, x: Any) -> StepTable:
        ode, y0 = model.ode, model.encoder(jax.tree.map(jnp.asarray, x))
        return record_steps(
            diffrax.ODETerm(ode.field), ode.solver, ode.t0, ode.t1, ode.dt0,  # pyright: ignore
            y0, stepsize_controller=ode.controller, max_steps=max_steps,
        )  # fmt: skip


class AbstractTaskByCosts(AbstractTask):
    """Models of whose solve the accepted steps are seen, as costs see them."""

    def see_solver(self, model: Any, max_steps: int, x: Any) -> StepTable:
        _, solution = with_solve(model, costs=READINGS)(jnp.asarray(x))
        return accepted_steps(solution, model.ode.t0)


class AbstractSDETask(AbstractTaskByCosts):
    """Models with an SDE inside."""


class _StepSize(AbstractStepCost):
    def of_step(self, step: Step) -> Scalar:
        return step.h


# Of each accepted step, for `accepted_steps`.
READINGS: Mapping[str, Any] = {
    "h": EachStep(_StepSize()),
    "error": EachStep(StepError()),
    "stiffness": EachStep(StepStiffness()),
}


def accepted_steps(solution: Any, t0: Any) -> StepTable:
    """The accepted steps from `t0` of a solve with `READINGS`, or with some of them, as costs."""
    number = int(solution.stats["num_accepted_steps"])
    seen = {name: np.asarray(readings)[:number] for name, readings in solution.costs.items()}
    ends = float(t0) + np.cumsum(seen["h"])
    starts = np.concatenate([[float(t0)], ends[:-1]])
    unknown = np.full(number, np.nan)
    error = seen["error"] / seen["h"] if "error" in seen else unknown
    return StepTable(starts, ends, error, seen.get("stiffness", unknown), ends > starts)
