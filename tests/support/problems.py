"""The problems, solvers, controllers and costs that every part of the engine is held to."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import ndekit as nk


class Problem(NamedTuple):
    """y' = field(t, y, args) from t0 to t1. NumPy leaves, so that a test's precision decides."""

    field: Callable
    y0: Any
    args: Any
    t0: float
    t1: float
    exact: Callable | None = None  # t -> y(t), in NumPy

    def state(self):
        return jax.tree.map(jnp.asarray, self.y0)

    def parameters(self):
        return jax.tree.map(jnp.asarray, self.args)

    @property
    def ts(self):
        """Times to save at, uneven and inside the span, in the direction of the solve."""
        return self.t0 + (self.t1 - self.t0) * np.array([0.03, 0.11, 0.12, 0.4, 0.77, 0.985])


def decay(t, y, args):
    return -args["rate"] * y


def oscillator(t, y, args):
    return jnp.stack([y[1], -(args**2) * y[0]])


def lotka_volterra(t, y, args):
    a, b, c, d = args
    return jnp.stack([a * y[0] - b * y[0] * y[1], d * y[0] * y[1] - c * y[1]])


def lorenz(t, y, args):
    sigma, rho, beta = args
    return jnp.stack([sigma * (y[1] - y[0]), y[0] * (rho - y[2]) - y[1], y[0] * y[1] - beta * y[2]])


def van_der_pol(t, y, args):
    return jnp.stack([y[1], args * (1 - y[0] ** 2) * y[1] - y[0]])


def stiff_linear(t, y, args):
    return -args * (y - jnp.cos(t))


def switched(t, y, args):
    return jnp.where(t < 0.437, args, -args * y)


def forced(t, y, args):
    return args * jnp.cos(t) * y


def tree_field(t, y, args):
    spring, damping = args["spring"], args["damping"]
    return {
        "speed": -spring * y["place"][0] - damping * y["speed"],
        "place": (y["speed"], jnp.sin(t) * y["place"][1]),
    }


def mlp(t, y, args):
    for weights, bias in args[:-1]:
        y = jnp.tanh(weights @ y + bias)
    weights, bias = args[-1]
    return weights @ y + bias


def _layers(*sizes):
    generator = np.random.default_rng(7)
    return [
        (generator.normal(size=(b, a)) / np.sqrt(a), 0.3 * generator.normal(size=b))
        for a, b in itertools.pairwise(sizes)
    ]


PROBLEMS = {
    # y0 e^(-rate t).
    "decay": Problem(
        decay, np.array([1.0, -2.0]), {"rate": np.array([0.7, 2.0])}, 0.0, 2.0,
        lambda t: np.array([1.0, -2.0]) * np.exp(-np.array([0.7, 2.0]) * t),
    ),
    # cos wt + sin wt / w: unit start and unit speed.
    "oscillator": Problem(
        oscillator, np.array([1.0, 1.0]), np.array(3.0), 0.0, 3.0,
        lambda t: np.array(
            [np.cos(3 * t) + np.sin(3 * t) / 3, np.cos(3 * t) - 3 * np.sin(3 * t)]
        ),
    ),
    "lotka_volterra": Problem(
        lotka_volterra, np.array([1.0, 1.0]), np.array([1.5, 1.0, 3.0, 1.0]), 0.0, 3.0
    ),
    "lorenz": Problem(lorenz, np.array([1.0, 2.0, 10.0]), np.array([10.0, 28.0, 8 / 3]), 0.0, 1.0),
    "van_der_pol": Problem(van_der_pol, np.array([2.0, 0.0]), np.array(5.0), 0.0, 1.5),
    # (50 sin t + 2500 cos t) / 2501 + the transient.
    "stiff_linear": Problem(
        stiff_linear, np.array([0.5]), np.array(50.0), 0.0, 1.0,
        lambda t: np.array(
            [(50 * np.sin(t) + 2500 * np.cos(t)) / 2501 + (0.5 - 2500 / 2501) * np.exp(-50 * t)]
        ),
    ),
    "discontinuous": Problem(
        switched, np.array([0.5]), np.array(2.0), 0.0, 1.0,
        lambda t: np.array([0.5 + 2 * t if t < 0.437 else 1.374 * np.exp(-2 * (t - 0.437))]),
    ),
    "backward": Problem(
        forced, np.array([1.5, -0.5]), np.array([1.0, 2.0]), 2.0, 0.5,
        lambda t: np.array([1.5, -0.5]) * np.exp(np.array([1.0, 2.0]) * (np.sin(t) - np.sin(2))),
    ),
    "non_autonomous": Problem(
        forced, np.array([0.8]), np.array(2.0), 0.3, 2.5,
        lambda t: np.array([0.8]) * np.exp(2 * (np.sin(t) - np.sin(0.3))),
    ),
    "mlp": Problem(mlp, np.array([0.4, -0.9]), _layers(2, 6, 6, 2), 0.0, 2.0),
    "tree": Problem(
        tree_field,
        {"speed": np.array([0.3, -1.0]), "place": (np.array([1.0, 0.5]), np.ones((2, 1, 2)))},
        {"spring": np.array([4.0, 9.0]), "damping": np.array(0.5)}, 0.0, 1.5,
    ),
}  # fmt: skip

# Flat problems of at most three numbers can share one compiled program.
FLAT = [name for name, p in PROBLEMS.items() if isinstance(p.y0, np.ndarray)]
WIDTH = 3


def any_flat_field(t, y, index):
    """The field of flat problem `index`, with a state of three numbers; those left over rest."""

    def padded(problem):
        size = len(problem.y0)

        def field(t, y):
            out = problem.field(t, y[:size], problem.parameters())
            return jnp.concatenate([out, jnp.zeros(WIDTH - size, y.dtype)])

        return field

    return lax.switch(index, [padded(PROBLEMS[name]) for name in FLAT], t, y)


def padded_state(problem):
    return jnp.asarray(np.concatenate([problem.y0, np.zeros(WIDTH - len(problem.y0))]))


SOLVERS = {
    "Euler": diffrax.Euler(),
    "Heun": diffrax.Heun(),
    "Midpoint": diffrax.Midpoint(),
    "Ralston": diffrax.Ralston(),
    "Bosh3": diffrax.Bosh3(),
    "Tsit5": diffrax.Tsit5(),
    "Dopri5": diffrax.Dopri5(),
    "Dopri8": diffrax.Dopri8(),
}
ADAPTIVE = [name for name in SOLVERS if name != "Euler"]
WITH_PAIR = ["Tsit5", "Dopri5", "Dopri8"]
# Tolerances at which each solver takes tens of steps.
RTOL = {"Heun": 1e-3, "Midpoint": 1e-3, "Ralston": 1e-3, "Bosh3": 1e-4} | dict.fromkeys(
    WITH_PAIR, 1e-6
)

PID = functools.partial(diffrax.PIDController, rtol=1e-5, atol=1e-6)
CONTROLLERS = {
    "i": PID(),
    "pi": PID(pcoeff=0.3, icoeff=0.4),
    "pid": PID(pcoeff=0.2, icoeff=0.3, dcoeff=0.1),
    "dtmax": PID(dtmax=0.05),
    "dtmin": PID(dtmin=1e-4, force_dtmin=False),
    "force_dtmin": PID(dtmin=0.03, force_dtmin=True),
    "factors": PID(factormin=0.5, factormax=1.5, safety=0.8),
    "error_order": PID(error_order=4),
    "norm": PID(norm=lambda y: jnp.max(jnp.abs(y))),
}


def step_to(problem, number=60):
    """Times from t0 to t1, small steps first, each 60th of the span at the start."""
    places = np.linspace(0, 1, number + 1)
    places = 0.7 * places + 0.3 * places**2
    times = problem.t0 + (problem.t1 - problem.t0) * places
    times[-1] = problem.t1
    return diffrax.StepTo(jnp.asarray(times))


class StepEnd(nk.AbstractStepCost):
    """The time at which a step ends."""

    def of_step(self, step):
        return jnp.asarray(step.t1)


class Weighed(nk.AbstractPlacement):
    """The sum of readings times weights: with random weights no two sequences of readings agree."""

    cost: nk.AbstractStepCost
    weights: Any

    def init(self, surroundings):
        return jnp.zeros((), surroundings.dtype)

    def add(self, total, reading, place):
        weight = lax.stop_gradient(self.weights)[place.number]
        return total + weight.astype(total.dtype) * reading

    def read(self, total, num_accepted):
        return total

    def pull(self, total, num_accepted, place, ct):
        return ct * self.weights[place.number].astype(total.dtype)


def random_weights(number):
    return np.random.default_rng(3).uniform(0.5, 1.5, size=number)


COSTS = {
    "count": nk.StepCount(),
    "count_mean": nk.EveryStep(nk.StepCount(), "mean"),
    "count_max": nk.EveryStep(nk.StepCount(), "max"),
    "error": nk.StepError(),
    "error_mean": nk.EveryStep(nk.StepError(), "mean"),
    "error_max": nk.EveryStep(nk.StepError(), "max"),
    "squared": nk.StepError(power=2),
    "unscaled": nk.StepError(scaled=False),
}
# For solvers whose last two stages share their node.
PAIR_COSTS = {
    "rho": nk.StepStiffness(),
    "rho_h": nk.EveryStep(nk.StepStiffness("rho_h"), "mean"),
    "relative": nk.EveryStep(nk.StepStiffness("relative"), "max"),
}


def costs_for(solver_name):
    return COSTS | (PAIR_COSTS if solver_name in WITH_PAIR else {})
