"""The problems that are timed, in float32."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

MAX_STEPS = 4096


class Case(NamedTuple):
    """One solve, or `lanes` of them under `vmap`; the gradient is that by `parameters`."""

    name: str
    family: str  # which targets hold
    field: Callable
    y0: Any
    parameters: Any
    t1: float
    tolerance: float
    rounds: int
    lanes: int | None = None
    parameters_per_lane: bool = False
    num_saves: int | None = None
    dt0: float = 0.01

    def over_lanes(self, one: Callable) -> Callable:
        """`one(parameters, y0)` in every lane."""
        if self.lanes is None:
            return one
        return jax.vmap(one, in_axes=(0 if self.parameters_per_lane else None, 0))

    @property
    def state_bytes(self) -> int:
        return self.y0.size * self.y0.dtype.itemsize

    @property
    def record_of_times_bytes(self) -> int:
        """What the time of every step takes, in all lanes."""
        return MAX_STEPS * (self.lanes or 1) * self.y0.dtype.itemsize


def lorenz(t, y, parameters):
    rho = parameters[0]
    return jnp.stack(
        [10.0 * (y[1] - y[0]), rho * y[0] - y[1] - y[0] * y[2], y[0] * y[1] - 8 / 3 * y[2]]
    )


def mlp(t, y, parameters):
    *hidden, (weights, bias) = parameters
    for inner_weights, inner_bias in hidden:
        y = jnp.tanh(y @ inner_weights + inner_bias)
    return y @ weights + bias


def layers(*sizes):
    keys = jr.split(jr.key(0), len(sizes) - 1)
    return [
        (jr.normal(key, (inputs, outputs)) / np.sqrt(inputs), jnp.zeros(outputs))
        for key, (inputs, outputs) in zip(keys, itertools.pairwise(sizes), strict=True)
    ]


def lorenz_case(name: str, lanes: int | None, rounds: int) -> Case:
    shape = () if lanes is None else (lanes,)
    rho = jnp.array(28.0) if lanes is None else jnp.linspace(20.0, 30.0, lanes)
    y0 = jnp.broadcast_to(jnp.array([1.0, 0.0, 0.0]), (*shape, 3))
    return Case(
        name, "lorenz", lorenz, jnp.array(y0), rho[..., None], 1.0, 1e-6, rounds,
        lanes=lanes, parameters_per_lane=lanes is not None,
    )  # fmt: skip


def small_mlp_case(name: str, lanes: int | None, rounds: int, num_saves: int | None = None) -> Case:
    y0 = jnp.array([1.0, 0.5]) if lanes is None else jr.normal(jr.key(1), (lanes, 2))
    t1 = 20.0 if lanes is None else 10.0
    return Case(
        name, "small_mlp", mlp, y0, layers(2, 64, 64, 2), t1, 1e-6, rounds,
        lanes=lanes, num_saves=num_saves,
    )  # fmt: skip


def large_mlp_case(name: str, rounds: int) -> Case:
    y0 = jr.normal(jr.key(1), (512, 784))
    return Case(name, "large_mlp", mlp, y0, layers(784, 100, 784), 1.0, 1e-4, rounds)


# Made when asked for: nothing runs at import.
CASES = {
    "lorenz, 4096 lanes": lambda name: lorenz_case(name, 4096, rounds=20),
    "lorenz, 256 lanes": lambda name: lorenz_case(name, 256, rounds=30),
    "lorenz, single": lambda name: lorenz_case(name, None, rounds=30),
    "mlp 2-64-64-2, single": lambda name: small_mlp_case(name, None, rounds=30),
    "mlp 2-64-64-2, 256 lanes": lambda name: small_mlp_case(name, 256, rounds=30),
    "mlp 2-64-64-2, single, 100 saves": lambda name: small_mlp_case(
        name, None, rounds=30, num_saves=100
    ),
    "mlp 784-100-784, batch 512": lambda name: large_mlp_case(name, rounds=15),
}
LARGE = "mlp 784-100-784, batch 512"
