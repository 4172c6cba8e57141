"""Vector fields: modules called as `field(t, y, args)`.

The fields of controlled differential equations give a matrix, `(hidden, channels)`.
"""

from .affine import Affine, clip_weights
from .cde import CDEField
from .gru_flow import GRUFlow
from .linear import LinearField
from .log_ode import LogField
from .mlp import MLP, lipswish

__all__ = [
    "Affine",
    "CDEField",
    "GRUFlow",
    "LinearField",
    "LogField",
    "MLP",
    "clip_weights",
    "lipswish",
]
