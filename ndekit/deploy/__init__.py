"""After training: models that solve with a fixed number of steps."""

from .fixed_steps import FixedSteps, Scheme, fix_steps
from .hypersolver import Correction, Hypersolver, distill

__all__ = [
    "Correction",
    "FixedSteps",
    "Hypersolver",
    "Scheme",
    "distill",
    "fix_steps",
]
