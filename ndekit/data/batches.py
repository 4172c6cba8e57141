"""Shuffled minibatches that depend on the key and the number of the update alone."""

import functools

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, Key, PyTree, Shaped, UInt

from ..numbers import count


class Batches:
    """Minibatch number `step` of a data set that is shuffled anew in every epoch.

    `batches(step)` is a pure function of the key and of `step`, so a training run that was
    interrupted and goes on from a checkpoint sees the batches that it would have seen. Every batch
    is full: what is left over at the end of an epoch waits for the next shuffle.

    Args:
        arrays: a PyTree of NumPy arrays that share the length of their first axis.
        batch_size: examples in a batch, from 1 to that length.
        key: decides the order of every epoch.

    Raises:
        ValueError: if the arrays differ in length, or `batch_size` is out of range.

    Example:
        ```python
        import jax.random as jr
        import numpy as np
        from ndekit.data import Batches

        batches = Batches((np.arange(10.0), np.arange(10)), batch_size=5, key=jr.key(0))
        x, y = batches(0)  # the first half of epoch 0; batches(2) begins epoch 1
        ```
    """

    arrays: PyTree[Shaped[np.ndarray, "size ..."]]
    batch_size: int
    num_per_epoch: int

    def __init__(
        self,
        arrays: PyTree[np.ndarray],
        *,
        batch_size: int,
        key: Key[Array, ""] | UInt[Array, "2"],
    ):
        sizes = {len(leaf) for leaf in jax.tree.leaves(arrays)}
        if len(sizes) != 1:
            raise ValueError(
                f"`arrays` must share the length of their first axis, got lengths {sorted(sizes)}."
            )
        (size,) = sizes
        if count("batch_size", batch_size) > size:
            raise ValueError(
                f"`batch_size` must lie from 1 to the {size} examples there are, got {batch_size}."
            )
        self.arrays = arrays
        self.batch_size = batch_size
        self.num_per_epoch = size // batch_size
        # One epoch is remembered; asking for another one shuffles again.
        self._order = functools.lru_cache(maxsize=1)(
            lambda epoch: epoch_order(size, epoch, key=key)
        )

    def __call__(self, step: int) -> PyTree[np.ndarray]:
        epoch, number = divmod(step, self.num_per_epoch)
        rows = self._order(epoch)[number * self.batch_size :][: self.batch_size]
        return jax.tree.map(lambda array: array[rows], self.arrays)


def epoch_order(
    size: int, epoch: int, *, key: Key[Array, ""] | UInt[Array, "2"]
) -> Int[np.ndarray, " size"]:
    """The order of `size` examples in this epoch: a pure function of `key` and `epoch`."""
    return np.asarray(jr.permutation(jr.fold_in(key, epoch), size))
