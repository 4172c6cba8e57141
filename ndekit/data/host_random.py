"""Random numbers on the host, from a key of JAX."""

from typing import TypeAlias

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, Key, UInt

AnyKey: TypeAlias = Key[Array, ""] | UInt[Array, "2"]


def generator(key: AnyKey) -> np.random.Generator:
    """NumPy's generator with the bits of `key` for a seed: the same key gives the same numbers.

    Data are made once, on the host: JAX would compile a program for each number of series.
    """
    bits = jr.key_data(key) if jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return np.random.default_rng(np.asarray(bits).tolist())
