"""Samples as solves: one trained network, any variable, any solver.

`ProbabilityFlow` and `ReverseSDE` are the equations; `Sampler` is a way to solve them, and the
functions make those of the literature; `ClassifierFree` and `ClassifierGuided` lead a network.
"""

from .grids import Grid
from .guidance import ClassifierFree, ClassifierGuided
from .presets import (
    adams,
    adaptive,
    ddim,
    dpm_solver_2,
    dpm_solver_3,
    dpmpp_2m,
    dpmpp_3m,
    edm_heun,
    plms,
    unipc,
)
from .probability_flow import ProbabilityFlow
from .reverse_sde import ReverseSDE
from .sampler import Sampler

__all__ = [
    "ClassifierFree",
    "ClassifierGuided",
    "Grid",
    "ProbabilityFlow",
    "ReverseSDE",
    "Sampler",
    "adams",
    "adaptive",
    "ddim",
    "dpm_solver_2",
    "dpm_solver_3",
    "dpmpp_2m",
    "dpmpp_3m",
    "edm_heun",
    "plms",
    "unipc",
]
