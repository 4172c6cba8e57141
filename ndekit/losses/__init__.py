"""What flows are trained by, of one sample each: map over a batch with `jax.vmap`, take the mean.

A field is called as `field(t, x, args)`; a flow map, which knows in one evaluation where a whole
stretch of time leads, as `field(t, x, s)` with the time `s` up to which it goes.
"""

from .flow_maps import consistency, mean_flow, shortcut
from .matching import bridge_matching, denoising, flow_matching
from .straight import iso
from .times import stratified_times

__all__ = [
    "bridge_matching",
    "consistency",
    "denoising",
    "flow_matching",
    "iso",
    "mean_flow",
    "shortcut",
    "stratified_times",
]
