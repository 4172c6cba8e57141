"""Names for the shapes and dtypes that signatures speak of."""

from typing import Any, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

Scalar: TypeAlias = Float[Array, ""]
# One a solve, or one a lane where a solve runs in lanes.
Count: TypeAlias = Int[Array, "..."]
Flag: TypeAlias = Bool[Array, "..."]
# A real number: a Python scalar, a NumPy scalar or an array.
Time: TypeAlias = Any
State: TypeAlias = PyTree[Any]
Args: TypeAlias = PyTree[Any]


def time_in(dtype: Any, t: Time) -> Scalar:
    """A vector field's time, in this dtype if there is one.

    Raises:
        ValueError: for several times, which would be taken for several units of the field.
    """
    t = jnp.asarray(t, dtype)
    if t.ndim:
        raise ValueError(
            f"A vector field has one time, got shape {t.shape}. Map over several by `jax.vmap`."
        )
    return t
