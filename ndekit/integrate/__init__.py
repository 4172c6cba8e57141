"""The engine: solve, record, replay; and the contracts of costs."""

from .adjoint import ReplayAdjoint as ReplayAdjoint
from .adjoint import ReversibleAdjoint as ReversibleAdjoint
from .auto_switch import AutoSwitch as AutoSwitch
from .brownian import BrownianMotion as BrownianMotion
from .costs import AbstractPlacement as AbstractPlacement
from .costs import AbstractStepCost as AbstractStepCost
from .costs import AbstractTrajectoryCost as AbstractTrajectoryCost
from .door import diffeqsolve as diffeqsolve
from .one_step import OneStep as OneStep
from .placements import AlongTimes as AlongTimes
from .placements import EachStep as EachStep
from .placements import EveryStep as EveryStep
from .recorder import Recorder as Recorder
from .reversible import AbstractReversibleSolver as AbstractReversibleSolver
from .reversible import AsynchronousLeapfrog as AsynchronousLeapfrog
from .reversible import Reversible as Reversible
from .solution import Solution as Solution
from .sosri import SOSRI as SOSRI
from .step import Step as Step
