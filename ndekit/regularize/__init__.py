"""What makes a solve expensive, as step costs, and schedules for their coefficients."""

from . import schedules as schedules
from .count import StepCount as StepCount
from .error import StepError as StepError
from .stiffness import StepStiffness as StepStiffness
