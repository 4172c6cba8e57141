"""Noise and data that have nothing to do with one another."""

import equinox as eqx
import jax.random as jr
from jaxtyping import Array, Float

from .cost import RandomKey, check_batches


class Independent(eqx.Module):
    """Pairs at random: the rows of `x0` in a random order.

    Raises:
        ValueError: when called, if the batches differ in shape.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, ndekit as nk

        x0, x1 = jnp.arange(4.0), jnp.arange(4.0)
        found, same = nk.couplings.Independent()(x0, x1, key=jr.key(0))
        assert jnp.all(jnp.sort(found) == x0) and jnp.all(same == x1)
        ```
    """

    def __call__(
        self, x0: Float[Array, "n *shape"], x1: Float[Array, "n *shape"], *, key: RandomKey
    ) -> tuple[Float[Array, "n *shape"], Float[Array, "n *shape"]]:
        check_batches(x0, x1)
        return jr.permutation(key, x0), x1
