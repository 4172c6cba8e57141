"""Training on optax: one compiled loop that knows no model and no regulariser by name."""

from .averaging import WeightAverage as WeightAverage
from .checkpoint import CheckpointError as CheckpointError
from .fit import FitResult as FitResult
from .fit import fit as fit
from .log import column as column
from .projection import projected as projected
from .update import NonFiniteLossError as NonFiniteLossError
