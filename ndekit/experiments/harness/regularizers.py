"""Regularisers by name: costs of a solve, and what each weighs within their sum."""

import itertools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from ...integrate import EveryStep, OneStep
from ...regularize import (
    JacobianNorm,
    Kinetic,
    StepCount,
    StepError,
    StepStiffness,
    Taylor,
    TrajectoryPolynomial,
)


class Regularizer(NamedTuple):
    """How a training is made to prefer models that are cheap to solve.

    Attributes:
        about: one line for `ndekit list`.
        costs: of the solve. The loss is task + coefficient(step) * sum of weight * cost.
        weights: of each cost.
        means: what the coefficient is instead, where it is no factor: the `"budget"` of steps, or
            the width of a random `"end"` time.
        end: the width of a random end time beside the costs; 0 for none.
        step_sizes: whether the gradient holds them constant, as for `ReplayAdjoint`.
    """

    about: str
    costs: Mapping[str, Any] = {}
    weights: Mapping[str, float] = {}
    means: Literal["factor", "budget", "end"] = "factor"
    end: float = 0.0
    step_sizes: Literal["frozen", "differentiable"] = "frozen"


def _of_one(about: str, name: str, cost: Any) -> Regularizer:
    return Regularizer(about, {name: cost}, {name: 1.0})


def _local(about: str, **options: Any) -> Regularizer:
    return _of_one(about, "error", OneStep(StepError(), **options))


# As published: a new step of the initial size, first stage and state constant.
PUBLISHED: Mapping[str, Any] = dict(step_size="initial", first_stage="frozen", through_state=False)

REGULARIZERS: dict[str, Regularizer] = {
    "none": Regularizer("nothing: the model that the others are compared with"),
    "steps": _of_one("a differentiable count of the solver's steps", "steps", StepCount()),
    "budget": Regularizer(
        "at most so many steps, as many as the coefficient says (augmented Lagrangian)",
        {"steps": StepCount()},
        {"steps": 1.0},
        "budget",
    ),
    "error": _of_one(
        "mean over the steps of scaled error times h (ERNODE, Pal et al. 2021)",
        "error",
        EveryStep(StepError(), "mean"),
    ),
    "error_sum": _of_one("sum over the steps of scaled error times h", "error", StepError()),
    "error_squared": _of_one(
        "sum over the steps of the squared scaled error", "error", StepError(power=2)
    ),
    "stiffness": _of_one(
        "largest stiffness of a step over the solver's stability extent (SRNODE, ibid.)",
        "stiffness",
        EveryStep(StepStiffness("relative"), "max"),
    ),
    "error+stiffness": Regularizer(
        "mean of scaled error times h, and a tenth of the mean relative stiffness (ibid.)",
        {
            "error": EveryStep(StepError(), "mean"),
            "stiffness": EveryStep(StepStiffness("relative"), "mean"),
        },
        {"error": 1.0, "stiffness": 0.1},
    ),
    "local_time": _local("error times h of the step that holds a random time", sample="time"),
    "local_step": _local("error times h of a random step of the solver", sample="step"),
    "local_time_published": _local(
        "the same as published: a new step at a random time (Pal et al. 2023, unbiased)",
        sample="time",
        **PUBLISHED,
    ),
    "local_step_published": _local(
        "the same as published: a new step where a random one begins (ibid., biased)",
        sample="step",
        **PUBLISHED,
    ),
    "taylor2": _of_one(
        "mean square of the second derivative in time (TayNODE, Kelly et al. 2020)",
        "taylor",
        Taylor(2),
    ),
    "taylor3": _of_one("mean square of the third derivative in time", "taylor", Taylor(3)),
    "rnode": Regularizer(
        "kinetic energy and Jacobian norm (RNODE, Finlay et al. 2020)",
        {"kinetic": Kinetic(), "jacobian": JacobianNorm()},
        {"kinetic": 1.0, "jacobian": 1.0},
    ),
    "steer": Regularizer(
        "a random end time, as far from t1 as the coefficient says (Ghosh et al. 2020)",
        means="end",
    ),
    "tpr": _of_one(
        "distance of the trajectory from a straight line in time (TPR, Huang and Yeh 2021)",
        "bent",
        TrajectoryPolynomial(),
    ),
}

# The compositions of Pal et al. 2021, at their width of the end time.
REGULARIZERS |= {
    f"steer+{name}": REGULARIZERS[name]._replace(
        about=f"{REGULARIZERS[name].about}; t1 random within 0.5", end=0.5
    )
    for name in ("error", "stiffness")
}


def _variants_of_local() -> dict[str, Regularizer]:
    """Local regularisation with each combination of its options, by `local_time_` and these."""
    options = itertools.product(("recompute", "frozen"), ("solver", "initial"), (True, False))
    return {
        f"local_time_{first_stage}_{step_size}_{'state' if through else 'constant'}": _local(
            f"a step at a random time: first stage {first_stage}, step size of "
            f"the {step_size}, {'with' if through else 'without'} a gradient into the state",
            sample="time", step_size=step_size, first_stage=first_stage, through_state=through,
        )
        for first_stage, step_size, through in options
    }  # fmt: skip


def _with_differentiable_steps(name: str) -> Regularizer:
    plain = REGULARIZERS[name]
    about = f"{plain.about}; its gradient follows the controller"
    return plain._replace(about=about, step_sizes="differentiable")


# For the ablations. Each takes the coefficient of the regulariser that its name begins with.
ABLATION = _variants_of_local() | {
    f"{name}_differentiable": _with_differentiable_steps(name)
    for name in ("steps", "error_sum", "error")
}

# For neural SDEs; of Pal et al. 2021 where they have any: the mean of the error, the stiffness.
SDE_COEFFICIENTS = {
    "steps": 1e-3,
    "budget": 40.0,
    "error": 10.0,
    "error_sum": 0.2,
    "error_squared": 0.01,
    "stiffness": 0.1,
    "error+stiffness": 10.0,
    "local_time": 0.2,
    "local_step": 0.2,
}
