"""Loops whose number of turns is known, and loops that are asked less often whether they go on.

A loop of unknown length on an accelerator stands still after every turn, until the host has read
whether there is another. A loop that counts to a number is launched ahead.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import lax

# Attempts that an accelerator makes before it is asked. Those behind the last one are in vain.
_TOGETHER = 4


def counted(number: int, turn: Callable[[Any], Any], state: Any) -> Any:
    """`turn`, so many times."""
    return lax.fori_loop(0, number, lambda _, state: turn(state), state)


def until(
    goes_on: Callable[[Any], Any], turn: Callable[[Any], Any], state: Any, together: int
) -> Any:
    """`turn` while it `goes_on`, which is asked after so many of them."""
    if together == 1:
        return lax.while_loop(goes_on, turn, state)
    return lax.while_loop(goes_on, lambda state: counted(together, turn, state), state)


def turns_together(most: int | None) -> int:
    """How many turns are made before somebody asks, of `most` in all: a divisor of that."""
    if is_on_host() or most is None:
        return 1
    return math.gcd(most, _TOGETHER)


def is_on_host() -> bool:
    """Whether JAX's loops run where they are asked, as on a CPU."""
    return jax.default_backend() == "cpu"
