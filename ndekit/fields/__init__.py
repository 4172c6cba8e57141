"""Vector fields: modules called as `field(t, y, args)`."""

from .affine import Affine as Affine
from .affine import clip_weights as clip_weights
from .mlp import MLP as MLP
from .mlp import lipswish as lipswish
