"""What a model of an experiment is for, and how well it does."""

import abc
from typing import Any, ClassVar

import diffrax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from ..diagnose import StepTable, record_steps


class AbstractTask(abc.ABC):
    """Models of one kind: `model(x, key=...)` is `(prediction, solution)`, `model.ode` its solve.

    Attributes:
        metric: the name of what is compared, besides the cost.
        larger_is_better: whether more of it is better.
        unit, unit_name: what a number of it is multiplied by to be shown, and what it is then in.
    """

    metric: ClassVar[str]
    larger_is_better: ClassVar[bool]
    unit: ClassVar[float]
    unit_name: ClassVar[str]

    @abc.abstractmethod
    def build_model(
        self, config: Any, regularizer: Any, data: Any, *, key: Key[Array, ""]
    ) -> Any: ...

    @abc.abstractmethod
    def judge(self, prediction: Array, targets: Array) -> tuple[Array, Array]:
        """The loss and the metric, means over the samples."""

    def see_solver(self, model: Any, max_steps: int, x: np.ndarray) -> StepTable:
        """Each step of the solve of one batch."""
        ode = model.ode
        return record_steps(
            diffrax.ODETerm(ode.field), ode.solver, ode.t0, ode.t1, ode.dt0,  # pyright: ignore
            model.encoder(jnp.asarray(x)), stepsize_controller=ode.controller, max_steps=max_steps,
        )  # fmt: skip

    def bias(self, model: Any, data: Any) -> float | None:
        """How far the dynamics are from the true ones; `None` where nobody knows these."""
        return None
