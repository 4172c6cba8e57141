"""Control paths: from readings to paths that drive an equation, and what they do in a window."""

from .channels import channels
from .log_signature import LogSignature
from .lyndon import from_lyndon, lyndon_brackets, lyndon_words, to_lyndon
from .of_series import logsignature
from .paths import HermitePath, LinearPath, RectilinearPath
from .schemes import hermite, linear, rectilinear
from .windows import Windows

__all__ = [
    "HermitePath",
    "LinearPath",
    "LogSignature",
    "RectilinearPath",
    "Windows",
    "channels",
    "from_lyndon",
    "hermite",
    "linear",
    "logsignature",
    "lyndon_brackets",
    "lyndon_words",
    "rectilinear",
    "to_lyndon",
]
