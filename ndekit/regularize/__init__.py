"""Costs that measure the work of a solver, penalties, budgets, and schedules of coefficients."""

from . import schedules
from .budget import LossBudget, StepBudget
from .count import StepCount
from .error import StepError
from .jacobian import JacobianNorm
from .kinetic import Kinetic
from .penalty import penalty
from .polynomial import TrajectoryPolynomial
from .steer import Steer
from .stiffness import StepStiffness
from .taylor import Taylor

__all__ = [
    "JacobianNorm",
    "Kinetic",
    "LossBudget",
    "Steer",
    "StepBudget",
    "StepCount",
    "StepError",
    "StepStiffness",
    "Taylor",
    "TrajectoryPolynomial",
    "penalty",
    "schedules",
]
