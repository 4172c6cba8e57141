"""The log-signatures of a series in windows of time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..data import Series
from ..data.series import single
from .log_signature import LogSignature, checked_depth
from .paths import LinearPath, RectilinearPath
from .polygon import in_rows, level_sums
from .schemes import linear
from .windows import EveryCount, Windows


def logsignature(
    series: Series,
    depth: int,
    windows: Windows | None = None,
    *,
    control: Callable[[Series], LinearPath | RectilinearPath] = linear,
) -> LogSignature:
    r"""What the path of a series does in each window, to depth 1, 2 or 3.

    Depth 1 is the increment. Higher depths also tell in which order the channels moved, so that an
    equation can be solved window by window instead of reading by reading.

    Args:
        series: a single one, with its time among the channels
            ([`ndekit.controls.channels`][]); map over a batch with `jax.vmap`.
        depth: 1, 2 or 3.
        windows: where to cut; by default not at all, and the result has no window axis.
        control: how readings become a path, [`ndekit.controls.linear`][] or
            [`ndekit.controls.rectilinear`][] (causal), or either with arguments of its own
            (`functools.partial`).

    Returns:
        A [`ndekit.controls.LogSignature`][] with one entry a window. A window without a reading
        holds the straight piece that crosses it; one behind the last reading holds zeros, and its
        duration is 0. `durations` count the time up to the last reading alone.

    Raises:
        ValueError: if `series` is no single series, `depth` none of these, or `control` gives
            another path.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        angle = jnp.linspace(0.0, 2 * jnp.pi, 1001)
        circle = nk.data.Series(angle, jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1))
        whole = nk.controls.logsignature(circle, depth=2)
        assert jnp.allclose(whole.levels[1][0, 1], jnp.pi, rtol=1e-4)
        halves = nk.controls.logsignature(circle, 2, nk.controls.Windows.of(duration=jnp.pi))
        assert halves.levels[1].shape == (2, 2, 2)
        ```

    Reference: Morrill, Salvi, Kidger and Foster (2021), "Neural rough differential equations for
    long time series", arXiv 2009.08295.
    """
    checked_depth(depth)
    series = single(series, "logsignature")
    if windows is None:
        whole = logsignature(series, depth, _whole(series), control=control)
        return jax.tree.map(lambda x: x[0], whole)
    if not isinstance(windows, Windows):
        raise ValueError(
            f"`windows` must be a `nk.controls.Windows`, got {type(windows).__name__}. "
            "Use `Windows.every(count)`, `Windows.of(duration)` or `Windows.at(edges)`."
        )
    path = control(series)
    if not isinstance(path, LinearPath | RectilinearPath):
        raise ValueError(
            f"Log-signatures have closed formulas along straight pieces, got a "
            f"{type(path).__name__}. Use `control=nk.controls.linear` or `rectilinear`."
        )
    edges = windows.edges(series)
    within = jnp.clip(edges, path.time(path.t0), path.time(path.t1))
    durations = jnp.diff(within).astype(path.xs.dtype)
    return LogSignature(_levels(path, windows, edges, depth), durations)


def _whole(series: Series) -> Windows:
    return EveryCount(max(1, series.ts.shape[-1] - 1))


def _levels(path: LinearPath | RectilinearPath, windows: Windows, edges: Array, depth: int) -> Any:
    places = jax.vmap(path.parameter)(edges)
    at_edges = jax.vmap(path.evaluate)(places)
    most = windows.most_steps
    if most is not None and isinstance(path, RectilinearPath):
        most = 2 * most
    return level_sums(path.xs, at_edges, in_rows(path.knots, places, most), depth)
