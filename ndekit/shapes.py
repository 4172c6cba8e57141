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


def time_in(dtype: Any, t: Time, *, of_samples: bool = False) -> Array:
    """A vector field's time, in this dtype if there is one.

    Args:
        of_samples: whether times `(*batch, 1)` are taken as well, one for each sample.

    Raises:
        ValueError: for several times, which would be taken for several units of the field.
    """
    t = jnp.asarray(t, dtype)
    if t.size == 1:
        return t.reshape(())
    if of_samples and t.shape[-1] == 1:
        return t
    raise ValueError(
        f"A vector field has one time, got shape {t.shape}. Map over several by `jax.vmap`"
        + (", or give each sample its own, `(..., 1)`." if of_samples else ".")
    )
