"""The engine: solving, differentiating, and the interfaces of costs."""

from .adjoint import ReplayAdjoint, ReversibleAdjoint
from .auto_switch import AutoSwitch
from .brownian import BrownianMotion
from .costs import AbstractPlacement, AbstractStepCost, AbstractTrajectoryCost
from .door import diffeqsolve
from .one_step import OneStep
from .placements import AlongTimes, EachStep, EveryStep
from .recorder import Recorder
from .reversible import AbstractReversibleSolver, AsynchronousLeapfrog, Reversible
from .solution import Solution
from .sosri import SOSRI
from .step import Step

__all__ = [
    "AbstractPlacement",
    "AbstractReversibleSolver",
    "AbstractStepCost",
    "AbstractTrajectoryCost",
    "AlongTimes",
    "AsynchronousLeapfrog",
    "AutoSwitch",
    "BrownianMotion",
    "EachStep",
    "EveryStep",
    "OneStep",
    "Recorder",
    "ReplayAdjoint",
    "Reversible",
    "ReversibleAdjoint",
    "SOSRI",
    "Solution",
    "Step",
    "diffeqsolve",
]
