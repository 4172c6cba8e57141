"""Time and counts of readings as further channels of a series."""

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from ..data import Series
from ..data.series import check_series
from ..numbers import real

_COUNTS = ("missing", "each", "rows", "none")


def channels(
    series: Series,
    time: bool = True,
    counts: Literal["missing", "each", "rows", "none"] = "missing",
    *,
    per: float = 1.0,
) -> Series:
    """The series with its channels in the order time, counts, values.

    A controlled equation sees its control's increments alone: without the time it cannot tell a
    fast series from a slow one, and without counts it cannot tell a reading from a value that was
    filled in. The count of a channel is how often it has been read so far, this row included.

    Args:
        series: one, or a batch.
        time: whether the time comes first.
        counts: `"missing"`: one count for each channel if anything is missing in the series or
            batch, none otherwise. As the number of channels then hangs on the data, traced data
            are refused. `"each"`: one for each channel, always. `"rows"`: a single one, of rows
            (how many times there were so far). `"none"`: none.
        per: counts are divided by it; a typical count keeps them near 1.

    Returns:
        A series with the same times and length. The new channels are there in every row but the
        padding.

    Raises:
        ValueError: if `counts` is none of these, `per` is not positive, or `counts="missing"` meets
            traced data.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        series = nk.data.Series(jnp.array([0.0, 0.5]), jnp.array([[2.0], [jnp.nan]]))
        assert nk.controls.channels(series).xs[1].tolist() == [0.5, 1.0, 0.0]
        ```
    """
    check_series(series, "channels")
    if counts not in _COUNTS:
        raise ValueError(f"`counts` must be one of {', '.join(_COUNTS)}, got {counts!r}.")
    real("per", per, above=0.0)
    if counts == "missing":
        counts = "each" if _is_anything_missing(series) else "none"
    series = series.clean()
    xs, mask, is_there = series.xs, series.mask, series.is_real[..., None]
    added = [jnp.asarray(series.ts).astype(xs.dtype)[..., None]] if time else []
    if counts != "none":
        added.append(_counts(mask if counts == "each" else is_there, xs) / per)
    added = [jnp.where(is_there, new, 0) for new in added]
    there = [jnp.broadcast_to(is_there, new.shape) for new in added]
    return eqx.tree_at(
        lambda series: (series.xs, series.mask),
        series,
        (jnp.concatenate([*added, xs], axis=-1), jnp.concatenate([*there, mask], axis=-1)),
    )


def _counts(mask: Any, xs: Any) -> Array:
    return jnp.cumsum(mask, axis=-2, dtype=jnp.int32).astype(xs.dtype)


def _is_anything_missing(series: Series) -> bool:
    if isinstance(series.mask, Tracer) or isinstance(series.length, Tracer):
        raise ValueError(
            '`counts="missing"` looks at the data to see whether anything is missing, which traced '
            'data do not show. Use `counts="each"` or `counts="none"`, or call `channels` outside '
            "of `jax.jit`."
        )
    is_there = np.asarray(series.is_real)[..., None]
    return bool(np.any(is_there & ~np.asarray(series.mask)))
