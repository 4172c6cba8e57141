"""The number that an adaptive controller compares with one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ... import tree
from ...shapes import Scalar, State


def scale_of(y0: State, y1: State, rtol: Any, atol: Any) -> State:
    r"""$\text{atol} + \text{rtol} \max(|y_0|, |y_1|)$."""
    largest = jax.tree.map(lambda a, b: jnp.maximum(jnp.abs(a), jnp.abs(b)), y0, y1)
    with jax.numpy_dtype_promotion("standard"):
        return jax.tree.map(lambda x: atol + x * rtol, largest)


def scaled_error(
    norm: Callable[[State], Any], error: State, y0: State, y1: State, rtol: Any, atol: Any
) -> Scalar:
    """The norm of error / scale, infinite where an error or the state at the end is not finite.

    Written in one way for the controller and for costs, so that it is computed once for both.
    """

    def ratio(error: Any, y1: Any, scale: Any) -> Any:
        # An infinite state would hide its error behind an infinite scale.
        ratio = (error + lax.stop_gradient(0 * y1)) / scale
        return jnp.where(jnp.isnan(ratio), jnp.inf, ratio)

    with jax.numpy_dtype_promotion("standard"):
        ratios = jax.tree.map(ratio, error, y1, scale_of(y0, y1, rtol, atol))
    return jnp.asarray(norm(ratios)).astype(tree.real_dtype(y0))


def without_nans(y0: State, y1: State, error: State | None) -> tuple[State, State | None]:
    """The end of a step and its error, as a controller is to see them.

    A NaN error or an infinite state means that the step went where the field is not defined; it
    will be rejected.
    """
    finite = tree.all_finite(y1)
    error = jax.tree.map(lambda e: jnp.where(finite & ~jnp.isnan(e), e, jnp.inf), error)
    return jax.tree.map(lambda y1, y: jnp.where(finite, y1, y), y1, y0), error
