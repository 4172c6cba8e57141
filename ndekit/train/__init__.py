"""Training on optax: one compiled loop that knows no model and no regulariser by name."""

from .averaging import WeightAverage
from .checkpoint import CheckpointError
from .fit import FitResult, fit
from .log import column
from .projection import projected
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
