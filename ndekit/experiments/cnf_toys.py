"""Densities of points in the plane by continuous normalizing flows: nats against evaluations."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from ..fields import MLP
from ..models import CNF, StandardNormal
from .harness.config import Config
from .harness.points import Points
from .harness.regularizers import Regularizer
from .harness.solves import solve_options
from .harness.task import AbstractTaskByCosts, Metric

SIZES = (51_200, 5_120, 20_480)  # points to train on, to validate and to test with
_SPREAD = 0.5 / 1.414  # of one of the eight Gaussians


class Density(eqx.Module):
    """Log densities of points, as the harness calls a model."""

    ode: CNF

    def __call__(
        self, x: Float[Array, "batch 2"], *, key: Any = None
    ) -> tuple[Float[Array, " batch"], Any]:
        return self.ode.log_prob_and_solution(x, key=key)


class Toy(AbstractTaskByCosts):
    """Points by their mean negative log density, with the exact trace; a batch is one state."""

    metric: ClassVar[Metric] = Metric("NLL", False, 1.0, "nats")

    def build_model(
        self, config: Any, regularizer: Regularizer, data: Points, *, key: Key[Array, ""]
    ) -> Density:
        field = MLP(
            2, config.width, config.depth, time="concat_each_layer", final=config.final, key=key
        )
        return Density(CNF(field, StandardNormal(2), **solve_options(config, regularizer)))

    def judge(
        self, prediction: Float[Array, " batch"], targets: Any, step: Any = None
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        nll = -jnp.mean(prediction)
        return nll, nll


def eight_gaussians(rng: np.random.Generator, size: int) -> np.ndarray:
    angles = rng.integers(0, 8, size) * math.pi / 4
    centres = 4 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return (centres + 0.5 * rng.normal(size=(size, 2))) / 1.414


def checkerboard(rng: np.random.Generator, size: int) -> np.ndarray:
    """Of 4 x 4 squares with sides of 2, every other one."""
    x = 4 * rng.uniform(size=size) - 2
    y = rng.uniform(size=size) - 2 * rng.integers(0, 2, size) + np.floor(x) % 2
    return 2 * np.stack([x, y], axis=1)


def two_spirals(rng: np.random.Generator, size: int) -> np.ndarray:
    turned = np.sqrt(rng.uniform(size=size)) * 540 * 2 * math.pi / 360
    arm = np.stack([-np.cos(turned), np.sin(turned)], axis=1) * turned[:, None]
    arm = (arm + 0.5 * rng.uniform(size=(size, 2))) / 3
    sign = 2 * rng.integers(0, 2, (size, 1)) - 1
    return sign * arm + 0.1 * rng.normal(size=(size, 2))


def pinwheel(rng: np.random.Generator, size: int) -> np.ndarray:
    """Five arms, 0.3 long and 0.1 wide, the faster turned the further out."""
    arms = np.array([1.0, 0.0]) + rng.normal(size=(size, 2)) * np.array([0.3, 0.1])
    angles = rng.integers(0, 5, size) * 2 * math.pi / 5 + 0.25 * np.exp(arms[:, 0])
    cos, sin = np.cos(angles), np.sin(angles)
    turned = [arms[:, 0] * cos + arms[:, 1] * sin, arms[:, 1] * cos - arms[:, 0] * sin]
    return 2 * np.stack(turned, axis=1)


TOYS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "8gaussians": eight_gaussians,
    "checkerboard": checkerboard,
    "2spirals": two_spirals,
    "pinwheel": pinwheel,
}
# The mean of minus the log density: what no model goes below, but for the noise of test points.
ENTROPIES = {
    # The Gaussians are seven spreads apart: they do not overlap.
    "8gaussians": math.log(8) + math.log(2 * math.pi * math.e * _SPREAD**2),
    "checkerboard": math.log(32),
}


def load_points(name: str, sizes: tuple[int, int, int] = SIZES) -> Points:
    rng = np.random.default_rng(20)
    parts = [TOYS[name](rng, size).astype(np.float32) for size in sizes]
    pairs = [part for x in parts for part in (x, np.zeros(len(x), np.float32))]
    yardsticks = {"one Gaussian": one_gaussian(parts[0], parts[2])}
    if name in ENTROPIES:
        yardsticks["the entropy of the truth"] = ENTROPIES[name]
    return Points(*pairs, yardsticks=yardsticks)


def one_gaussian(train: np.ndarray, test: np.ndarray) -> float:
    """The mean negative log density by mean and covariance of the training points."""
    off, covariance = (test - train.mean(0)).astype(float), np.cov(train.T.astype(float))
    squares = np.sum(off * np.linalg.solve(covariance, off.T).T, axis=1)
    return float(0.5 * (squares.mean() + np.log(np.linalg.det(2 * math.pi * covariance))))


def _config(name: str) -> Config:
    return Config(
        about=f"{name} by a flow with a 2-64-64-64-2 field: tolerance 1e-5, batches of 512",
        load=lambda folder: load_points(name),
        task=Toy(),
        width=64,
        depth=3,
        final="linear",
        rtol=1e-5,
        atol=1e-5,
        # A solve from the data begins with 0.01 by rule, and by integral control four of its twelve
        # attempts were spent on steps that grow tenfold and are rejected.
        dt0=0.1,
        pcoeff=0.2,
        icoeff=0.4,
        epochs=20,
        batch_size=512,
        optimizer=lambda num_updates: optax.adamw(
            optax.cosine_decay_schedule(3e-3, num_updates), weight_decay=1e-5
        ),
        updates_per_call=10,
        predict_batch=2560,
        # `steps`, `error` and `rnode` by a search on validation points of the eight Gaussians, one
        # seed, within 0.02 nats of none (docs/papers/cnf.md has what was tried); the others near
        # what was tried there.
        coefficients={
            "steps": 0.05,
            "budget": 5.0,
            "error": 0.8,
            "error_sum": 0.1,
            "stiffness": 3e-3,
            "local_time": 0.5,
            "local_step": 0.5,
            "taylor2": 0.5,
            "taylor3": 1e-4,
            "rnode": 0.1,
            "steer": 0.25,
        },
    )


PRESETS = {name: _config(name) for name in TOYS} | {
    f"{name}_published": _config(name)._replace(
        about=f"{name} as FFJORD trains: 10,000 batches of 100 new points, Adam at 1e-3",
        load=lambda folder, name=name: load_points(name, (1_000_000, *SIZES[1:])),
        dt0=None,
        pcoeff=0.0,
        icoeff=1.0,
        epochs=1,
        batch_size=100,
        optimizer=lambda num_updates: optax.adamw(1e-3, weight_decay=1e-5),
    )
    for name in TOYS
}
