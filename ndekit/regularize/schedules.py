r"""Coefficients that change during training: functions from the update number to a coefficient.

Any optax schedule is one as it is.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp

from ..numbers import count, positive, real
from ..shapes import Scalar

Schedule: TypeAlias = Callable[[Any], Any]


def constant(value: float) -> Schedule:
    """`value`, always.

    Raises:
        ValueError: if it is negative or not finite.
    """
    real("value", value, least=0.0)
    return lambda step: jnp.full((), value, jnp.result_type(float))


def linear(start: float, end: float, steps: int) -> Schedule:
    r"""$a + (b - a)\, s / N$ up to step $N$, then $b$.

    Raises:
        ValueError: if `start` or `end` is negative or not finite, or `steps` no whole number from
            1.
    """
    real("start", start, least=0.0)
    real("end", end, least=0.0)
    count("steps", steps)
    return lambda step: start + (end - start) * _fraction(step, steps)


def exponential(start: float, end: float, steps: int) -> Schedule:
    r"""$a\, (b/a)^{s/N}$ up to step $N$, then $b$: the published regularisers' decay (or growth).

    Raises:
        ValueError: unless `start` and `end` are positive and finite, and `steps` a whole number
            from 1.

    Example:
        ```python
        import ndekit as nk

        coefficient = nk.regularize.schedules.exponential(100.0, 10.0, steps=75)
        coefficient(0), coefficient(75)
        ```

    Reference: Pal et al., ICML 2021, training details (100 to 10 over 75 epochs for MNIST).
    """
    positive("start", start, advice="Use `linear` to begin at zero.")
    positive("end", end, advice="Use `linear` to reach zero.")
    count("steps", steps)
    return lambda step: start * (end / start) ** _fraction(step, steps)


def kl_anneal(start: int = 10, rate: float = 0.99) -> Schedule:
    r"""0 up to step `start`, then $1 - r^{s - \mathrm{start}}$: the weight of a divergence that is
    let in once a model reconstructs. For epochs, divide: `kl_anneal(10)(step // updates)`.

    Raises:
        ValueError: if `start` is no whole number from 0, or `rate` not between 0 and 1.

    Reference: Rubanova, Chen and Duvenaud (2019), arXiv 1907.03907, their code.
    """
    count("start", start, 0)
    real("rate", rate, above=0.0, below=1.0)
    since = lambda step: jnp.maximum(jnp.asarray(step, jnp.result_type(float)) - start, 0)
    return lambda step: 1 - rate ** since(step)


def _fraction(step: Any, steps: int) -> Scalar:
    return jnp.clip(jnp.asarray(step, jnp.result_type(float)) / steps, 0, 1)
