"""Oscillations that die away, read with noise at some of the times of a grid."""

import numpy as np

from ..numbers import count, counts, positive, real
from .host_random import AnyKey, generator
from .selection import of_rows, random_rows
from .simulated import Simulated

_STEPS_BETWEEN = 10  # Runge-Kutta steps for a step of the grid; the error is below 1e-7


def spirals(
    num: int = 256,
    *,
    key: AnyKey,
    decay: float = 0.3,
    frequency: float = 2.0,
    t1: float = 6.283185307179586,
    num_times: int = 100,
    observed: float = 1.0,
    noise_std: float = 0.0,
) -> Simulated:
    r"""$x(t) = e^{-\gamma t} (\cos(\varphi \pm \omega t), \sin(\varphi \pm \omega t))$.

    Half of the spirals turn left and half right, from an angle $\varphi$ that is evenly
    distributed: to tell which is the classic first task of a neural CDE.

    Args:
        num: series; with an odd number one more turns right.
        key: the same key gives the same series.
        decay: $\gamma$, per unit of time.
        frequency: $\omega$, in radians per unit of time.
        t1: the end.
        num_times: points of a regular grid from 0 to `t1`, at least 2.
        observed: the share of these that are read in each series, at random; above 0 to 1.
        noise_std: standard deviation of the noise of a reading.

    Returns:
        [`ndekit.data.Simulated`][] with `others["label"]`, 1 for those that turn left (against the
        clock) and 0 for the others, and `others["angle"]`, $\varphi$.

    Raises:
        ValueError: if a number is out of range.

    Example:
        ```python
        import jax.random as jr
        import ndekit as nk

        made = nk.data.spirals(8, key=jr.key(0), observed=0.5)
        assert made.series.xs.shape == (8, 50, 2)
        assert made.others["label"].sum() == 4
        ```
    """
    real("decay", decay)
    positive("frequency", frequency)
    ts = _grid(num, num_times, t1, observed, noise_std)
    rng = generator(key)
    label = rng.permutation(num) < num // 2
    angle = rng.uniform(0.0, 2 * np.pi, (num, 1))
    turned = angle + np.where(label, 1, -1)[:, None] * frequency * ts
    paths = np.exp(-decay * ts)[:, None] * np.stack([np.cos(turned), np.sin(turned)], axis=-1)
    others = {"label": label.astype(np.int32), "angle": angle[:, 0].astype(np.float32)}
    return _read(ts, paths, observed, noise_std, others, rng)


def damped_pendulum(
    num: int = 256,
    *,
    key: AnyKey,
    frequency: float = 2.0,
    damping: float = 0.2,
    largest_angle: float = 2.0,
    t1: float = 10.0,
    num_times: int = 100,
    observed: float = 1.0,
    noise_std: float = 0.0,
) -> Simulated:
    r"""$\ddot\theta = -\omega^2 \sin\theta - c\,\dot\theta$, let go at rest from a random angle.

    The channels are $\theta$ and $\dot\theta$.

    Args:
        num: series.
        key: the same key gives the same series.
        frequency: $\omega$ of small oscillations, in radians per unit of time.
        damping: $c$, per unit of time, 0 or more.
        largest_angle: of the start, in radians; angles are evenly distributed on both sides.
        t1: the end.
        num_times: points of a regular grid from 0 to `t1`, at least 2.
        observed: the share of these that are read in each series, at random; above 0 to 1.
        noise_std: standard deviation of the noise of a reading.

    Returns:
        [`ndekit.data.Simulated`][].

    Raises:
        ValueError: if a number is out of range.

    Example:
        ```python
        import jax.random as jr
        import ndekit as nk

        made = nk.data.damped_pendulum(8, key=jr.key(0), observed=0.3)
        assert made.series.xs.shape == (8, 30, 2)
        ```
    """
    positive("frequency", frequency)
    real("damping", damping, least=0.0)
    positive("largest_angle", largest_angle)
    ts = _grid(num, num_times, t1, observed, noise_std)
    rng = generator(key)
    angles = rng.uniform(-largest_angle, largest_angle, num)
    state = np.stack([angles, np.zeros(num)], axis=-1)

    def rate(z: np.ndarray) -> np.ndarray:
        angle, speed = z[:, 0], z[:, 1]
        return np.stack([speed, -(frequency**2) * np.sin(angle) - damping * speed], axis=-1)

    paths = np.empty((num, num_times, 2))
    paths[:, 0] = state
    dt = (ts[1] - ts[0]) / _STEPS_BETWEEN
    for row in range(1, num_times):
        for _ in range(_STEPS_BETWEEN):
            k1 = rate(state)
            k2 = rate(state + 0.5 * dt * k1)
            k3 = rate(state + 0.5 * dt * k2)
            k4 = rate(state + dt * k3)
            state = state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        paths[:, row] = state
    return _read(ts, paths, observed, noise_std, {}, rng)


def _grid(num: int, num_times: int, t1: float, observed: float, noise_std: float) -> np.ndarray:
    counts(num=num)
    count("num_times", num_times, 2)
    positive("t1", t1)
    real("observed", observed, above=0.0, most=1.0)
    real("noise_std", noise_std, least=0.0)
    return np.linspace(0.0, t1, num_times)


def _read(
    ts: np.ndarray, paths: np.ndarray, observed: float, noise_std: float, others: dict,
    rng: np.random.Generator,
) -> Simulated:  # fmt: skip
    number = max(1, round(observed * len(ts)))
    rows = random_rows(np.ones(paths.shape[:2], bool), number, rng)
    noise = noise_std * rng.standard_normal(paths.shape)
    xs = (paths + noise).astype(np.float32)
    series = of_rows(ts, xs, np.ones(xs.shape, bool), rows)
    return Simulated(series, ts.astype(np.float32), paths.astype(np.float32), others)
