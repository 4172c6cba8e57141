"""Parts of flow-and-reset models: where states start, how they flow, what is predicted of them."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from ..shapes import Args, Time
from .gru_cell import GRUCell
from .known_flow import AbstractKnownFlow


class Zeros(eqx.Module):
    """A state of zeros, whatever is known besides."""

    size: int = eqx.field(static=True)

    def __call__(self, static: Any = None) -> Float[Array, " size"]:
        return jnp.zeros(self.size)


class FromStatic(eqx.Module):
    """tanh of a network of what does not change along a series."""

    net: eqx.nn.MLP

    def __init__(self, static_size: int, hidden_size: int, *, key: Any):
        self.net = eqx.nn.MLP(static_size, hidden_size, hidden_size, 1, key=key)

    def __call__(self, static: Any = None) -> Float[Array, " hidden"]:
        if static is None or jnp.shape(static) != (self.net.in_size,):
            got = "nothing" if static is None else f"shape {jnp.shape(static)}"
            raise ValueError(
                f"This model starts from `static` of shape ({self.net.in_size},), but got {got}."
            )
        return jnp.tanh(self.net(jnp.asarray(static)))


class Prediction(eqx.Module):
    """`net` of a state, or of the part of it that is called `of`."""

    net: Callable
    of: str | None = eqx.field(static=True, default=None)
    shape: tuple[int, ...] | None = eqx.field(static=True, default=None)

    def __call__(self, y: Any) -> Array:
        out = self.net(y if self.of is None else getattr(y, self.of))
        return out if self.shape is None else out.reshape(self.shape)


class Fed(eqx.Module):
    """A flow that is told the prediction."""

    flow: Callable
    prediction: Callable

    def __call__(self, t: Time, y: Array, args: Args = None) -> Array:
        return self.flow(t, y, self.prediction(y).ravel())


class Decaying(eqx.Module):
    """The state of a GRU-D: `h`, and the time since each channel was read."""

    h: Float[Array, " hidden"]
    since: Float[Array, " channels"]


class ZeroDecaying(eqx.Module):
    channels: int = eqx.field(static=True)
    hidden_size: int = eqx.field(static=True)

    def __call__(self, static: Any = None) -> Decaying:
        return Decaying(jnp.zeros(self.hidden_size), jnp.zeros(self.channels))


class Decays(AbstractKnownFlow):
    r"""$h \leftarrow e^{-\max(0, W \delta + b)} h$ after a gap, with $\delta$ the time since each
    channel was read.
    """

    of_times: eqx.nn.Linear

    def __init__(self, channels: int, hidden_size: int, *, key: Any):
        self.of_times = eqx.nn.Linear(channels, hidden_size, key=key)

    def __call__(self, gap: Time, y: Decaying) -> Decaying:
        since = y.since + gap
        return Decaying(decay(self.of_times(since)) * y.h, since)


class ReadDecaying(eqx.Module):
    """A row into a GRU-D: what is missing decays towards the mean 0."""

    cell: GRUCell
    weight: Float[Array, " channels"]
    bias: Float[Array, " channels"]

    def __init__(self, channels: int, hidden_size: int, *, key: Any):
        self.cell = GRUCell(2 * channels, hidden_size, key=key)
        self.weight, self.bias = jr.uniform(jr.fold_in(key, 1), (2, channels))

    def __call__(self, y: Decaying, row: Any) -> Decaying:
        faded = decay(self.weight * row.since + self.bias) * row.last
        x = jnp.where(row.mask, row.x, faded)
        seen = jnp.concatenate([x, row.mask.astype(x.dtype)])
        return Decaying(self.cell(seen, y.h), jnp.where(row.mask, 0, y.since))


def decay(rate: Array) -> Array:
    r"""$e^{-\max(0, \cdot)}$."""
    return jnp.exp(-jax.nn.relu(rate))


class Jumping(eqx.Module):
    """The state of a neural jump ODE: `h`, and the last row, which does not move."""

    h: Float[Array, " hidden"]
    x: Float[Array, " channels"]
    t: Float[Array, ""]


class ZeroJump(eqx.Module):
    channels: int = eqx.field(static=True)
    hidden_size: int = eqx.field(static=True)

    def __call__(self, static: Any = None) -> Jumping:
        return Jumping(jnp.zeros(self.hidden_size), jnp.zeros(self.channels), jnp.zeros(()))


class JumpField(eqx.Module):
    r"""$h' = f(\tanh x_\mathrm{last}, \tanh h, \tau, t - \tau)$."""

    net: eqx.nn.MLP

    def __init__(self, channels: int, hidden_size: int, width: int, depth: int, *, key: Any):
        size = channels + hidden_size + 2
        self.net = eqx.nn.MLP(size, hidden_size, width, depth, jnp.tanh, key=key)

    def __call__(self, t: Time, y: Jumping, args: Args = None) -> Jumping:
        times = jnp.stack([y.t, t - y.t])
        h = self.net(jnp.concatenate([jnp.tanh(y.x), jnp.tanh(y.h), times]))
        return Jumping(h, jnp.zeros_like(y.x), jnp.zeros_like(y.t))


class ResidualTanh(eqx.Module):
    """A tanh network of tanh of its input, plus the input, repeated or averaged to fit."""

    net: eqx.nn.MLP

    def __init__(self, size: int, out: int, width: int, depth: int, *, key: Any):
        self.net = eqx.nn.MLP(size, out, width, depth, jnp.tanh, key=key)

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " out"]:
        return self.net(jnp.tanh(x)) + fitted(x, int(self.net.out_size))


def fitted(x: Float[Array, " size"], out: int) -> Float[Array, " out"]:
    """The numbers repeated until there are `out`; or means of as many stretches of them."""
    if x.size <= out:
        return jnp.tile(x, -(-out // x.size))[:out]
    parts = jnp.arange(x.size) * out // x.size
    sums = jnp.zeros(out, x.dtype).at[parts].add(x)
    return sums / jnp.zeros(out, x.dtype).at[parts].add(1)
