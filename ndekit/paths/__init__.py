"""Gaussian probability paths between noise, at time 0, and data, at time 1.

`convert` turns what a network predicts into data, noise, velocity or score; `scale_time` moves a
trained velocity field to another path. `Bridge` and `NoisyLine` join two
samples.
"""

from .bridge import AbstractBridge, Bridge, NoisyLine
from .conversion import convert
from .diffusion import EDM, VE, VP, Cosine, SubVP
from .gaussian import AbstractGaussianPath
from .kinetic import KineticOptimal
from .learned import LearnedPath
from .scaling import ScaledTime, scale_time
from .shifted import Shifted
from .straight import CondOT, LogVariance, Polynomial, Trigonometric
from .units import PathUnits

__all__ = [
    "AbstractBridge",
    "AbstractGaussianPath",
    "Bridge",
    "CondOT",
    "Cosine",
    "EDM",
    "KineticOptimal",
    "LearnedPath",
    "LogVariance",
    "NoisyLine",
    "PathUnits",
    "Polynomial",
    "ScaledTime",
    "Shifted",
    "SubVP",
    "Trigonometric",
    "VE",
    "VP",
    "convert",
    "scale_time",
]
