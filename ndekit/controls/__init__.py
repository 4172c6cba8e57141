"""Control paths: from readings to paths that drive an equation, and what they do in a window."""

from .channels import channels
from .paths import HermitePath, LinearPath, RectilinearPath
from .schemes import hermite, linear, rectilinear

__all__ = [
    "HermitePath",
    "LinearPath",
    "RectilinearPath",
    "channels",
    "hermite",
    "linear",
    "rectilinear",
]
