"""Generative models of noisy series: an SDE-GAN and a latent SDE, each batch one state."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from ..fields import clip_weights
from ..integrate import SOSRI
from ..models import SDEGAN, Latent, LatentSDE, NeuralSDE
from ..train import projected
from .config import Config
from .regularizers import Regularizer
from .series_data import (
    LORENZ_NOISE,
    marginal_distance,
    ornstein_uhlenbeck,
    stochastic_lorenz,
)
from .task import AbstractSDETask, Timed, key_or_fixed, solve_options


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
        gan = _put(lambda gan: gan.generator.sde, self.gan, self.ode)
        fakes, solution = gan.generator(ts, len(x), key=key)
        return Faked(fakes, gan.apart(ts, x, fakes)), solution


class GAN(AbstractSDETask):
    """A generator by the distance of its marginals from those of the data."""

    metric: ClassVar[str] = "distance"
    larger_is_better: ClassVar[bool] = False
    unit: ClassVar[float] = 1000.0
    unit_name: ClassVar[str] = "/1000"

    def build_model(
        self, config: Any, regularizer: Regularizer, data: Timed, *, key: Key[Array, ""]
    ) -> GANOfSeries:
        gan = SDEGAN(
            data.train_x.shape[-1], hidden=16, width=config.width, depth=config.depth,
            noise_size=3, key=key, **solve_options(config, regularizer, diffrax.Heun()),
        )  # fmt: skip
        ode = dataclasses.replace(gan.generator.sde, t0=data.ts[0])
        return GANOfSeries(ode, _put(lambda gan: gan.generator.sde, gan, None), data.ts)

    def judge(
        self, prediction: Faked, targets: Float[Array, "batch times size"], step: Any = None
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return prediction.distance, marginal_distance(prediction.series, targets)


class LatentOfSeries(eqx.Module):
    """The posterior of each series, from one path."""

    ode: NeuralSDE
    latent: LatentSDE  # without the prior's SDE, which is `ode`
    ts: tuple[float, ...] = eqx.field(static=True)

    def __call__(
        self, x: Float[Array, "batch times size"], *, key: Any = None
    ) -> tuple[Latent, Any]:
        model = _put(lambda latent: latent.prior.sde, self.latent, self.ode)
        latent = model(jnp.asarray(self.ts, x.dtype), x, key=key_or_fixed(key))
        return latent, latent.solution


class LatentFit(AbstractSDETask):
    """Series by a bound of their evidence; divergences come in over the first updates."""

    metric: ClassVar[str] = "bound"
    larger_is_better: ClassVar[bool] = False
    unit: ClassVar[float] = 1.0
    unit_name: ClassVar[str] = "nats a number"

    def __init__(self, noise_std: float, annealed_over: int):
        self.noise_std, self.annealed_over = noise_std, annealed_over

    def build_model(
        self, config: Any, regularizer: Regularizer, data: Timed, *, key: Key[Array, ""]
    ) -> LatentOfSeries:
        latent = LatentSDE(
            data.train_x.shape[-1], latent=4, context=config.width // 2, width=config.width,
            key=key, **solve_options(config, regularizer, SOSRI()),
        )  # fmt: skip
        ode = dataclasses.replace(latent.prior.sde, t0=data.ts[0])
        return LatentOfSeries(ode, _put(lambda latent: latent.prior.sde, latent, None), data.ts)

    def judge(
        self, prediction: Latent, targets: Float[Array, "batch times size"], step: Any = None
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Both are minus the bound in the mean over times and numbers."""
        numbers = targets[0].size
        bound = lambda beta: prediction.negative_bound(targets, self.noise_std, beta) / numbers
        whole = bound(1.0)
        if step is None:
            return whole, whole
        return bound(jnp.minimum(1.0, (step + 1) / self.annealed_over)), whole


def _put(where: Callable[[Any], Any], model: Any, part: Any) -> Any:
    return eqx.tree_at(where, model, part, is_leaf=lambda x: x is None)


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


def _coefficients(steps: float, error: float, stiffness: float) -> dict[str, float]:
    return {
        "steps": steps,
        "budget": 80.0,
        "error": error,
        "error_sum": error / 100,
        "error_squared": error / 1000,
        "stiffness": stiffness,
        "error+stiffness": error,
        "local_time": error,
        "local_step": error,
    }


OU_GAN = {
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
        coefficients=_coefficients(5e-4, 1.0, 0.1),
        max_steps=1024,
        average_from=0.5,
    )
}

LORENZ_LATENT_SDE = {
    "default": Config(
        about="stochastic Lorenz system by a latent SDE: SOSRI, Adam",
        load=stochastic_lorenz,
        task=LatentFit(LORENZ_NOISE, annealed_over=200),
        width=32,
        depth=2,
        final="linear",
        rtol=0.2,
        atol=0.2,
        dt0=0.05,
        epochs=150,
        batch_size=128,
        optimizer=lambda num_updates: optax.adam(optax.exponential_decay(0.01, 1, 0.997)),
        updates_per_call=6,
        predict_batch=128,
        coefficients=_coefficients(0.02, 30.0, 1.0),
        max_steps=1024,
    )
}
