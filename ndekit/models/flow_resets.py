"""How flow-and-reset models read a row."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .flow_states import Jumping
from .gru_cell import GRUCell
from .observations import Observation


class GRUReset(eqx.Module):
    """A GRU cell that is told what was read, which of it is there, and perhaps the time since."""

    cell: GRUCell
    gap: bool = eqx.field(static=True)

    def __init__(self, channels: int, hidden_size: int, *, gap: bool = False, key: Any):
        self.cell = GRUCell(2 * channels + int(gap), hidden_size, key=key)
        self.gap = gap

    def __call__(self, y: Float[Array, " hidden"], row: Observation) -> Float[Array, " hidden"]:
        parts = [row.x, row.mask.astype(row.x.dtype)]
        if self.gap:
            parts.append(row.gap[None])
        return self.cell(jnp.concatenate(parts), y)


class Surprise(eqx.Module):
    """A GRU cell that is told of each channel what was predicted, and how far off it was."""

    cell: GRUCell
    weight: Float[Array, "channels prepared four"]
    bias: Float[Array, "channels prepared"]
    prediction: Callable

    def __init__(
        self, channels: int, hidden_size: int, prepared: int, prediction: Callable, *, key: Any
    ):
        keys = jr.split(key)
        self.cell = GRUCell(channels * prepared, hidden_size, key=keys[0])
        scale = (2 / (4 + prepared)) ** 0.5
        self.weight = scale * jr.normal(keys[1], (channels, prepared, 4))
        self.bias = jnp.full((channels, prepared), 0.1, self.weight.dtype)  # or it is weakly typed
        self.prediction = prediction

    def __call__(self, y: Float[Array, " hidden"], row: Observation) -> Float[Array, " hidden"]:
        mean, log_variance = self.prediction(y)
        off = (row.x - mean) * jnp.exp(-0.5 * log_variance)
        told = jnp.stack([row.x, mean, log_variance, off], axis=-1)
        ready = jax.nn.relu(jnp.einsum("cpf,cf->cp", self.weight, told) + self.bias)
        return self.cell(jnp.where(row.mask[:, None], ready, 0).ravel(), y)


class Replace(eqx.Module):
    """The state anew from what was read; what is missing is what was predicted."""

    encoder: Callable
    prediction: Callable

    def ahead(self, row: Observation) -> Jumping | None:
        """Of one channel, a row that was read lacks nothing: then no state is needed to read it."""
        return self._anew(row.x, row) if row.x.shape[-1] == 1 else None

    def __call__(self, y: Jumping, row: Observation, ready: Jumping | None = None) -> Jumping:
        if ready is not None:
            return ready
        return self._anew(jnp.where(row.mask, row.x, self.prediction(y)), row)

    def _anew(self, x: Float[Array, " channels"], row: Observation) -> Jumping:
        return Jumping(self.encoder(x), x, jnp.asarray(row.t, x.dtype))
