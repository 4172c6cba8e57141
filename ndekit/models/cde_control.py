"""From a series to what drives a controlled equation, window by window."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .. import controls
from ..choices import check_choice
from ..controls import HermitePath, LinearPath, RectilinearPath, Windows
from ..data import Series
from ..tree import where
from .window_time import Beginnings, Stretch, number_that_last

Counts = Literal["none", "each", "rows"]
Scheme = Literal["hermite", "linear", "rectilinear"]
Path = HermitePath | LinearPath | RectilinearPath


def num_channels(size: int, time: bool, counts: Counts) -> int:
    """Of the control of a series with `size` channels."""
    return size + time + {"none": 0, "each": size, "rows": 1}[counts]


def first_state(model: Any, x0: Array, static: Array | None) -> Array:
    """The state at the start of the control.

    Raises:
        ValueError: if `static` is not what the model was made for.
    """
    got = None if static is None else jnp.shape(static)
    if got != ((model.static_size,) if model.static_size else None):
        raise ValueError(
            f"This `{type(model).__name__}` was made with `static_size={model.static_size}`, but "
            f"got `static` of shape {got}."
        )
    return model.initial(x0 if static is None else jnp.concatenate([x0, static]))


def times_asked(series: Series, ts: Any) -> Any:
    """The times at which predictions are wanted; `None` for the end alone."""
    if not isinstance(ts, str):
        return ts
    check_choice("ts", ts, ("readings",))
    return series.ts


def scheme_of(name: Scheme, time: bool, start: Any) -> Callable[[Series], Any]:
    """How readings become a path."""
    make = getattr(controls, name)
    options = dict(time=0 if time else None) if name == "rectilinear" else {}
    return functools.partial(make, start=start, **options)


def pieces_of(path: Path) -> Stretch:
    """The pieces of a path as windows: increments, or the coefficients of a cubic's rate."""
    last = path.ts[jnp.maximum(path.length - 1, 0)]
    between = jnp.maximum(path.length - 1, 0)
    edges = jnp.minimum(path.ts, last)
    if isinstance(path, RectilinearPath):
        return _stretch(jnp.diff(path.xs, axis=0), jnp.repeat(edges, 2)[1:], 2 * between)
    if isinstance(path, LinearPath):
        return _stretch(jnp.diff(path.xs, axis=0), edges, between)
    width = jnp.diff(path.knots).astype(path.coefficients.dtype)[:, None]
    _, b, c, d = jnp.moveaxis(path.coefficients[:-1], 1, 0)
    rows = jnp.stack([b * width, 2 * c * width**2, 3 * d * width**3], axis=1)
    return _stretch(rows, edges, between)


def increment_rate(row: Array, inside: Array) -> Array:
    """Of the control in a window of one unit of time: a constant, or a square of the time in it."""
    if row.ndim == 1:
        return row
    inside = inside.astype(row.dtype)
    return row[0] + inside * (row[1] + inside * row[2])


def windows_of(
    series: Series, depth: int, windows: Windows, scheme: Callable[[Series], Any]
) -> tuple[Stretch, Array]:
    """The log-signatures in windows, and where the path is when the first begins."""
    found = controls.logsignature(series, depth, windows, control=scheme)
    path = scheme(series)
    edges = windows.edges(series)
    within = jnp.clip(edges, path.time(path.t0), path.time(path.t1))
    first = path.evaluate(path.parameter(edges[0]))
    return _stretch(found, within, number_that_last(found.durations)), first


class _Between(Windows):
    """Between times that lie in order, repeats among them."""

    times: Array

    def edges(self, series: Series) -> Array:
        return self.times

    @property
    def most_steps(self) -> int | None:
        return None


def since_window_began(
    series: Series,
    depth: int,
    windows: Windows,
    scheme: Callable[[Series], Any],
    ts: Array,
) -> Beginnings:
    """What the control does from the beginning of the window that a time lies in up to this time.

    So a state inside of a window knows of that part of it alone, not of what is still to come.
    """
    path = scheme(series)
    edges = jnp.clip(windows.edges(series), path.time(path.t0), path.time(path.t1))
    ts = jnp.clip(ts.astype(edges.dtype), edges[0], edges[-1])
    both = jnp.concatenate([edges, ts])
    order = jnp.argsort(both, stable=True)  # a time on an edge comes behind it
    is_edge = order < len(edges)
    between = controls.logsignature(series, depth, _Between(both[order]), control=scheme)
    identity = jax.tree.map(lambda x: jnp.zeros_like(x[0]), between)

    def turn(so_far: Any, piece: tuple) -> tuple[Any, Any]:
        found, begins = piece
        longer = where(begins, identity, so_far) @ found
        return longer, longer

    _, so_far = jax.lax.scan(turn, identity, (between, is_edge[:-1]))
    rank = jnp.argsort(order)[len(edges) :]
    over = jnp.cumsum(is_edge, dtype=jnp.int32)[rank] - 1
    rows = jax.tree.map(lambda x: x[rank - 1], so_far)
    return Beginnings(rows, jnp.stack([edges[over], ts], axis=1), over)


def _stretch(rows: Any, edges: Array, number: Array) -> Stretch:
    """A series of one reading has no window: one in which nothing happens stands there."""
    if len(edges) == 1:
        edges = jnp.repeat(edges, 2)
        rows = jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), rows)
    return Stretch(rows, edges, number)
