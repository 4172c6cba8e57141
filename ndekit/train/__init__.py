"""Training with optax: a compiled loop with logging, evaluation and checkpoints."""

from .averaging import WeightAverage
from .checkpoint import CheckpointError
from .fit import fit
from .fit_path import PathFit, fit_path
from .log import column
from .path_solves import PathSolve
from .projection import projected
from .result import FitResult
from .update import NonFiniteLossError

__all__ = [
    "CheckpointError",
    "FitResult",
    "NonFiniteLossError",
    "PathFit",
    "PathSolve",
    "WeightAverage",
    "column",
    "fit",
    "fit_path",
    "projected",
]
