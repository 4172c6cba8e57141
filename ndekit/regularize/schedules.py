r"""Coefficients that change during training: functions from the update number to a coefficient.

Any optax schedule is one as it is.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp

from ..shapes import Scalar

Schedule: TypeAlias = Callable[[Any], Any]


def constant(value: float) -> Schedule:
    """`value`, always."""
    return lambda step: jnp.full((), value, jnp.result_type(float))


def linear(start: float, end: float, steps: int) -> Schedule:
    r"""$a + (b - a)\, s / N$ up to step $N$, then $b$."""
    _check_steps(steps)
    return lambda step: start + (end - start) * _fraction(step, steps)


def exponential(start: float, end: float, steps: int) -> Schedule:
    r"""$a\, (b/a)^{s/N}$ up to step $N$, then $b$: the published regularisers' decay (or growth).

    Raises:
        ValueError: unless `start` and `end` are positive.

    Example:
        ```python
        import ndekit as nk

        coefficient = nk.regularize.schedules.exponential(100.0, 10.0, steps=75)
        coefficient(0), coefficient(75)
        ```

    Reference: Pal et al., ICML 2021, training details (100 to 10 over 75 epochs for MNIST).
    """
    _check_steps(steps)
    if start <= 0 or end <= 0:
        raise ValueError(
            f"An exponential schedule needs positive ends, but got {start} and {end}. "
            "Use `linear` to reach zero."
        )
    return lambda step: start * (end / start) ** _fraction(step, steps)


def as_schedule(coefficient: float | Schedule) -> Schedule:
    """A number becomes a constant schedule; a schedule stays what it is."""
    return coefficient if callable(coefficient) else constant(coefficient)


def _fraction(step: Any, steps: int) -> Scalar:
    return jnp.clip(jnp.asarray(step, jnp.result_type(float)) / steps, 0, 1)


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1, but got {steps}.")
