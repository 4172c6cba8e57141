"""Fits of known dynamics to irregularly sampled trajectories."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key
from scipy.integrate import solve_ivp

from ...fields import MLP
from ...models import NeuralODE
from ...shapes import Args
from .config import Config
from .regularizers import Regularizer
from .simulated import Timed
from .solves import ode_of
from .task import AbstractODETask, Metric

NUMBER, TIMES = 896, 24  # trajectories of an experiment, and the times of each


class Fitted(eqx.Module):
    """A field solved from the first states to the states at `ts`."""

    ode: NeuralODE
    ts: tuple[float, ...] = eqx.field(static=True)
    encoder: Callable = eqx.nn.Identity()

    def __call__(
        self, x: Float[Array, "batch size"], args: Args = None, *, key: Any = None
    ) -> tuple[Float[Array, "batch times size"], Any]:
        solution = self.ode(self.encoder(x), ts=jnp.asarray(self.ts, x.dtype), key=key)
        assert solution.ys is not None
        return jnp.swapaxes(solution.ys, 0, 1), solution


class TrajectoryFit(AbstractODETask):
    """Trajectories by their mean square error."""

    metric: ClassVar[Metric] = Metric("error", False, 100.0, "% of the spread")

    def build_model(
        self, config: Any, regularizer: Regularizer, data: Timed, *, key: Key[Array, ""]
    ) -> Fitted:
        field = MLP(data.train_x.shape[1], config.width, config.depth, final=config.final, key=key)
        return Fitted(ode_of(config, field, regularizer, t1=data.ts[-1]), data.ts)

    def judge(
        self,
        prediction: Float[Array, "batch times size"],
        targets: Float[Array, "batch times size"],
        step: Any = None,
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The mean square error, and its root."""
        loss = jnp.mean((prediction - targets) ** 2)
        return loss, jnp.sqrt(loss)

    def bias(self, model: Fitted, data: Timed) -> float:
        """Relative error of the field, root mean square along the true test trajectories."""
        assert data.rates is not None
        found = model.ode.field(0.0, jnp.asarray(data.test_y), None)
        off = np.sqrt(np.mean((np.asarray(found) - data.rates) ** 2))
        return float(off / np.sqrt(np.mean(data.rates**2)))


def sample_trajectories(
    field: Callable[[np.ndarray], np.ndarray], starts: np.ndarray, span: float, seed: int
) -> Timed:
    """Trajectories of `y' = field(y)` to a relative accuracy of 1e-8 (SciPy's LSODA), from first
    states to states at irregular times, and the true rates there.

    States are divided by their standard deviation. Four sevenths are to train on, one is for
    validation, two are for the test.
    """
    rng = np.random.default_rng(seed)
    ts = np.concatenate([[0.0], np.sort(rng.uniform(0, span, TIMES - 2)), [span]])

    def solve(y0: np.ndarray) -> np.ndarray:
        sol = solve_ivp(
            lambda t, y: field(y), (0, span), y0, "LSODA", t_eval=ts, rtol=1e-8, atol=1e-10
        )
        return sol.y.T

    ys = np.stack([solve(y0) for y0 in starts])
    scale = ys.std(axis=(0, 1))
    rates = np.apply_along_axis(field, -1, ys) / scale
    ys = (ys / scale).astype(np.float32)
    first, second = 4 * len(ys) // 7, 5 * len(ys) // 7
    parts = [ys[:first], ys[first:second], ys[second:]]
    paired = [array for part in parts for array in (part[:, 0], part)]
    return Timed(tuple(ts.tolist()), *paired, rates=rates[second:].astype(np.float32))


def trajectory_config(
    about: str, load: Callable[[str | None], Timed], coefficients: dict[str, Any]
) -> Config:
    """A fit of trajectories with the settings that all of them share."""
    return Config(
        about=about,
        load=load,
        task=TrajectoryFit(),
        width=64,
        depth=2,
        final="linear",
        rtol=1e-5,
        atol=1e-5,
        epochs=400,
        batch_size=128,
        updates_per_call=20,
        optimizer=lambda num_updates: optax.adam(optax.cosine_decay_schedule(1e-2, num_updates)),
        predict_batch=256,
        coefficients=coefficients,
    )
