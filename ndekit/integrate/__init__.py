"""The engine: solve, record, replay; and the contracts of costs."""

from .adjoint import ReplayAdjoint as ReplayAdjoint
from .costs import AbstractPlacement as AbstractPlacement
from .costs import AbstractStepCost as AbstractStepCost
from .costs import EveryStep as EveryStep
from .door import diffeqsolve as diffeqsolve
from .recorder import Recorder as Recorder
from .solution import Solution as Solution
from .step import Step as Step
