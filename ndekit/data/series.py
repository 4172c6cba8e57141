"""A time series whose samples have their own times, lengths and gaps."""

import functools
from collections.abc import Iterator
from types import ModuleType
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from .series_checks import arrays_of, check_padding, check_readings, check_times

AnyArray: TypeAlias = Array | np.ndarray


class Series(eqx.Module):
    r"""Readings $x_{k,c}$ at times $t_1 < t_2 < \dots$, with what is missing marked.

    One series, or a batch of them on leading axes. Models take one series; `jax.vmap(model)(batch)`
    takes a batch. NumPy arrays are kept as they are, on the host; `clean` gives JAX arrays. A
    series goes through `jax.jit`, `jax.vmap` and `jax.grad` as any PyTree of arrays.

    Args:
        ts: `(*batch, time)`, strictly increasing, in any unit; or `(time,)` where a batch shares
            its times.
        xs: `(*batch, time, channel)`, NaN for what is missing. A row may lack all its readings.
            Floating dtypes are kept (as JAX keeps them: float64 needs `jax_enable_x64`), integers
            and booleans become floats, and `ts` and `xs` share the wider dtype of the two.
        mask: of the shape of `xs`, False for what is missing. What is NaN is missing all the same.
        length: `(*batch,)`, how many rows there are; what stands behind them is padding and is not
            read. By default all.

    Attributes:
        ts: `(*batch, time)`, strictly increasing, through the padding too.
        xs: `(*batch, time, channel)`, 0 where nothing was read, never NaN.
        mask: `(*batch, time, channel)`, whether a number was read; False in the padding.
        length: `(*batch,)` int32.

    Raises:
        ValueError: if shapes do not fit, a time is not finite or not after the one before it, a
            reading is infinite, a series has no reading, or `length` is out of range; the message
            names series, row and channel. Of traced arrays only shapes and dtypes are checked, and
            nothing when JAX or Equinox put other arrays into a series later on.

    Example:
        ```python
        import numpy as np
        import ndekit as nk

        xs = np.array([[5.1, np.nan], [np.nan, np.nan], [4.8, 0.3]])
        series = nk.data.Series([0.0, 0.5, 2.0], xs)
        assert series.num_channels == 2 and series.mask.sum() == 3
        ```
    """

    ts: Float[AnyArray, "*batch time"]
    xs: Float[AnyArray, "*batch time channel"]
    mask: Bool[AnyArray, "*batch time channel"]
    length: Int[AnyArray, "*batch"]

    def __init__(self, ts: Any, xs: Any, mask: Any = None, *, length: Any = None):
        padded = length is not None
        ts, xs, mask, length = arrays_of(ts, xs, mask, length)
        known = not any(isinstance(x, Tracer) for x in (ts, xs, mask, length))
        if known:
            check_times(ts, length)
            check_readings(xs, mask, length)
        np_ = np if known else jnp
        # JAX's arrays are looked at on the host, where none of this compiles anything, and go back.
        in_jax = any(isinstance(x, Array) for x in (ts, xs, mask, length))
        ts, xs, mask, length = (np_.asarray(x) for x in (ts, xs, mask, length))
        if padded:
            arrays = _cleaned(np_, ts, xs, mask, length)
        else:
            arrays = ts, np_.where(mask, xs, np_.zeros((), xs.dtype)), mask, length
        if known and padded:
            check_padding(arrays[0])
        self.ts, self.xs, self.mask, self.length = (
            map(jnp.asarray, arrays) if known and in_jax else arrays
        )

    @property
    def num_channels(self) -> int:
        return self.xs.shape[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The sizes of the leading axes; `()` for a single series."""
        return self.ts.shape[:-1]

    @property
    def is_real(self) -> Bool[Array, "*batch time"]:
        """Which rows are no padding."""
        return _is_real(jnp, self.ts.shape[-1], jnp.asarray(self.length))

    def clean(self) -> "Series":
        """The series as JAX arrays, with nothing in its padding.

        Whatever reads a series begins with this. What stood in the padding, NaN included, then has
        no say in a value or a gradient: it is replaced before any arithmetic.
        """
        leaves = (jnp.asarray(leaf) for leaf in (self.ts, self.xs, self.mask, self.length))
        return unchecked(*_cleaned(jnp, *leaves))

    def trim(self) -> "Series":
        """The series without its padding, as NumPy arrays; for a single one that is not traced."""
        if self.batch_shape:
            raise ValueError(
                f"`trim` is for a single series, but this is a batch of shape {self.batch_shape}. "
                "Write `[series.trim() for series in batch]`."
            )
        return unchecked(*real_rows(self), np.asarray(self.length))

    def __len__(self) -> int:
        """How many series there are in a batch; see `length` for the rows of a series."""
        return self._batch()[0]

    def __getitem__(self, index: Any) -> "Series":
        """A series of a batch, or several of them; `index` is for the leading axes alone."""
        num_axes = len(self._batch())
        if isinstance(index, tuple) and len(index) > num_axes:
            raise IndexError(
                f"A batch of shape {self.batch_shape} takes at most {num_axes} indices, got "
                f"{len(index)}. Rows and channels are those of `series.ts` and `series.xs`."
            )
        # With an ellipsis NumPy gives arrays without axes, not its scalars.
        index = (*(index if isinstance(index, tuple) else (index,)), ...)
        return jax.tree.map(lambda leaf: leaf[index], self)

    def __iter__(self) -> Iterator["Series"]:
        return (self[i] for i in range(len(self)))

    def _batch(self) -> tuple[int, ...]:
        if not self.batch_shape:
            raise TypeError(
                "This is a single series, not a batch: it has no length and no index. Its rows are "
                "`series.ts[i]` and `series.xs[i]`, and `series.length` tells how many there are."
            )
        return self.batch_shape


def check_series(series: Any, of: str) -> None:
    if not isinstance(series, Series):
        raise ValueError(
            f"`{of}` needs a `nk.data.Series`, got {type(series).__name__}. "
            "Make one with `nk.data.Series(ts, xs)`."
        )


def single(series: Any, of: str, channels: int | None = None) -> Series:
    """The series, cleaned, if it is a single one that `of` can take: with so many `channels`.

    Raises:
        ValueError: if it is not.
    """
    check_series(series, of)
    if np.ndim(series.xs) != 2:
        raise ValueError(
            f"`{of}` takes one series with `xs` of shape (time, channel), got {series.xs.shape}. "
            f"Use `jax.vmap({of if channels is None else 'model'})(series)` for a batch."
        )
    if channels is not None and series.num_channels != channels:
        raise ValueError(
            f"This `{of}` was made for {channels} channels, but the series has "
            f"{series.num_channels}."
        )
    return series.clean()


def unchecked(ts: Any, xs: Any, mask: Any, length: Any) -> Series:
    """A series of arrays that are known to be one."""
    return jax.tree.unflatten(_structure(), (ts, xs, mask, length))


@functools.cache
def _structure() -> Any:
    return jax.tree.structure(Series(np.zeros(1), np.zeros((1, 1))))


def real_rows(series: Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`ts`, `xs` and `mask` of a single series on the host, without its padding."""
    rows = int(series.length)
    ts, xs, mask = (np.asarray(leaf)[:rows] for leaf in (series.ts, series.xs, series.mask))
    return ts, xs, mask


def _is_real(np_: ModuleType, size: int, length: AnyArray) -> Any:
    return _rows(np_, size, length) < length[..., None]


def _rows(np_: ModuleType, size: int, length: Any) -> Any:
    """`(1, ..., 1, time)`: the number of each row, with the axes of the batch."""
    return np_.arange(size, dtype=length.dtype).reshape((1,) * length.ndim + (size,))


def _cleaned(np_: ModuleType, ts: Any, xs: Any, mask: Any, length: Any) -> tuple:
    """The arrays of a series with zeros, False and increasing times in the padding."""
    size = ts.shape[-1]
    real = _is_real(np_, size, length)
    mask = mask & real[..., None]
    zero = np_.zeros((), ts.dtype)
    last = np_.max(np_.where(real, ts, -np_.inf), axis=-1, keepdims=True)
    last = np_.where(length[..., None] > 0, last, zero)
    if np_ is jnp:
        last = jax.lax.stop_gradient(last)
    # A unit of time apart, or more where the dtype could not tell such large times apart.
    least = 4 * float(jnp.finfo(ts.dtype).eps) * np_.abs(last)
    spacing = np_.where(least > 1, least, np_.ones((), ts.dtype))
    behind = (_rows(np_, size, length) - length[..., None] + 1).astype(ts.dtype)
    with np.errstate(over="ignore"):  # the constructor looks for times out of reach
        padding = last + spacing.astype(ts.dtype) * behind
    ts = np_.where(real, ts, padding.astype(ts.dtype))
    return ts, np_.where(mask, xs, np_.zeros((), xs.dtype)), mask, length
