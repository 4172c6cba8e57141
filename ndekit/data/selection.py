"""Series with some of their rows alone."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ..numbers import real
from .host_random import AnyKey, generator
from .padding import pad
from .series import Series


def drop_rows(series: Any, share: float, *, key: AnyKey) -> Any:
    r"""Each series without $\lfloor \mathrm{share} \cdot L \rfloor$ of its $L$ rows, at random.

    The usual way to make a regular data set irregular. A dropped row is gone, with its time.

    Args:
        series: a single series, or several in a list or a batch with one leading axis.
        share: of the rows to drop, from 0 to below 1.
        key: decides which.

    Returns:
        What was given, with fewer rows, as NumPy arrays.

    Raises:
        ValueError: if `share` is out of range, or a series has no reading left.

    Example:
        ```python
        import jax.random as jr
        import numpy as np
        import ndekit as nk

        series = nk.data.Series(np.arange(10.0), np.ones((10, 1)))
        assert nk.data.drop_rows(series, 0.3, key=jr.key(0)).length == 7
        ```
    """
    real("share", share, least=0.0, below=1.0)
    if isinstance(series, Series) and not series.batch_shape:
        return drop_rows([series], share, key=key)[0]
    batch = pad(series)
    ts, xs, mask, length = map(np.asarray, (batch.ts, batch.xs, batch.mask, batch.length))
    # To rounding: a share of 0.7 of 10 rows is 7 of them.
    kept = length - np.floor(share * length + 1e-6).astype(np.int32)
    rows = random_rows(np.arange(ts.shape[1]) < length[:, None], kept, generator(key))
    thinned = of_rows(ts, xs, mask, rows)
    return thinned if isinstance(series, Series) else [one.trim() for one in thinned]


def random_rows(
    candidates: Bool[np.ndarray, "batch time"], number: Any, rng: np.random.Generator
) -> Bool[np.ndarray, "batch time"]:
    """`number` of the candidates of each series, all choices equally likely."""
    draws = np.where(candidates, rng.random(candidates.shape, np.float32), np.float32(2))
    order = np.argsort(draws, axis=-1)
    chosen = np.arange(candidates.shape[1]) < np.broadcast_to(number, len(candidates))[:, None]
    rows = np.zeros(candidates.shape, bool)
    np.put_along_axis(rows, order, chosen, axis=-1)
    return rows


def of_rows(
    ts: Float[np.ndarray, "..."],
    xs: Float[np.ndarray, "batch time channel"],
    mask: Bool[np.ndarray, "batch time channel"],
    rows: Bool[np.ndarray, "batch time"],
) -> Series:
    """A padded batch of the rows chosen; `ts` is `(time,)` or `(batch, time)`."""
    number, row = np.nonzero(rows)
    length = rows.sum(axis=-1)
    place = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
    size = (len(rows), int(length.max()))
    new_ts, new_xs = np.zeros(size, ts.dtype), np.zeros((*size, xs.shape[-1]), xs.dtype)
    new_mask = np.zeros(new_xs.shape, bool)
    new_ts[number, place] = np.broadcast_to(ts, rows.shape)[number, row]
    new_xs[number, place], new_mask[number, place] = xs[number, row], mask[number, row]
    return Series(new_ts, new_xs, new_mask, length=length)
