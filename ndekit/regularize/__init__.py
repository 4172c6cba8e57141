"""What makes a solve expensive, as step costs, and schedules for their coefficients."""

from . import schedules as schedules
from .budget import LossBudget as LossBudget
from .budget import StepBudget as StepBudget
from .count import StepCount as StepCount
from .error import StepError as StepError
from .jacobian import JacobianNorm as JacobianNorm
from .kinetic import Kinetic as Kinetic
from .penalty import penalty as penalty
from .polynomial import TrajectoryPolynomial as TrajectoryPolynomial
from .steer import Steer as Steer
from .stiffness import StepStiffness as StepStiffness
from .taylor import Taylor as Taylor
