"""A controlled equation that is told one reading after the other.

Its model says by `flowed(stretch, y0)` how a state crosses windows, the one way that it has.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..controls import LogSignature
from ..controls.windows import EveryCount
from ..shapes import Time
from ..tree import where
from .cde_control import first_state
from .observations import in_order
from .window_time import Stretch


class AbstractStreamed(eqx.Module):
    """A controlled equation that can be told one reading after the other."""

    readout: eqx.AbstractVar[Callable]

    @abc.abstractmethod
    def flowed(self, stretch: Stretch, y0: Float[Array, " hidden"]) -> Float[Array, " hidden"]:
        """The state behind windows, of that before them."""

    def step(
        self, state: "CDEState", t: Time, x: Float[Array, " channels"], mask: Any = None
    ) -> tuple["CDEState", Float[Array, " out"]]:
        """One more reading of a stream, and the prediction from all that is known by then: the same
        that the model gives of the whole series at its last row.

        Args:
            state: of `init`, or of the last `step`.
            t: the time of the reading, after that of the last one.
            x: its numbers, `(channels,)`.
            mask: which are there; by default those that are not NaN.
        """
        state, y = pushed(self, state, t, x, mask)
        return state, self.readout(y)


class CDEState(eqx.Module):
    """What a stream knows.

    Attributes:
        y: the state of the equation; where windows are counted, at the beginning of the last.
        t: the time of the last reading.
        xs: the last number of each channel.
        counts: how often each channel has been read.
        number: of readings.
        static: what the first state is given besides.
        pending: the log-signature since the beginning of the last window, if there are windows.
    """

    y: Float[Array, " hidden"]
    t: Float[Array, ""]
    xs: Float[Array, " channels"]
    counts: Int[Array, " channels"]
    number: Int[Array, ""]
    static: Float[Array, " static"] | None
    pending: LogSignature | None


def start_of(model: Any, static: Array | None) -> CDEState:
    """The state before the first reading."""
    if model.scheme != "rectilinear":
        raise ValueError(
            f"A stream needs a control that knows nothing of what comes later, but this "
            f"model has `scheme={model.scheme!r}`. Make it with `scheme='rectilinear'`."
        )
    if not isinstance(model.windows, EveryCount | None):
        raise ValueError(
            "A stream closes its windows at readings: use `Windows.every(count)`, got "
            f"{type(model.windows).__name__}."
        )
    if model.start is None:
        raise ValueError("A stream does not know a channel's first reading before it is there: "
                         "give `start`.")  # fmt: skip
    size = model.channels
    y = first_state(model, _control(model, jnp.zeros(()), jnp.zeros(size), jnp.zeros(size)), static)
    zero, xs = jnp.zeros((), y.dtype), jnp.zeros(size, y.dtype)
    pending = None
    if model.windows is not None:
        inputs = _control(model, zero, xs, xs).shape[-1]
        pending = LogSignature.identity(inputs, model.order)
    number = jnp.zeros((), jnp.int32)
    return CDEState(y, zero, xs, jnp.zeros(size, jnp.int32), number, static, pending)


def pushed(
    model: Any, state: CDEState, t: Time, x: Array, mask: Any
) -> tuple[CDEState, Float[Array, " hidden"]]:
    """The state after one more reading, and that of the equation there."""
    t, x = jnp.asarray(t, state.t.dtype), jnp.asarray(x, state.xs.dtype)
    if x.shape != state.xs.shape:
        raise ValueError(
            f"A reading must have shape {state.xs.shape}, one number for each channel, got "
            f"{x.shape}."
        )
    mask = ~jnp.isnan(x) & (True if mask is None else jnp.asarray(mask, bool))
    is_first = state.number == 0
    t = in_order(t, state.t, ~is_first)
    start = jnp.broadcast_to(jnp.asarray(model.start, x.dtype), x.shape)
    xs = jnp.where(mask, jnp.where(mask, x, 0), jnp.where(is_first, start, state.xs))
    counts = state.counts + _counted(model, mask)
    before = _control(model, state.t, state.xs, state.counts)
    waited = _control(model, t, state.xs, state.counts)
    after = _control(model, t, xs, counts)
    y0 = jnp.where(is_first, first_state(model, after, state.static), state.y)
    edges = jnp.stack([state.t, t, t])
    new = dict(t=t, xs=xs, counts=counts, number=state.number + 1, static=state.static)
    if state.pending is None:
        rows = jnp.stack([waited - before, after - waited])
        y = model.flowed(Stretch(rows, edges, jnp.where(is_first, 0, 2).astype(jnp.int32)), y0)
        return CDEState(y=y, pending=None, **new), y
    nothing = LogSignature.identity(len(after), model.order)
    segment = lambda dx, dt: LogSignature.segment(dx, dt, model.order)
    longer = state.pending @ segment(waited - before, t - state.t) @ segment(after - waited, 0.0)
    pending = where(is_first, nothing, longer)
    window = _stacked(pending)
    y = model.flowed(Stretch(window, edges[:2], jnp.where(is_first, 0, 1).astype(jnp.int32)), y0)
    # A window holds as many steps from reading to reading: the first reading is none.
    closes = is_first | (state.number % model.windows.count == 0)
    kept = where(closes, nothing, pending)
    return CDEState(y=jnp.where(closes, y, y0), pending=kept, **new), y


def _stacked(window: LogSignature) -> LogSignature:
    levels = tuple(level[None] for level in window.levels)
    return LogSignature(levels, window.durations[None])


def _counted(model: Any, mask: Bool[Array, " channels"]) -> Int[Array, " channels"]:
    """What a reading adds to the counts; of rows all channels count alike."""
    return jnp.ones_like(mask, jnp.int32) if model.counts == "rows" else mask.astype(jnp.int32)


def _control(model: Any, t: Array, xs: Array, counts: Array) -> Array:
    """The channels of the control, as `nk.controls.channels` orders them."""
    parts = [t[None].astype(xs.dtype)] if model.time else []
    if model.counts != "none":
        numbers = counts.astype(xs.dtype) / model.per
        parts.append(numbers if model.counts == "each" else numbers[:1])
    return jnp.concatenate([*parts, xs])
