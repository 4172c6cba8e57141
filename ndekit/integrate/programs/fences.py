"""Fences that keep XLA's CPU compiler from computing a stage anew in every place that reads it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core as jex_core

from ...shapes import Count
from .equations import primitive_names

Fence = Callable[[Any], Any]

# Primitives that XLA's CPU fusion does not duplicate: products of matrices and convolutions are
# calls, and transcendental functions count as expensive.
_NEVER_DUPLICATED = frozenset(
    "dot_general conv_general_dilated cholesky lu qr eigh triangular_solve custom_linear_solve fft "
    "tanh logistic exp exp2 expm1 log log1p sin cos tan asin acos atan atan2 sinh cosh asinh acosh "
    "atanh pow erf erfc erf_inv lgamma digamma sqrt rsqrt cbrt "
    "reduce_sum cumsum sort while scan cond".split()
)


def no_fence(x: Any) -> Any:
    return x


def fence_at(attempt: Count) -> Fence:
    """Divide by a scalar that equals one, which the compiler cannot see through.

    XLA fuses the unrolled stages by recomputing cheap producers in every consumer. In the reverse
    step of a field made of additions and products that grows exponentially with the number of
    stages (1499 additions where 117 do). `lax.optimization_barrier` is dropped before fusion on
    CPU. The loop's own counter is unknown at compile time, the same for all lanes, and a division
    is "expensive", so no fusion repeats what stands before it. No bit changes.
    """
    one = lax.stop_gradient(1.0 + 0.0 * attempt.astype(jnp.float32))
    return lambda x: jax.tree.map(lambda leaf: leaf / one.astype(leaf.dtype), x)


def is_duplicated(jaxpr: jex_core.Jaxpr) -> bool:
    """Whether a field is made of cheap operations alone, so that its stages need fences."""
    return not any(name in _NEVER_DUPLICATED for name in primitive_names(jaxpr))
