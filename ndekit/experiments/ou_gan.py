"""Ornstein-Uhlenbeck series by an SDE-GAN, each batch one state."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree

from ..fields import clip_weights
from ..models import SDEGAN, NeuralSDE
from ..train import projected
from .harness.config import Config
from .harness.distances import marginal_distance
from .harness.regularizers import Regularizer
from .harness.simulated import Timed, parts_of_series, simulated
from .harness.solves import key_or_fixed, solve_options, with_part
from .harness.task import AbstractSDETask, Metric


def ornstein_uhlenbeck(folder: str | None = None) -> Timed:
    r"""$dy = (0.02\, t - 0.1\, y)\, dt + 0.4\, dW$ from $y(0) \sim U(-1, 1)$ at $t = 0, ..., 31$,
    after diffrax's example (to $t = 63$, with noise that grows); 30 % of the training data are
    missing. Time is in units of eight.
    """
    t = np.arange(32.0)
    y0 = np.random.default_rng(1).uniform(-1, 1, (4096, 1))
    return parts_of_series(
        t / 8, simulated(lambda t, y: 0.02 * t - 0.1 * y, lambda y: 0.4, y0, t, 2), missing=0.3
    )


class Faked(NamedTuple):
    """What a generator made, and how far a discriminator thinks it is from the series it saw."""

    series: Float[Array, "batch times size"]
    distance: Float[Array, ""]


class GANOfSeries(eqx.Module):
    """As many series as it is shown, and the discriminator's judgement of them."""

    ode: NeuralSDE
    gan: SDEGAN  # without the generator's SDE, which is `ode`
    ts: tuple[float, ...] = eqx.field(static=True)

    def __call__(
        self, x: Float[Array, "batch times size"], *, key: Any = None
    ) -> tuple[Faked, Any]:
        key, ts = key_or_fixed(key), jnp.asarray(self.ts, x.dtype)
        gan = with_part(lambda gan: gan.generator.sde, self.gan, self.ode)
        fakes, solution = gan.generator(ts, len(x), key=key)
        return Faked(fakes, gan.apart(ts, x, fakes)), solution


class GAN(AbstractSDETask):
    """A generator by the distance of its marginals from those of the data."""

    metric: ClassVar[Metric] = Metric("distance", False, 1000.0, "/1000")

    def build_model(
        self, config: Any, regularizer: Regularizer, data: Timed, *, key: Key[Array, ""]
    ) -> GANOfSeries:
        gan = SDEGAN(
            data.train_x.shape[-1], hidden=16, width=config.width, depth=config.depth,
            noise_size=3, key=key, **solve_options(config, regularizer, diffrax.Heun()),
        )  # fmt: skip
        ode = dataclasses.replace(gan.generator.sde, t0=data.ts[0])
        return GANOfSeries(ode, with_part(lambda gan: gan.generator.sde, gan, None), data.ts)

    def judge(
        self, prediction: Faked, targets: Float[Array, "batch times size"], step: Any = None
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return prediction.distance, marginal_distance(prediction.series, targets)


def _adversaries(num_updates: int) -> optax.GradientTransformation:
    """RMSprop, five times as fast for the discriminator, whose weights are clipped."""

    def players(params: PyTree) -> PyTree:
        labels = jax.tree.map(lambda _: "generator", params)
        judge = jax.tree.map(lambda _: "discriminator", params.gan.discriminator)
        return eqx.tree_at(lambda model: model.gan.discriminator, labels, judge)

    def clipped(params: PyTree) -> PyTree:
        judge = clip_weights(params.gan.discriminator)
        return eqx.tree_at(lambda model: model.gan.discriminator, params, judge)

    speeds: dict[Any, optax.GradientTransformation] = {
        "generator": optax.rmsprop(2e-4),
        "discriminator": optax.rmsprop(1e-3),
    }
    return projected(optax.multi_transform(speeds, players), clipped)


PRESETS = {
    "default": Config(
        about="Ornstein-Uhlenbeck series by an SDE-GAN: Heun, 30 % of the data missing, RMSprop",
        load=ornstein_uhlenbeck,
        task=GAN(),
        width=16,
        depth=1,
        final="tanh",
        rtol=1e-2,
        atol=1e-2,
        dt0=0.125,
        epochs=200,
        batch_size=256,
        optimizer=_adversaries,
        updates_per_call=12,
        predict_batch=512,
        coefficients={
            "steps": 5e-4,
            "budget": 80.0,
            "error": 1.0,
            "error_sum": 0.01,
            "error_squared": 0.001,
            "stiffness": 0.1,
            "error+stiffness": 1.0,
            "local_time": 1.0,
            "local_step": 1.0,
        },
        max_steps=1024,
        average_from=0.5,
    ),
}
