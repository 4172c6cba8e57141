"""Shuffled minibatches of series of similar length, by key and number of the update alone."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, Key, PyTree, UInt

from ..numbers import count, counts
from .batches import epoch_order
from .padding import pad, trimmed
from .series import Series


class Buckets:
    """Minibatch number `step` of series, padded to few different lengths; see `buckets`.

    Attributes:
        batch_size: series in a batch.
        num_per_epoch: batches in an epoch.
        lengths: the numbers of rows that a batch can have, hence how often a program compiles.
    """

    batch_size: int
    num_per_epoch: int
    lengths: tuple[int, ...]

    def __init__(
        self,
        series: Sequence[Series] | Series,
        others: PyTree[np.ndarray] = None,
        *,
        batch_size: int,
        key: Key[Array, ""] | UInt[Array, "2"],
        in_a_row: int = 1,
    ):
        self._series = trimmed(series)
        self._others = jax.tree.map(np.asarray, others)
        _check_others(self._others, len(self._series))
        counts(batch_size=batch_size, in_a_row=in_a_row)
        rows_at_once = batch_size * in_a_row
        if rows_at_once > len(self._series):
            raise ValueError(
                f"`batch_size * in_a_row` must lie from 1 to the {len(self._series)} series there "
                f"are, got {batch_size} * {in_a_row}."
            )
        self.batch_size = batch_size
        self.num_per_epoch = len(self._series) // rows_at_once * in_a_row
        bucket = bucket_lengths(np.array([len(one.ts) for one in self._series]))
        self.lengths = tuple(int(length) for length in np.unique(bucket))
        # One epoch is remembered; asking for another one shuffles again.
        self._plan = functools.lru_cache(maxsize=1)(
            lambda epoch: _plan(bucket, epoch, batch_size, in_a_row, key)
        )

    def __call__(self, step: int) -> Any:
        epoch, number = divmod(count("step", step, 0), self.num_per_epoch)
        rows, to = self._plan(epoch)
        rows, to = rows[number], int(to[number])
        batch = pad([self._series[row] for row in rows], to=to)
        if self._others is None:
            return batch
        return batch, jax.tree.map(lambda array: array[rows], self._others)


def buckets(
    series: Sequence[Series] | Series,
    others: PyTree[np.ndarray] = None,
    *,
    batch_size: int,
    key: Key[Array, ""] | UInt[Array, "2"],
    in_a_row: int = 1,
) -> Buckets:
    """Minibatches of series of similar length, for [`ndekit.train.fit`][] as its `batch_fn`.

    The length of a batch is a power of two (or that of the longest series), so that a program
    compiles for a handful of shapes and half of a batch at most is padding. In each epoch the
    series are shuffled, sorted by bucket and cut into batches, whose order is shuffled too; a batch
    across two buckets has the length of the longer. `batches(step)` is a pure function of the key
    and of `step`, so a run that goes on from a checkpoint sees what it would have seen. Each batch
    is full: what is left over, anything from any bucket, waits for the next shuffle.

    Args:
        series: single series with the same channels, or a batch with one leading axis.
        others: a PyTree of arrays that go with the series, such as labels, one row each.
        batch_size: series in a batch.
        key: decides the order of every epoch.
        in_a_row: batches of the same length that follow each other. Make it the
            `updates_per_call` of [`ndekit.train.fit`][], which needs this.

    Returns:
        [`ndekit.data.Buckets`][]: `batches(step)` is a padded [`ndekit.data.Series`][], or a pair
        of it and the rows of `others`.

    Raises:
        ValueError: if there are too few series, or `others` is not as long.

    Example:
        ```python
        import jax.random as jr
        import numpy as np
        import ndekit as nk

        series = [nk.data.Series(np.arange(n), np.ones((n, 1))) for n in (3, 4, 7, 8)]
        labels = np.array([0, 0, 1, 1])
        batches = nk.data.buckets(series, labels, batch_size=2, key=jr.key(0))
        batch, y = batches(0)
        assert batches.lengths == (4, 8) and batch.xs.shape == (2, 4 + 4 * y[0], 1)
        ```
    """
    return Buckets(series, others, batch_size=batch_size, key=key, in_a_row=in_a_row)


def bucket_lengths(lengths: np.ndarray) -> np.ndarray:
    """The power of two that holds each length, and no more than the longest."""
    powers = 2 ** np.arange(int(lengths.max()).bit_length() + 1)
    return np.minimum(powers[np.searchsorted(powers, lengths)], lengths.max())


def _plan(
    bucket: np.ndarray, epoch: int, batch_size: int, in_a_row: int, key: Array
) -> tuple[np.ndarray, np.ndarray]:
    """Of each batch of an epoch its rows and its length."""
    row_key, group_key = jr.split(key)
    order = epoch_order(len(bucket), epoch, key=row_key)
    size = batch_size * in_a_row
    order = order[: len(order) // size * size]
    order = order[np.argsort(bucket[order], kind="stable")]
    groups = order.reshape(-1, size)
    groups = groups[epoch_order(len(groups), epoch, key=group_key)]
    lengths = bucket[groups].max(axis=-1)
    return groups.reshape(-1, batch_size), np.repeat(lengths, in_a_row)


def _check_others(others: PyTree, size: int) -> None:
    for path, leaf in jax.tree_util.tree_flatten_with_path(others)[0]:
        if not leaf.ndim or len(leaf) != size:
            raise ValueError(
                f"`others{jax.tree_util.keystr(path)}` must have a row for each of the {size} "
                f"series, got the shape {leaf.shape}."
            )
