"""Vector fields: modules called as `field(t, y, args)`.

The fields of controlled differential equations give a matrix, `(hidden, channels)`.
"""

from .affine import Affine, clip_weights
from .augmented import Augmented
from .cde import CDEField
from .concat_squash import ConcatSquash, GatedAffine
from .convolution import ConvField
from .gradient import Gradient
from .graph import Graph
from .gru_flow import GRUFlow
from .hamiltonian import Hamiltonian, SeparableEnergy
from .lagrangian import Lagrangian
from .linear import LinearField
from .log_ode import LogField
from .mlp import MLP, lipswish
from .preconditioned import Preconditioned
from .second_order import SecondOrder
from .unet import UNet

__all__ = [
    "Affine",
    "Augmented",
    "CDEField",
    "ConcatSquash",
    "ConvField",
    "GRUFlow",
    "GatedAffine",
    "Gradient",
    "Graph",
    "Hamiltonian",
    "Lagrangian",
    "LinearField",
    "LogField",
    "MLP",
    "Preconditioned",
    "SecondOrder",
    "SeparableEnergy",
    "UNet",
    "clip_weights",
    "lipswish",
]
