"""Fits of known dynamics to irregularly sampled trajectories: what a penalty does to them."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key
from scipy.integrate import solve_ivp

from ..fields import MLP
from ..models import NeuralODE
from ..shapes import Args
from .classification import ode_of
from .config import Config
from .regularizers import Regularizer
from .task import AbstractODETask, Timed

NUMBER, TIMES = 896, 24


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

    metric: ClassVar[str] = "error"
    larger_is_better: ClassVar[bool] = False
    unit: ClassVar[float] = 100.0
    unit_name: ClassVar[str] = "% of the spread"

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


def spiral(folder: str | None = None) -> Timed:
    """y' = A y^3, A = [[-0.1, 2], [-2, -0.1]] (Chen et al. 2018), from a ring, to t = 1."""
    rng = np.random.default_rng(1)
    angle, radius = rng.uniform(0, 2 * np.pi, NUMBER), rng.uniform(0.5, 2.0, NUMBER)
    starts = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    matrix = np.array([[-0.1, 2.0], [-2.0, -0.1]])
    return sample_trajectories(lambda y: matrix @ y**3, starts, 1.0, 2)


def stiff_van_der_pol(folder: str | None = None) -> Timed:
    """x'' = mu (1 - x^2) x' - x, mu = 5, from states on and about the limit cycle, to t = 0.4."""
    mu, rng = 5.0, np.random.default_rng(3)
    field = lambda y: np.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])
    cycle = solve_ivp(
        lambda t, y: field(y), (0, 60), [2.0, 0.0], "Radau", rtol=1e-8, atol=1e-10,
        t_eval=np.sort(rng.uniform(20, 60, NUMBER)),
    ).y.T  # fmt: skip
    starts = rng.permutation(cycle) + 0.1 * rng.standard_normal((NUMBER, 2))
    return sample_trajectories(field, starts, 0.4, 4)


# Chosen by `ndekit search --allow 0.01` with one seed; docs/papers/known_dynamics.md has what was
# tried. What was not searched (`error+stiffness`) has the coefficient of its first part.
_OF_SPIRAL = {
    "steps": 1e-4,
    "budget": 15.0,
    "error": 1e-2,
    "error_sum": 1e-3,
    "error_squared": 1e-4,
    "stiffness": 1e-4,
    "error+stiffness": 1e-2,
    "local_time": 1e-3,
    "local_step": 1e-3,
    "local_time_published": 1e-4,
    "local_step_published": 1e-4,
    "taylor2": 1e-5,
    "taylor3": 1e-8,
    "rnode": 1e-5,
    "tpr": 1e-3,
}

_OF_VAN_DER_POL = {
    **_OF_SPIRAL,
    "budget": 9.0,
    "error": 1e-3,
    "error_sum": 1e-4,
    "error+stiffness": 1e-3,
    "local_time": 1e-2,
    "local_step": 1e-2,
    "local_time_published": 1.0,
    "local_step_published": 1.0,
    "taylor2": 1e-6,
}

_SPIRAL = Config(
    about="cubic spiral, 2-64-64-2 field, tolerance 1e-5, Adam",
    load=spiral,
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
    coefficients=_OF_SPIRAL,
)

SPIRAL = {"default": _SPIRAL}
VAN_DER_POL = {
    "default": _SPIRAL._replace(
        about="stiff van der Pol (mu 5), 2-64-64-2 field, as above",
        load=stiff_van_der_pol,
        coefficients=_OF_VAN_DER_POL,
    )
}
