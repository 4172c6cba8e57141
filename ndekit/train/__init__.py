"""Training with optax: a compiled loop with logging, evaluation and checkpoints."""

from .averaging import WeightAverage
from .checkpoint import CheckpointError
from .fit import fit
from .log import column
from .projection import projected
from .result import FitResult
from .update import NonFiniteLossError

__all__ = [
    "CheckpointError",
    "FitResult",
    "NonFiniteLossError",
    "WeightAverage",
    "column",
    "fit",
    "projected",
]
