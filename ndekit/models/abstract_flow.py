"""What every flow with a density is called by."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt

from ..integrate import Solution
from ..shapes import Args


class AbstractFlow(eqx.Module):
    """A law whose log density is a solve."""

    @abc.abstractmethod
    def log_prob_and_solution(
        self,
        x: Float[Array, "..."],
        args: Args = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"] | None = None,
    ) -> tuple[Float[Array, "*batch"], Solution]:
        """The log density at `x`, and its solve: `costs`, `stats`, `result`."""

    def log_prob(
        self,
        x: Float[Array, "..."],
        args: Args = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"] | None = None,
    ) -> Float[Array, "*batch"]:
        """The log density at `x`, in nats.

        Args:
            x: a point, or points that are solved as one state, `(*batch, *shape)`.
            args: passed on to the field or the network.
            key: for a trace that draws, and for costs that do.
        """
        return self.log_prob_and_solution(x, args, key=key)[0]

    def __call__(
        self,
        x: Float[Array, "..."],
        args: Args = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"] | None = None,
    ) -> tuple[Float[Array, "*batch"], Solution]:
        """The same as `log_prob_and_solution`."""
        return self.log_prob_and_solution(x, args, key=key)


def checked_points(name: str, x: Any, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Points, `(*batch, *shape)`, as an array.

    Raises:
        ValueError: for other shapes, or numbers that are not real and floating.
    """
    x = jnp.asarray(x)
    if x.shape[x.ndim - len(shape) :] != shape or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"`{name}` must be real numbers of shape {('...', *shape)}, as the base law has them, "
            f"but is {x.dtype}{list(x.shape)}."
        )
    return x
