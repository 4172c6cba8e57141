"""Vector fields: modules called as `field(t, y, args)`."""

from .affine import Affine, clip_weights
from .mlp import MLP, lipswish

__all__ = [
    "Affine",
    "MLP",
    "clip_weights",
    "lipswish",
]
