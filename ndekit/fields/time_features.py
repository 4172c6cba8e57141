"""The time as several smooth numbers."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..shapes import Time, time_in


def time_features(
    t: Time, number: int, fastest: float, dtype: jnp.dtype | type
) -> Float[Array, " number"]:
    r"""$\sin(\omega_k t), \cos(\omega_k t)$ with `number / 2` frequencies in geometric steps from 1
    to `fastest`, in radians per unit of time.

    Their derivative is as large as `fastest`, which a solver pays for in steps.
    """
    frequencies = jnp.asarray(np.geomspace(1.0, fastest, number // 2), dtype)
    phases = time_in(dtype, t) * frequencies
    return jnp.concatenate([jnp.sin(phases), jnp.cos(phases)])
