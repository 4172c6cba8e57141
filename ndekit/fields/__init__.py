"""Vector fields: modules called as `field(t, y, args)`."""

from .affine import Affine as Affine
from .mlp import MLP as MLP
