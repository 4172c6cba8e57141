"""Neural differential equations in JAX that are trained to be cheap to solve.

Start with `diffeqsolve`: it is `diffrax.diffeqsolve` with the argument `costs=`, which takes costs
such as `StepCount()`. `ReplayAdjoint()` is its default adjoint.

- `fields`, `models`: vector fields, and models made of a vector field and a solve.
- `paths`: Gaussian probability paths from noise to data, and conversions along them.
- `couplings`: which noise of a batch goes with which data.
- `losses`: what flows are trained by: flow matching, denoising, bridges, flow maps.
- `samplers`: samples as solves, in the variable of one's choice.
- `probes`: estimates of the trace of a Jacobian, for densities.
- `controls`: paths from readings of a series, and their log-signatures.
- `regularize`: costs, penalties, budgets and schedules.
- `train`: a training loop on optax. `deploy`: solves with a fixed number of steps.
- `data`, `plot`, `diagnose`: data sets, pictures, and tools to examine a solve.
- `cache_compilations()` keeps compiled programs from one process to the next.
"""

import importlib.metadata as _metadata

from . import (
    controls,
    couplings,
    data,
    deploy,
    diagnose,
    fields,
    losses,
    models,
    paths,
    plot,
    probes,
    regularize,
    samplers,
    train,
)
from .compiling import cache_compilations
from .integrate import (
    PNDM,
    SOSRI,
    AbstractPlacement,
    AbstractReversibleSolver,
    AbstractStepCost,
    AbstractTrajectoryCost,
    AlongTimes,
    AsynchronousLeapfrog,
    AutoSwitch,
    BrownianMotion,
    DPMSolver,
    EachStep,
    EveryStep,
    ExponentialAB,
    InUnits,
    OneStep,
    Recorder,
    ReplayAdjoint,
    Resets,
    ResetStates,
    Reversible,
    ReversibleAdjoint,
    Solution,
    StepsPerGap,
    UniPC,
    VariableAB,
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
    "DPMSolver",
    "EachStep",
    "EveryStep",
    "ExponentialAB",
    "InUnits",
    "JacobianNorm",
    "Kinetic",
    "LossBudget",
    "OneStep",
    "PNDM",
    "Recorder",
    "ReplayAdjoint",
    "ResetStates",
    "Resets",
    "Reversible",
    "ReversibleAdjoint",
    "SOSRI",
    "Solution",
    "StepsPerGap",
    "Steer",
    "StepBudget",
    "StepCount",
    "StepError",
    "StepStiffness",
    "Taylor",
    "TrajectoryPolynomial",
    "UniPC",
    "VariableAB",
    "cache_compilations",
    "controls",
    "couplings",
    "data",
    "deploy",
    "diagnose",
    "diffeqsolve",
    "fields",
    "losses",
    "models",
    "paths",
    "penalty",
    "plot",
    "probes",
    "regularize",
    "samplers",
    "train",
]

try:
    __version__ = _metadata.version("ndekit")
except _metadata.PackageNotFoundError:  # a checkout on the path
    __version__ = "0+unknown"
