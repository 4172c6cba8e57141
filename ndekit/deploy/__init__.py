"""Solves with a fixed number of steps, for models that have been trained."""

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
