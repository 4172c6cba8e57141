"""A simulated hopping robot that falls, seen at regular times."""

import os

import numpy as np

from .dataset import DataError
from .folders import file_in, read_npz
from .series import Series


def hopper(folder: str | os.PathLike | None = None) -> Series:
    """2000 trajectories of MuJoCo's Hopper from random positions, 200 times, 14 numbers each.

    Seven positions, then seven velocities, in MuJoCo's units, as they come: scale them with
    [`ndekit.data.standardize`][]. Times are in seconds. Nothing is missing; hide a share of the
    rows to pose the task of the latent ODE's paper.

    Args:
        folder: where `hopper.npz` lies; by default `$NDEKIT_DATA`.

    Returns:
        A batch, a [`ndekit.data.Series`][] of shape `(2000, 200, 14)`, as NumPy arrays.

    Raises:
        DataError: if the file is absent, damaged or another one.

    Example:
        ```{.python .no-run}
        import ndekit as nk

        batch = nk.data.hopper("~/data")
        first = batch[0]
        ```

    Reference: Rubanova, Chen and Duvenaud (2019), *Latent ODEs for irregularly-sampled time
    series*, section 4.2; Tassa et al. (2018), *DeepMind Control Suite*.
    """
    path = file_in(folder, "hopper.npz")
    arrays = read_npz(path, {"states": 3, "dt": 0})
    states, dt = arrays["states"], float(arrays["dt"])
    if states.shape[-1] != 14 or not (np.isfinite(states).all() and dt > 0 and states.size):
        raise DataError(
            f"`{path}` should hold finite states of 14 numbers and a positive `dt`, but has states "
            f"of shape {states.shape} and {dt=}. Fetch the file again."
        )
    return Series(dt * np.arange(states.shape[1]), states)
