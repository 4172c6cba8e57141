"""How many steps a solve takes, where its controller says so before it runs."""

from typing import Any

import diffrax
import jax
import numpy as np

from ...shapes import Time
from ..times import direction_of, is_concrete, promote_times, reflected

# Counting further than this, nobody would compile.
_MOST = 2**24


def num_turns_of(controller: Any, t0: Time, t1: Time, dt0: Time | None) -> int | None:
    """The number of steps, or a few more; `None` where it depends on what is computed."""
    if type(controller) is diffrax.StepTo:
        return len(controller.ts) - 1
    known = dt0 is not None and all(map(is_concrete, (t0, t1, dt0)))
    if type(controller) is not diffrax.ConstantStepSize or not known:
        return None
    with jax.ensure_compile_time_eval():
        t0, t1, dt0 = promote_times(t0, t1, dt0)
        direction = direction_of(t0, t1)
        start, end, h = (np.asarray(reflected(t, direction)) for t in (t0, t1, dt0))
    # As diffrax counts them: one that ends less than a rounding before t1 is no step of its own.
    number = np.ceil((end - start) / np.nextafter(h, h.dtype.type(np.inf)))
    return int(max(number, 1)) if number <= _MOST else None
