"""Neural differential equations that are cheap to solve: the names that a user types."""

import importlib.metadata as _metadata

from . import data, deploy, diagnose, fields, models, plot, regularize, train
from .integrate import (
    SOSRI,
    AbstractPlacement,
    AbstractReversibleSolver,
    AbstractStepCost,
    AbstractTrajectoryCost,
    AlongTimes,
    AsynchronousLeapfrog,
    AutoSwitch,
    BrownianMotion,
    EachStep,
    EveryStep,
    OneStep,
    Recorder,
    ReplayAdjoint,
    Reversible,
    ReversibleAdjoint,
    Solution,
    diffeqsolve,
)
from .regularize import (
    JacobianNorm,
    Kinetic,
    LossBudget,
    Steer,
    StepBudget,
    StepCount,
    StepError,
    StepStiffness,
    Taylor,
    TrajectoryPolynomial,
    penalty,
)

__all__ = [
    "AbstractPlacement",
    "AbstractReversibleSolver",
    "AbstractStepCost",
    "AbstractTrajectoryCost",
    "AlongTimes",
    "AsynchronousLeapfrog",
    "AutoSwitch",
    "BrownianMotion",
    "EachStep",
    "EveryStep",
    "JacobianNorm",
    "Kinetic",
    "LossBudget",
    "OneStep",
    "Recorder",
    "ReplayAdjoint",
    "Reversible",
    "ReversibleAdjoint",
    "SOSRI",
    "Solution",
    "Steer",
    "StepBudget",
    "StepCount",
    "StepError",
    "StepStiffness",
    "Taylor",
    "TrajectoryPolynomial",
    "data",
    "deploy",
    "diagnose",
    "diffeqsolve",
    "fields",
    "models",
    "penalty",
    "plot",
    "regularize",
    "train",
]

try:
    __version__ = _metadata.version("ndekit")
except _metadata.PackageNotFoundError:  # a checkout on the path
    __version__ = "0+unknown"
