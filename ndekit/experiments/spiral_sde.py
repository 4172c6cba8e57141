"""Moments of a noisy spiral by a neural SDE, as in Pal et al. 2021."""

import os
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from ..data import DataError
from ..fields import MLP
from ..integrate import SOSRI
from ..models import NeuralSDE
from .harness.config import Config
from .harness.regularizers import SDE_COEFFICIENTS, Regularizer
from .harness.simulated import Timed, simulated
from .harness.solves import key_or_fixed, solve_options
from .harness.task import AbstractSDETask, Metric

POPULATION = 100


class Population(eqx.Module):
    """Trajectories of an SDE from many first states at `ts`, solved as one state."""

    ode: NeuralSDE
    ts: tuple[float, ...] = eqx.field(static=True)

    def __call__(
        self, x: Float[Array, "batch size"], *, key: Any = None
    ) -> tuple[Float[Array, "batch times size"], Any]:
        solution = self.ode(x, jnp.asarray(self.ts, x.dtype), key=key_or_fixed(key))
        assert solution.ys is not None
        return jnp.swapaxes(solution.ys, 0, 1), solution


class MomentFit(AbstractSDETask):
    """Populations by their means and variances."""

    metric: ClassVar[Metric] = Metric("error", False, 1000.0, "/1000")

    def build_model(
        self, config: Any, regularizer: Regularizer, data: Timed, *, key: Key[Array, ""]
    ) -> Population:
        """Drift: the cubes of the state, then a hidden layer; diffusion: linear, and near zero to
        begin with: from Glorot's weights 250 updates are too few for some seeds.
        """
        drift_key, diffusion_key = jr.split(key)
        layers = MLP(
            2, config.width, config.depth, final=config.final, near_zero=False, key=drift_key
        )
        diffusion = MLP(2, 1, 0, final="linear", key=diffusion_key)
        options = solve_options(config, regularizer, SOSRI())
        return Population(NeuralSDE(_OfCubes(layers), diffusion, **options), data.ts)

    def judge(
        self,
        prediction: Float[Array, "batch times size"],
        targets: Float[Array, "batch times two"],
        step: Any = None,
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The mean over times and numbers of squared gaps of means plus that of variances."""
        mean, variance = jnp.split(targets[0], 2, axis=-1)
        off_mean = jnp.mean((jnp.mean(prediction, 0) - mean) ** 2)
        loss = off_mean + jnp.mean((jnp.var(prediction, 0, ddof=1) - variance) ** 2)
        return loss, loss


class _OfCubes(eqx.Module):
    field: MLP

    def __call__(self, t: Any, y: Array, args: Any = None) -> Array:
        return self.field(t, y**3)


def spiral_moments(folder: str | None = None) -> Timed:
    """The published moments, from `spiral_sde.npz` in `folder` (or in `$NDEKIT_DATA`); else those
    of our own simulation of the same equations. The parts are the same: a population is drawn anew
    whenever one is solved.
    """
    place = folder or os.environ.get("NDEKIT_DATA")
    path = None if place is None else Path(place) / "spiral_sde.npz"
    if path is not None and path.exists():
        with np.load(path) as arrays:
            mean, variance = arrays["sde_data"].T, arrays["sde_data_vars"].T
    elif folder is not None:
        raise DataError(f"There is no spiral_sde.npz in {folder}.")
    else:
        mean, variance = simulated_moments()
    ts = np.linspace(0.0, 1.0, len(mean))
    x = np.tile(np.array([2.0, 0.0], np.float32), (POPULATION, 1))
    y = np.tile(np.concatenate([mean, variance], axis=1), (POPULATION, 1, 1))
    return Timed(tuple(ts.tolist()), x, y, x, y, x, y)


def simulated_moments(number: int = 10000, steps: int = 2900) -> tuple[np.ndarray, np.ndarray]:
    r"""Mean and variance at 30 times of the noisy spiral from $(2, 0)$.

    $$du_1 = (-\alpha u_1^3 - \beta u_2^3) dt + \gamma u_1 dW_1, \qquad
    du_2 = (\beta u_1^3 - \alpha u_2^3) dt + \gamma u_2 dW_2,$$

    with $\alpha = 0.1$, $\beta = 2$, $\gamma = 0.2$. The paper prints the signs of $\beta$ the
    other way round; its data have these.
    """
    matrix, u0 = np.array([[-0.1, 2.0], [-2.0, -0.1]]), np.tile([2.0, 0.0], (number, 1))
    u = simulated(
        lambda t, u: u**3 @ matrix, lambda u: 0.2 * u, u0, np.linspace(0.0, 1.0, 30), 0, steps // 29
    )
    mean, variance = u.mean(axis=0), u.var(axis=0, ddof=1)
    return mean.astype(np.float32), variance.astype(np.float32)


# Of the paper where it has any: the sum of the error, the stiffness.
PRESETS = {
    "default": Config(
        about="moments of a noisy spiral, paper A: SOSRI at 0.3, AdaBelief, 250 updates",
        load=spiral_moments,
        task=MomentFit(),
        width=50,
        depth=1,
        final="linear",
        rtol=0.3,
        atol=0.3,
        dt0=0.01,
        epochs=250,
        batch_size=POPULATION,
        optimizer=lambda num_updates: optax.adabelief(0.01),
        updates_per_call=1,
        predict_batch=POPULATION,
        coefficients=SDE_COEFFICIENTS,
        max_steps=512,
    ),
}
