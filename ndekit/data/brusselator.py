"""A chemical oscillator with noise, read at random times."""

import numpy as np

from ..numbers import counts, positive, real
from .double_ou import read_in_turns
from .host_random import AnyKey, generator
from .simulated import Simulated

_STEPS_BETWEEN = 4  # of Heun's scheme for a step of the grid; the error is about 1e-4


def brusselator(
    num: int = 1000,
    *,
    key: AnyKey,
    a: float = 0.3,
    b: float = 1.4,
    volatility: float = 0.01,
    correlation: float = -0.99,
    t1: float = 50.0,
    num_steps: int = 500,
    num_readings: int = 25,
) -> Simulated:
    r"""$dx = (1 - (b+1)x + a x^2 y)dt + \sigma dW_1$, $dy = (bx - a x^2 y)dt + \sigma dW_2$.

    From about the fixed point $(1, b/a)$, which is unstable where $b > 1 + a$, to a limit cycle.
    About `num_readings` (up to a fifth more or fewer) random points of a regular grid are read,
    80 % of them in both channels. The defaults are what the code of GRU-ODE-Bayes computes; it
    takes Euler steps as long as those of the grid, which are not exact, and these are.

    Args:
        num: series.
        key: the same key gives the same series.
        a: of the reaction that makes $x$ of $y$.
        b: of the reaction that makes $y$ of $x$.
        volatility: $\sigma$, 0 or more.
        correlation: of the two noises, from -1 to 1.
        t1: the end.
        num_steps: steps of the grid from 0 to `t1`.
        num_readings: rows of a series, on average.

    Returns:
        [`ndekit.data.Simulated`][].

    Raises:
        ValueError: if a number is out of range.

    Example:
        ```python
        import jax.random as jr
        import ndekit as nk

        made = nk.data.brusselator(20, key=jr.key(0))
        assert made.paths.shape == (20, 501, 2)
        ```

    Reference: De Brouwer, Simm, Arany and Moreau (2019), *GRU-ODE-Bayes*, section 5.2.
    """
    counts(num=num, num_steps=num_steps, num_readings=num_readings)
    positive("a", a)
    positive("b", b)
    positive("t1", t1)
    real("volatility", volatility, least=0.0)
    real("correlation", correlation, least=-1.0, most=1.0)
    if 1.2 * num_readings > num_steps:
        raise ValueError(
            f"`num_readings` must be at most {num_steps / 1.2:g} for {num_steps} points of the "
            f"grid, got {num_readings}."
        )
    rng = generator(key)
    start = np.array([1.0, b / a]) + 0.3 * rng.standard_normal((num, 2))
    dt = t1 / (num_steps * _STEPS_BETWEEN)
    root = np.array([[1.0, 0.0], [correlation, np.sqrt(1 - correlation**2)]])
    normals = rng.standard_normal((num_steps * _STEPS_BETWEEN, num, 2))
    noise = volatility * np.sqrt(dt) * normals @ root.T

    def rate(z: np.ndarray) -> np.ndarray:
        x, y = z[:, 0], z[:, 1]
        made = a * x**2 * y
        return np.stack([1 - (b + 1) * x + made, b * x - made], axis=-1)

    z, paths = start, np.empty((num, num_steps + 1, 2))
    paths[:, 0] = start
    for step, kick in enumerate(noise):
        slope = rate(z)
        z = z + 0.5 * dt * (slope + rate(z + dt * slope + kick)) + kick
        if (step + 1) % _STEPS_BETWEEN == 0:
            paths[:, (step + 1) // _STEPS_BETWEEN] = z
    ts = np.linspace(0.0, t1, num_steps + 1)
    series = read_in_turns(ts, paths, num_readings, (0.1, 0.1), rng)
    return Simulated(series, ts.astype(np.float32), paths.astype(np.float32), {})
