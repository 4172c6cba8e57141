"""Densities of handwritten digits, 64 pixels, by a flow: bits a pixel against evaluations."""

import dataclasses
import functools
import math
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from ..data import digits
from ..fields import MLP
from ..models import CNF, StandardNormal
from ..probes import AbstractTrace, Exact, Hutchinson
from .harness.config import Config
from .harness.points import Points
from .harness.regularizers import Regularizer
from .harness.solves import key_or_fixed, solve_options
from .harness.task import AbstractTaskByCosts, Metric

COPIES = 8, 2, 2  # of each image to train on, to validate and to test with, with other noise
LEVELS = 17  # of grey
SQUEEZE = 0.05  # grey goes from here to one minus this before the logit, as in RealNVP
TRACES: dict[str, AbstractTrace] = {"one_probe": Hutchinson(), "exact": Exact()}
PROBES = Hutchinson(n=8)  # of a prediction, the same in each: unbiased, an eighth of the work


def logits(levels: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Grey levels from 0 to 16 with noise from 0 to 1, as logits; and the logarithms of the volumes
    that they grow by.
    """
    grey = SQUEEZE + (1 - 2 * SQUEEZE) * (levels + noise) / LEVELS
    growth = math.log((1 - 2 * SQUEEZE) / LEVELS) - np.log(grey) - np.log1p(-grey)
    return np.log(grey) - np.log1p(-grey), growth.sum(axis=1)


@functools.cache
def dequantised(copies: tuple[int, int, int] = COPIES) -> Points:
    """Digits with noise, as logits whose training part has mean 0 and covariance 1: with the
    volumes of the grey levels, and the scores of two rules.
    """
    parts = whitened(copies)
    test, volume = parts[2]
    told = {"one Gaussian": bits(one_gaussian(test) + volume)} | mixture(parts)
    narrow = [array.astype(np.float32) for pair in parts for array in pair]
    return Points(*narrow, yardsticks=told)


def whitened(copies: tuple[int, int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Logits of the three parts, whitened by the first, and the logarithms of the volumes."""
    images, rng, parts = digits(), np.random.default_rng(23), []
    whole = images.train_x, images.validation_x, images.test_x
    for part, times in zip(whole, copies, strict=True):
        levels = np.repeat(np.round(part.astype(float) * (LEVELS - 1)), times, axis=0)
        parts.append(logits(levels, rng.uniform(size=levels.shape)))
    mean, root = parts[0][0].mean(0), np.linalg.cholesky(np.cov(parts[0][0].T))
    volume = np.log(np.diag(root)).sum()
    return [(np.linalg.solve(root, (x - mean).T).T, y - volume) for x, y in parts]


def one_gaussian(white: np.ndarray) -> np.ndarray:
    """Log densities by the mean and the full covariance of the training logits."""
    return -0.5 * np.sum(white**2 + math.log(2 * math.pi), axis=1)


def mixture(white: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """A mixture of full Gaussians: of two numbers of them, the one best on validation data.

    A ridge of 0.1 was best of 0.03, 0.1 and 0.3; 30 are no better.
    """
    from sklearn.mixture import GaussianMixture

    fits = [GaussianMixture(size, reg_covar=0.1, random_state=0, tol=1e-2) for size in (10, 20)]
    fits = [fit.fit(white[0][0]) for fit in fits]
    score = lambda fit, part: bits(fit.score_samples(part[0]) + part[1])
    best = min(fits, key=lambda fit: score(fit, white[1]))
    return {f"{best.n_components} Gaussians": score(best, white[2])}


def bits(log_density: np.ndarray) -> float:
    """A pixel, of the log densities of the grey levels, in nats."""
    return float(-log_density.mean() / (64 * math.log(2)))


class ImageDensity(eqx.Module):
    """Log densities; without a key, as in a prediction, by eight probes, always the same."""

    ode: CNF

    def __call__(
        self, x: Float[Array, "batch 64"], *, key: Any = None
    ) -> tuple[Float[Array, " batch"], Any]:
        flow = dataclasses.replace(self.ode, trace=PROBES) if key is None else self.ode
        return flow.log_prob_and_solution(x, key=key_or_fixed(key))


class Pixels(AbstractTaskByCosts):
    """Images by the mean negative log density of their grey levels; a batch is one state."""

    metric: ClassVar[Metric] = Metric("NLL", False, 1.0, "bits/dim")

    def build_model(
        self, config: Any, regularizer: Regularizer, data: Any, *, key: Key[Array, ""]
    ) -> ImageDensity:
        field = MLP(
            64, config.width, config.depth, time="concat_each_layer", final=config.final, key=key
        )
        options = solve_options(config, regularizer)
        flow = CNF(field, StandardNormal(64), trace=TRACES[config.model], **options)
        return ImageDensity(flow)

    def judge(
        self, prediction: Float[Array, " batch"], targets: Float[Array, " batch"], step: Any = None
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        nll = -jnp.mean(prediction + targets)
        return nll, nll / (64 * math.log(2))


def _config(trace: str, about: str) -> Config:
    return Config(
        about=f"8x8 digits by a flow with a 64-128-128-64 field, tolerance 1e-4, {about}",
        load=lambda folder: dequantised(),
        task=Pixels(),
        model=trace,
        width=128,
        depth=2,
        final="linear",
        rtol=1e-4,
        atol=1e-4,
        dt0=0.1,
        pcoeff=0.2,
        icoeff=0.4,
        epochs=10,
        batch_size=128,
        optimizer=lambda num_updates: optax.adamw(
            optax.cosine_decay_schedule(2e-3, num_updates), weight_decay=1e-4
        ),
        updates_per_call=9,
        predict_batch=500,
        # Not searched: of the loss, some hundred nats, about a hundredth each.
        coefficients={
            "steps": 1.0,
            "budget": 3.0,
            "error": 10.0,
            "local_time": 10.0,
            "taylor2": 3.0,
            "rnode": 3.0,
            "steer": 0.25,
        },
    )


PRESETS = {
    "one_probe": _config("one_probe", "trained by one random probe"),
    "exact": _config("exact", "trained by the exact trace"),
}
