"""Lanes: the batch axes of a solve, written out so that shared arrays stay shared.

Under `jax.vmap` the engine does not let JAX batch its loops. It runs one loop for all lanes and maps only the work of
one attempt, because then (i) the attempt counter is one plain scalar, so that records are slices and not scatters, and
(ii) the reverse step of all lanes is one vjp, so that the cotangent of parameters that all lanes share is contracted
over lanes inside a matrix product instead of being kept once a lane.
"""

from collections.abc import Callable
from typing import Any

import jax

# One entry per batch axis, outermost first; each says which of the flat operands have that axis (as their leading one).
Lanes = tuple[tuple[bool, ...], ...]


def over_lanes(fn: Callable, lanes: Lanes) -> Callable:
    """Map `fn(operands, shared, *each)` over all lanes.

    `operands` is a flat list whose entries have a lane axis or not, as `lanes` says; `shared` has none; every array in
    `each`, and in what comes back, has all of them.
    """
    for flags in reversed(lanes):
        fn = _map_once(fn, [0 if flag else None for flag in flags])
    return fn


def _map_once(fn: Callable, axes: list[Any]) -> Callable:
    def mapped(operands: list[Any], shared: Any, *each: Any) -> Any:
        in_axes = (axes, None, *[0] * len(each))
        return jax.vmap(fn, in_axes=in_axes)(operands, shared, *each)

    return mapped


def lane_shape(lanes: Lanes, operands: list[Any]) -> tuple[int, ...]:
    """The sizes of the lane axes, outermost first."""
    sizes = []
    seen = [0] * len(operands)
    for flags in lanes:
        index = flags.index(True)
        sizes.append(operands[index].shape[seen[index]])
        seen = [n + flag for n, flag in zip(seen, flags, strict=True)]
    return tuple(sizes)
