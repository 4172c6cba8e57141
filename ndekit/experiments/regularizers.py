"""Regularisers by name: step costs, and what each weighs within their sum."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..integrate import EveryStep
from ..regularize import StepCount, StepError, StepStiffness


class Regularizer(NamedTuple):
    """Costs of a solve. The loss is task + coefficient(step) * sum of weight * cost."""

    about: str
    costs: Mapping[str, Any]
    weights: Mapping[str, float]


REGULARIZERS: dict[str, Regularizer] = {
    "none": Regularizer("nothing: the model that the others are compared with", {}, {}),
    "steps": Regularizer(
        "a differentiable count of the solver's steps", {"steps": StepCount()}, {"steps": 1.0}
    ),
    "error": Regularizer(
        "mean over the steps of scaled error times h (ERNODE, Pal et al. 2021)",
        {"error": EveryStep(StepError(), "mean")},
        {"error": 1.0},
    ),
    "error_sum": Regularizer(
        "sum over the steps of scaled error times h", {"error": StepError()}, {"error": 1.0}
    ),
    "error_squared": Regularizer(
        "sum over the steps of the squared scaled error",
        {"error": StepError(power=2)},
        {"error": 1.0},
    ),
    "stiffness": Regularizer(
        "largest stiffness of a step over the solver's stability extent (SRNODE, ibid.)",
        {"stiffness": EveryStep(StepStiffness("relative"), "max")},
        {"stiffness": 1.0},
    ),
    "error+stiffness": Regularizer(
        "mean of scaled error times h, and a tenth of the mean relative stiffness (ibid.)",
        {
            "error": EveryStep(StepError(), "mean"),
            "stiffness": EveryStep(StepStiffness("relative"), "mean"),
        },
        {"error": 1.0, "stiffness": 0.1},
    ),
}
