"""The engine: solving, differentiating, and the interfaces of costs."""

from .adjoint import ReplayAdjoint, ReversibleAdjoint
from .control.in_units import InUnits
from .control.steps_per_gap import StepsPerGap
from .costs.contracts import AbstractPlacement, AbstractStepCost, AbstractTrajectoryCost
from .costs.one_step import OneStep
from .costs.placements import AlongTimes, EachStep, EveryStep
from .costs.step import Step
from .door import diffeqsolve
from .noise.brownian import BrownianMotion
from .outside.recorder import Recorder
from .resets import Resets, ResetStates
from .solution import Solution
from .solvers.auto_switch import AutoSwitch
from .solvers.dpm import DPMSolver
from .solvers.multistep import ExponentialAB, VariableAB
from .solvers.pndm import PNDM
from .solvers.reversible import AbstractReversibleSolver, AsynchronousLeapfrog, Reversible
from .solvers.sosri import SOSRI
from .solvers.unipc import UniPC

__all__ = [
    "AbstractPlacement",
    "AbstractReversibleSolver",
    "AbstractStepCost",
    "AbstractTrajectoryCost",
    "AlongTimes",
    "AsynchronousLeapfrog",
    "AutoSwitch",
    "BrownianMotion",
    "DPMSolver",
    "EachStep",
    "EveryStep",
    "ExponentialAB",
    "InUnits",
    "OneStep",
    "PNDM",
    "Recorder",
    "ReplayAdjoint",
    "ResetStates",
    "Resets",
    "Reversible",
    "ReversibleAdjoint",
    "SOSRI",
    "Solution",
    "Step",
    "StepsPerGap",
    "UniPC",
    "VariableAB",
    "diffeqsolve",
]
