"""Values and times of series in units in which a network learns."""

from collections.abc import Sequence
from typing import Any, TypeVar

import equinox as eqx
import numpy as np

from .padding import trimmed
from .series import Series

Many = TypeVar("Many", Series, list[Series])


class Scaling(eqx.Module):
    r"""$x' = (x - \mu_c) / \sigma_c$ for each channel and $t' = (t - t_0) / T$, and back.

    Made by [`ndekit.data.standardize`][]. Call it on a series, a batch or a list.

    Attributes:
        mean: `(channel,)`, $\mu$.
        std: `(channel,)`, $\sigma$, also the unit of an error: `error * scaling.std`.
        start: $t_0$.
        unit: $T$, also the unit of a duration.
    """

    mean: np.ndarray
    std: np.ndarray
    start: float
    unit: float

    def __call__(self, series: Many) -> Many:
        """The series in the new units; where nothing was read nothing is."""
        return self._each(series, lambda ts: (ts - self.start) / self.unit, self.values)

    def inverse(self, series: Many) -> Many:
        """The series in the old units."""
        return self._each(series, lambda ts: ts * self.unit + self.start, self.inverse_values)

    def values(self, xs: Any) -> Any:
        """`(..., channel)` in the new units."""
        return (xs - self._like(self.mean, xs)) / self._like(self.std, xs)

    def inverse_values(self, xs: Any) -> Any:
        """`(..., channel)` in the old units: predictions, say."""
        return xs * self._like(self.std, xs) + self._like(self.mean, xs)

    def _like(self, statistic: np.ndarray, xs: Any) -> np.ndarray:
        return statistic.astype(xs.dtype).reshape((1,) * (xs.ndim - 1) + statistic.shape)

    def _each(self, series: Any, times: Any, values: Any) -> Any:
        if not isinstance(series, Series):
            return [self._each(one, times, values) for one in series]
        if series.num_channels != len(self.mean):
            raise ValueError(
                f"The series must have the {len(self.mean)} channels that the scaling was made "
                f"for, got {series.num_channels}."
            )
        return Series(times(series.ts), values(series.xs), series.mask, length=series.length)


def standardize(series: Sequence[Series] | Series, *, times: bool = True) -> Scaling:
    """The scaling that gives these series mean 0 and standard deviation 1 in each channel.

    Make it of the training part alone, and apply it to all parts. Only what was read counts. A
    channel that never changes is only shifted; one without a reading is left alone.

    Args:
        series: single series in a list, or a batch with one leading axis.
        times: whether times are scaled too, such that those of all the series span [0, 1].

    Returns:
        A [`ndekit.data.Scaling`][].

    Raises:
        ValueError: if there is no series, or channels differ.

    Example:
        ```python
        import numpy as np
        import ndekit as nk

        train = [nk.data.Series([0.0, 10.0], np.array([[1.0], [3.0]]))]
        scaling = nk.data.standardize(train)
        (scaled,) = scaling(train)
        assert scaled.xs[:, 0].tolist() == [-1.0, 1.0] and scaled.ts[1] == 1.0
        assert scaling.inverse(scaled).xs[:, 0].tolist() == [1.0, 3.0]
        ```
    """
    parts = trimmed(series)
    xs = np.concatenate([part.xs for part in parts]).astype(np.float64)
    mask = np.concatenate([part.mask for part in parts])
    found = np.maximum(mask.sum(axis=0), 1)
    mean = xs.sum(axis=0, where=mask) / found
    std = np.sqrt(np.square(xs - mean).sum(axis=0, where=mask) / found)
    # Of equal readings the mean is off by rounding, and so is their deviation from it.
    std = np.where(std > 1e-7 * np.abs(mean), std, 1.0)
    start, unit = 0.0, 1.0
    if times:
        start = float(min(part.ts[0] for part in parts))
        unit = float(max(part.ts[-1] for part in parts)) - start or 1.0
    return Scaling(mean, std, start, unit)
