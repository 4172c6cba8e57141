"""Training on optax: one compiled loop that knows no model and no regulariser by name."""

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
