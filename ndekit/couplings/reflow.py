"""Noise and what a trained flow makes of it."""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Float

from .cost import RandomKey


class Reflow(eqx.Module):
    """Pairs of noise and the sample that a trained flow makes of it: `(x0, sample(x0))`.

    A flow trained on such pairs has straighter ways, for the pairs do not cross. The flow is solved
    at each call; for many epochs make the pairs once, in batches.

    Args:
        sample: takes one noise, gives one sample: the solve of the trained flow.

    Raises:
        ValueError: when called, if a sample has not the shape of its noise.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        def sample(x0):
            term = diffrax.ODETerm(lambda t, y, args: -y)
            return nk.diffeqsolve(term, diffrax.Heun(), 0.0, 1.0, 0.1, x0).ys[-1]

        x0, x1 = nk.couplings.Reflow(sample)(jnp.ones((5, 2)))
        assert x1.shape == (5, 2) and jnp.allclose(x1, jnp.exp(-1.0), atol=1e-3)
        ```

    Reference: Liu, Gong and Liu (2023), "Flow straight and fast", arXiv 2209.03003.
    """

    sample: Callable

    def __call__(
        self,
        x0: Float[Array, "n *shape"],
        x1: Float[Array, "n *shape"] | None = None,
        *,
        key: RandomKey | None = None,
    ) -> tuple[Float[Array, "n *shape"], Float[Array, "n *shape"]]:
        """`x1` and `key` are not looked at; couplings are called with them."""
        made = jax.lax.stop_gradient(jax.vmap(self.sample)(x0))
        if made.shape != x0.shape:
            raise ValueError(
                f"`sample` must make one sample of the shape of its noise, {x0.shape[1:]}, "
                f"got {made.shape[1:]}."
            )
        return x0, made
