"""What reads a series for a latent ODE: from its last row back to its first."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..data import Series
from ..fields import MLP
from ..shapes import Args, Time
from .flow_reset import FlowReset
from .flow_resets import GRUReset
from .flow_states import Prediction, Zeros
from .known_flow import Stays
from .observations import Observation


class Backwards(eqx.Module):
    """A flow-and-reset model that is told a series from its last row to its first. Its time is that
    which is left behind: 0 at the last row.
    """

    model: FlowReset

    def __call__(self, series: Series, *, key: Any = None) -> tuple[Array, Any]:
        """The prediction behind the first row, and the solution."""
        said, sol = self.model(backwards(series), key=key)
        return said.last, sol


def backwards(series: Series) -> Series:
    """A series from its last row to its first, by the time since the last."""
    series = series.clean()
    length: Any = series.length
    rows = jnp.arange(len(series.ts), dtype=length.dtype)
    order = jnp.where(rows < length, length - 1 - rows, rows)
    ts = jnp.asarray(series.ts)[length - 1] - series.ts[order]
    new = eqx.tree_at(
        lambda s: (s.ts, s.xs, s.mask), series, (ts, series.xs[order], series.mask[order])
    )
    return new.clean()


def gru_encoder(
    channels: int, size: int, out: int, *, width: int = 50, key: Any, **options: Any
) -> Backwards:
    """A GRU of what was read, what of it is there, and the time to the row behind; then a tanh
    network with one hidden layer.
    """
    keys = jax.random.split(key)
    model = FlowReset(
        start=Zeros(size),
        flow=Stays(),
        reset=GRUReset(channels, size, gap=True, key=keys[0]),
        readout=eqx.nn.MLP(size, out, width, 1, jnp.tanh, key=keys[1]),
        channels=channels,
        **options,
    )
    return Backwards(model)


def ode_rnn_encoder(
    channels: int, size: int, out: int, *, width: int = 50, units: int = 100, key: Any,
    **options: Any,
) -> Backwards:  # fmt: skip
    """An ODE-RNN whose state is a mean, which flows, and a spread, which does not; at each row both
    are changed through a gate.
    """
    keys = jax.random.split(key, 3)
    model = FlowReset(
        start=_NoSpread(size),
        flow=_MeanFlows(MLP(size, width, 1, key=keys[0])),
        reset=GatedReset(channels, size, units, key=keys[1]),
        readout=Prediction(eqx.nn.MLP(2 * size, out, 100, 1, jnp.tanh, key=keys[2]), "both"),
        channels=channels,
        **options,
    )
    return Backwards(model)


def gated_encoder(
    channels: int, size: int, out: int, *, width: int = 50, units: int = 100, key: Any,
    **options: Any,
) -> Backwards:  # fmt: skip
    """The ODE-RNN's gate without its flow, told the time to the row behind, as Pal et al. (2021)
    have it; then a tanh network with one hidden layer.
    """
    keys = jax.random.split(key)
    model = FlowReset(
        start=_NoSpread(size),
        flow=Stays(),
        reset=GatedReset(channels, size, units, gap=True, key=keys[0]),
        readout=Prediction(eqx.nn.MLP(2 * size, out, width, 1, jnp.tanh, key=keys[1]), "both"),
        channels=channels,
        **options,
    )
    return Backwards(model)


class Spread(eqx.Module):
    """A mean and a spread, as states of an encoder."""

    mean: Float[Array, " size"]
    std: Float[Array, " size"]

    @property
    def both(self) -> Float[Array, " twice"]:
        return jnp.concatenate([self.mean, self.std])


class _NoSpread(eqx.Module):
    size: int = eqx.field(static=True)

    def __call__(self, static: Any = None) -> Spread:
        return Spread(jnp.zeros(self.size), jnp.zeros(self.size))


class _MeanFlows(eqx.Module):
    field: MLP

    def __call__(self, t: Time, y: Spread, args: Args = None) -> Spread:
        return Spread(self.field(t, y.mean, args), jnp.zeros_like(y.std))


class GatedReset(eqx.Module):
    """(mean, std) by an update gate and a reset gate, as of a GRU; perhaps told the time since."""

    update: eqx.nn.MLP
    forget: eqx.nn.MLP
    candidate: eqx.nn.MLP
    gap: bool = eqx.field(static=True)

    def __init__(self, channels: int, size: int, units: int, *, gap: bool = False, key: Any):
        keys, given = jax.random.split(key, 3), 2 * size + 2 * channels + int(gap)
        self.gap = gap
        net = lambda out, key: eqx.nn.MLP(given, out, units, 1, jnp.tanh, key=key)
        self.update, self.forget = net(size, keys[0]), net(size, keys[1])
        self.candidate = net(2 * size, keys[2])

    def __call__(self, y: Spread, row: Observation) -> Spread:
        read = [row.x, row.mask.astype(row.x.dtype), *([row.gap[None]] if self.gap else [])]
        seen = jnp.concatenate([y.mean, y.std, *read])
        keep, reset = jax.nn.sigmoid(self.update(seen)), jax.nn.sigmoid(self.forget(seen))
        told = jnp.concatenate([reset * y.mean, reset * y.std, *read])
        mean, std = jnp.split(self.candidate(told), 2)
        mix = lambda new, old: (1 - keep) * new + keep * old
        return Spread(mix(mean, y.mean), jnp.abs(mix(jnp.abs(std), y.std)))
