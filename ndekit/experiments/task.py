"""What a model of an experiment is for, and how well it does."""

import abc
from typing import Any, ClassVar

from jaxtyping import Array, Key


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

    def bias(self, model: Any, data: Any) -> float | None:
        """How far the dynamics are from the true ones; `None` where nobody knows these."""
        return None
