"""The stochastic Lorenz system by a latent SDE, each batch one state."""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from ..integrate import SOSRI
from ..models import Latent, LatentSDE, NeuralSDE
from .harness.config import Config
from .harness.regularizers import Regularizer
from .harness.simulated import Timed, parts_of_series, simulated
from .harness.solves import key_or_fixed, solve_options, with_part
from .harness.task import AbstractSDETask, Metric

# Of an observation, where the data have a standard deviation of 1.
LORENZ_NOISE = 0.1


def stochastic_lorenz(folder: str | None = None) -> Timed:
    r"""Lorenz's system, $(\sigma, \rho, \beta) = (10, 28, 8/3)$, with noise
    $(0.1, 0.28, 0.3)\, dW$, from a normal state, at 40 times to $t = 2$; after torchsde's example,
    where the noise is proportional to the state and there are 100 times.
    """

    def drift(t: float, y: np.ndarray) -> np.ndarray:
        a, b, c = np.moveaxis(y, -1, 0)
        return np.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], axis=-1)

    ts = np.linspace(0.0, 2.0, 40)
    y0 = np.random.default_rng(3).standard_normal((1024, 3))
    series = simulated(drift, lambda y: np.array([0.1, 0.28, 0.3]), y0, ts, 4)
    noise = np.random.default_rng(5).standard_normal(series.shape)
    return parts_of_series(ts, series + LORENZ_NOISE * series.std((0, 1)) * noise)


class LatentOfSeries(eqx.Module):
    """The posterior of each series, from one path."""

    ode: NeuralSDE
    latent: LatentSDE  # without the prior's SDE, which is `ode`
    ts: tuple[float, ...] = eqx.field(static=True)

    def __call__(
        self, x: Float[Array, "batch times size"], *, key: Any = None
    ) -> tuple[Latent, Any]:
        model = with_part(lambda latent: latent.prior.sde, self.latent, self.ode)
        latent = model(jnp.asarray(self.ts, x.dtype), x, key=key_or_fixed(key))
        return latent, latent.solution


class LatentFit(AbstractSDETask):
    """Series by a bound of their evidence; divergences come in over the first updates."""

    metric: ClassVar[Metric] = Metric("bound", False, 1.0, "nats a number")

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
        return LatentOfSeries(
            ode, with_part(lambda latent: latent.prior.sde, latent, None), data.ts
        )

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


PRESETS = {
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
        coefficients={
            "steps": 0.02,
            "budget": 80.0,
            "error": 30.0,
            "error_sum": 0.3,
            "error_squared": 0.03,
            "stiffness": 1.0,
            "error+stiffness": 30.0,
            "local_time": 30.0,
            "local_step": 30.0,
        },
        max_steps=1024,
    ),
}
