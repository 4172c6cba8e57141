r"""The time of a solve that goes from window to window.

Window $k$ is the interval $[2k, 2k + 1]$ of this time, and nothing lies between two windows: a step
that ends at $2k + 1$ is followed by one that starts at $2k + 2$. So the time alone tells the window
at every stage of a step, its two ends included, where the times of a series do not: a stage at an
edge belongs to the window that ends there or to the one that begins. No step straddles an edge, and
all edges are exact in float32.
"""

from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import tree
from ..shapes import Args, State, Time


class Stretch(eqx.Module):
    """Windows and what drives the state in each.

    Attributes:
        rows: what drives it, one row of each leaf for each window.
        edges: the times of the series at which windows meet, one more than there are windows.
        number: of the windows that are no padding.
    """

    rows: Any
    edges: Float[Array, " edges"]
    number: Int[Array, ""]

    @property
    def end(self) -> Float[Array, ""]:
        """The last window's end, in the time of the solve; 0 if there is none."""
        return jnp.maximum(2 * self.number - 1, 0).astype(self.edges.dtype)

    def at(self, s: Time) -> tuple[Any, Array, Array]:
        """The row of the window at `s`, how far inside it lies, from 0 to 1, and the time of the
        series.
        """
        k = jnp.floor(s / 2)
        inside = s - 2 * k
        k = k.astype(jnp.int32)
        row, start, end = tree.read((self.rows, self.edges[:-1], self.edges[1:]), k)
        return row, inside, start + inside * (end - start)

    def places(self, ts: Float[Array, " ts"]) -> Float[Array, " ts"]:
        """Times of the series in the time of the solve. At an edge all that has this time has been
        passed. What lies beyond the ends is taken to them.
        """
        ts = jnp.clip(ts.astype(self.edges.dtype), self.edges[0], self.edges[-1])
        last = len(self.edges) - 2
        k = jnp.clip(jnp.searchsorted(self.edges, ts, side="right") - 1, 0, last)
        start, end = self.edges[k], self.edges[k + 1]
        inside = jnp.where(end > start, (ts - start) / jnp.where(end > start, end - start, 1), 1)
        # The end of a window rather than the beginning of the next.
        begins = (inside == 0) & (k > 0)
        k, inside = jnp.where(begins, k - 1, k), jnp.where(begins, 1, inside)
        return jnp.minimum(2 * k.astype(inside.dtype) + inside, self.end)


class Beginnings(NamedTuple):
    """For each of some times, the window that it lies in up to it.

    Attributes:
        rows: what drives the state from the window's beginning to this time.
        edges: the two times.
        over: how many windows are over before.
    """

    rows: Any
    edges: Float[Array, "ts 2"]
    over: Int[Array, " ts"]


def number_that_last(durations: Float[Array, " windows"]) -> Int[Array, ""]:
    """How many windows there are up to the last one that takes any time."""
    behind = jnp.arange(1, len(durations) + 1, dtype=jnp.int32)
    return jnp.max(jnp.where(durations > 0, behind, 0), initial=0)


class EqualSteps(diffrax.AbstractStepSizeController):
    """`substeps` steps of equal length in each window."""

    substeps: int = eqx.field(static=True)

    def wrap(self, direction: Any) -> "EqualSteps":
        return self

    def init(
        self, terms: Any, t0: Time, t1: Time, y0: State, dt0: Any, args: Args, func: Any,
        error_order: Any,
    ) -> tuple[Time, None]:  # fmt: skip
        return self._next_end(t0), None

    def adapt_step_size(
        self, t0: Time, t1: Time, y0: State, y1_candidate: State, args: Args, y_error: Any,
        error_order: Any, controller_state: None,
    ) -> tuple:  # fmt: skip
        start, jumps = _over_gap(t1)
        return True, start, self._next_end(start), jumps, None, diffrax.RESULTS.successful

    def _next_end(self, t: Time) -> Time:
        """Counted from the window's start, so that rounding makes no short step at its end."""
        if self.substeps == 1:
            return t + 1
        start = 2 * jnp.floor(t / 2)
        done = jnp.round((t - start) * self.substeps)
        return start + (done + 1) / self.substeps


class AdaptiveSteps(diffrax.AbstractAdaptiveStepSizeController):
    """The steps of an adaptive controller, cut where a window ends."""

    controller: Any

    rtol = property(lambda self: self.controller.rtol)  # pyright: ignore
    atol = property(lambda self: self.controller.atol)  # pyright: ignore
    norm = property(lambda self: self.controller.norm)  # pyright: ignore

    def wrap(self, direction: Any) -> "AdaptiveSteps":
        return cut_at_edges(self.controller.wrap(direction))

    def init(
        self, terms: Any, t0: Time, t1: Time, y0: State, dt0: Any, args: Args, func: Any,
        error_order: Any,
    ) -> tuple[Time, Any]:  # fmt: skip
        given = terms, t0, t1, y0, dt0, args, func, error_order
        end, state = self.controller.init(*given)
        return jnp.minimum(end, _window_end(t0)), state

    def adapt_step_size(
        self, t0: Time, t1: Time, y0: State, y1_candidate: State, args: Args, y_error: Any,
        error_order: Any, controller_state: Any,
    ) -> tuple:  # fmt: skip
        accepted, start, end, jumped, state, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
        )
        behind, jumps = _over_gap(start)
        jumps = (jumps & accepted) | jumped
        end = jnp.minimum(behind + (end - start), _window_end(behind))
        return accepted, behind, end, jumps, state, result


def cut_at_edges(controller: Any) -> AdaptiveSteps:
    return AdaptiveSteps(controller=controller)  # pyright: ignore


def _window_end(t: Time) -> Time:
    return 2 * jnp.floor(t / 2) + 1


def _over_gap(t: Time) -> tuple[Time, Any]:
    """Where the next step starts, and whether in another window: the field jumps there, and what a
    step has seen of it at its end is of no use to the next.
    """
    at_end = t >= _window_end(t)
    return jnp.where(at_end, _window_end(t) + 1, t), at_end
