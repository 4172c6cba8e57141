"""Generative models of noisy series: an SDE-GAN and a latent SDE, each batch one state."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree

from ..fields import clip_weights
from ..integrate import SOSRI, ReplayAdjoint
from ..models import SDEGAN, Latent, LatentSDE, NeuralSDE
from ..train import projected
from .config import Config
from .regularizers import Regularizer
from .task import AbstractSDETask

# Of a prediction for which nobody gave a key.
_KEY_SEED = 2021
# Of an observation, where the data have a standard deviation of 1.
LORENZ_NOISE = 0.1


class Series(NamedTuple):
    """Series at `ts`; what is to be predicted is the series itself. NaN for what is missing."""

    ts: tuple[float, ...]
    train_x: np.ndarray
    train_y: np.ndarray
    validation_x: np.ndarray
    validation_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


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
        key, ts = jr.key(_KEY_SEED) if key is None else key, jnp.asarray(self.ts, x.dtype)
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
        self, config: Any, regularizer: Regularizer, data: Series, *, key: Key[Array, ""]
    ) -> GANOfSeries:
        gan = SDEGAN(
            data.train_x.shape[-1], hidden=16, width=config.width, depth=config.depth,
            noise_size=3, key=key, **_solve(config, regularizer, diffrax.Heun()),
        )  # fmt: skip
        ode = dataclasses.replace(gan.generator.sde, t0=data.ts[0])
        return GANOfSeries(ode, _put(lambda gan: gan.generator.sde, gan, None), data.ts)

    def judge(
        self, prediction: Faked, targets: Float[Array, "batch times size"], step: Any = None
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return prediction.distance, marginal_distance(prediction.series, targets)


def marginal_distance(
    ours: Float[Array, "number times size"], theirs: Float[Array, "other times size"]
) -> Float[Array, ""]:
    r"""The Wasserstein-1 distance of the laws of two samples at each time and of each number, in
    the mean: $\int_0^1 \lvert Q(p) - Q'(p) \rvert\, dp$ of the quantiles, NaN left out.
    """
    parts = (jnp.arange(len(ours), dtype=ours.dtype) + 0.5) / len(ours)

    def quantiles(column: Array) -> Array:
        known = jnp.sum(~jnp.isnan(column)).astype(parts.dtype)
        return jnp.sort(column)[jnp.floor(parts * known).astype(jnp.int32)]  # NaN is last

    def columns(xs: Array) -> Array:
        return jax.vmap(quantiles, in_axes=1)(xs.reshape(len(xs), -1))

    return jnp.mean(jnp.abs(columns(ours) - columns(theirs)))


class LatentOfSeries(eqx.Module):
    """The posterior of each series, from one path."""

    ode: NeuralSDE
    latent: LatentSDE  # without the prior's SDE, which is `ode`
    ts: tuple[float, ...] = eqx.field(static=True)

    def __call__(
        self, x: Float[Array, "batch times size"], *, key: Any = None
    ) -> tuple[Latent, Any]:
        model = _put(lambda latent: latent.prior.sde, self.latent, self.ode)
        key = jr.key(_KEY_SEED) if key is None else key
        latent = model(jnp.asarray(self.ts, x.dtype), x, key=key)
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
        self, config: Any, regularizer: Regularizer, data: Series, *, key: Key[Array, ""]
    ) -> LatentOfSeries:
        latent = LatentSDE(
            data.train_x.shape[-1], latent=4, context=config.width // 2, width=config.width,
            key=key, **_solve(config, regularizer, SOSRI()),
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


def _solve(config: Any, regularizer: Regularizer, solver: diffrax.AbstractSolver) -> dict[str, Any]:
    return dict(
        solver=solver,
        controller=diffrax.PIDController(rtol=config.rtol, atol=config.atol),
        adjoint=ReplayAdjoint(step_sizes=regularizer.step_sizes),
        costs=regularizer.costs,
        dt0=config.dt0,
        max_steps=config.max_steps,
    )


def simulated(
    drift: Callable, diffusion: float | np.ndarray, y0: np.ndarray, ts: np.ndarray, seed: int
) -> np.ndarray:
    """`dy = drift(t, y) dt + diffusion dW` at `ts`, by 50 steps of Euler from each to the next."""
    rng, y, saved = np.random.default_rng(seed), y0, [y0]
    for start, end in zip(ts[:-1], ts[1:], strict=True):
        h = (end - start) / 50
        for i in range(50):
            noise = np.sqrt(h) * rng.standard_normal(y.shape)
            y = y + h * drift(start + i * h, y) + diffusion * noise
        saved.append(y)
    return np.stack(saved, axis=1)


def parts_of_series(ts: np.ndarray, series: np.ndarray, *, missing: float = 0.0) -> Series:
    """Standardised, in parts of 3/4, 1/8 and 1/8; of the first, numbers are missing."""
    series = (series - series.mean((0, 1))) / series.std((0, 1))
    first, second = 3 * len(series) // 4, 7 * len(series) // 8
    series = series.astype(np.float32)
    holes = np.random.default_rng(11).uniform(size=series[:first].shape) < missing
    train = np.where(holes, np.float32(np.nan), series[:first])
    pairs = [part for part in (train, series[first:second], series[second:]) for _ in range(2)]
    return Series(tuple(ts.tolist()), *pairs)


def ornstein_uhlenbeck(folder: str | None = None) -> Series:
    r"""$dy = (0.02\, t - 0.1\, y)\, dt + 0.4\, dW$ from $y(0) \sim U(-1, 1)$ at $t = 0, ..., 31$
    (the example of torchsde and diffrax); 30 % of the training data are missing. Time is in units
    of eight.
    """
    t = np.arange(32.0)
    y0 = np.random.default_rng(1).uniform(-1, 1, (4096, 1))
    return parts_of_series(
        t / 8, simulated(lambda t, y: 0.02 * t - 0.1 * y, 0.4, y0, t, 2), missing=0.3
    )


def stochastic_lorenz(folder: str | None = None) -> Series:
    r"""Lorenz's system, $(\sigma, \rho, \beta) = (10, 28, 8/3)$, with noise
    $(0.1, 0.28, 0.3)\, dW$, from a normal state, at 40 times to $t = 2$ (torchsde's example).
    """

    def drift(t: float, y: np.ndarray) -> np.ndarray:
        a, b, c = np.moveaxis(y, -1, 0)
        return np.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], axis=-1)

    ts = np.linspace(0.0, 2.0, 40)
    y0 = np.random.default_rng(3).standard_normal((1024, 3))
    series = simulated(drift, np.array([0.1, 0.28, 0.3]), y0, ts, 4)
    noise = np.random.default_rng(5).standard_normal(series.shape)
    return parts_of_series(ts, series + LORENZ_NOISE * series.std((0, 1)) * noise)


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
        coefficients=_coefficients(5e-3, 10.0, 1.0),
        max_steps=1024,
    )
}
