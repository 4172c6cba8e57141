"""Laws with a density and samples: what a flow starts from."""

import abc
import math
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, UInt

from ..numbers import count
from ..shapes import Scalar

LOG_2_PI = math.log(2 * math.pi)


class AbstractDensity(eqx.Module):
    """A law of arrays of one shape: its log density, and samples.

    Arrays inside are learnt with whatever the law is part of.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""

    @abc.abstractmethod
    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "*batch"]:
        """The log density, in nats, at `x`, `(*batch, *shape)`."""

    @abc.abstractmethod
    def sample(
        self, batch: tuple[int, ...] = (), *, key: Key[Array, ""] | UInt[Array, "2"]
    ) -> Float[Array, "..."]:
        """Independent samples, `(*batch, *shape)`."""


def check_points(x: Any, shape: tuple[int, ...], reason: str = "") -> None:
    """Pass over points, `(*batch, *shape)`.

    Raises:
        ValueError: for other shapes; `reason` says why this one.
    """
    if x.shape[x.ndim - len(shape) :] != shape:
        raise ValueError(
            f"`x` must be points of shape {('...', *shape)}{reason}, got {tuple(x.shape)}."
        )


class StandardNormal(AbstractDensity):
    """Independent normal numbers of mean 0 and variance 1. Nothing of it is learnt.

    Args:
        shape: of one sample; a number stands for that many in a row.

    Raises:
        ValueError: for lengths that are no whole numbers from 1.

    Example:
        ```python
        import jax.random as jr, ndekit as nk

        base = nk.models.StandardNormal(2)
        x = base.sample((5,), key=jr.key(0))
        assert x.shape == (5, 2) and base.log_prob(x).shape == (5,)
        ```
    """

    lengths: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, shape: int | tuple[int, ...]):
        lengths = shape if isinstance(shape, tuple) else (shape,)
        self.lengths = tuple(count("shape", length) for length in lengths)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.lengths

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "*batch"]:
        check_points(x, self.shape)
        axes = tuple(range(-len(self.shape), 0))
        return -0.5 * jnp.sum(x**2 + LOG_2_PI, axis=axes)

    def sample(
        self, batch: tuple[int, ...] = (), *, key: Key[Array, ""] | UInt[Array, "2"]
    ) -> Float[Array, "..."]:
        return jr.normal(key, (*batch, *self.shape))


class Normal(AbstractDensity):
    """Independent normal numbers of given means and spreads; as a pair, these two.

    Args:
        mean: of each number.
        log_std: the logarithm of its standard deviation, of the same shape.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        law = nk.models.Normal(jnp.zeros(3), jnp.zeros(3))
        assert abs(law.log_prob(jnp.zeros(3)) + 2.757) < 1e-3  # -3/2 log(2 pi)
        ```
    """

    mean: Float[Array, "*shape"]
    log_std: Float[Array, "*shape"]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mean.shape

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "*batch"]:
        mean, log_std = (jnp.broadcast_to(part, x.shape) for part in (self.mean, self.log_std))
        off = (x - mean) * jnp.exp(-log_std)
        axes = tuple(range(-self.mean.ndim, 0))
        return -jnp.sum(0.5 * (off**2 + LOG_2_PI) + log_std, axis=axes)

    def sample(
        self, batch: tuple[int, ...] = (), *, key: Key[Array, ""] | UInt[Array, "2"]
    ) -> Float[Array, "..."]:
        shape = (*batch, *self.shape)
        mean, log_std = (jnp.broadcast_to(part, shape) for part in (self.mean, self.log_std))
        return mean + jnp.exp(log_std) * jr.normal(key, shape, mean.dtype)

    def __iter__(self) -> Iterator[Array]:
        return iter((self.mean, self.log_std))

    def kl(self, other: "Normal") -> Scalar:
        """The divergence of this law from another, in the mean over leading axes."""
        mean, log_std = (jnp.broadcast_to(x, self.mean.shape) for x in other)
        ratio = jnp.exp(2 * (self.log_std - log_std))
        off = (self.mean - mean) ** 2 * jnp.exp(-2 * log_std)
        return jnp.mean(jnp.sum(0.5 * (ratio + off - 1) - self.log_std + log_std, axis=-1))
