"""A pendulum without friction: what a field is built of, and the energy that it keeps for long."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Key
from scipy.integrate import solve_ivp

from ..fields import MLP, Hamiltonian, Lagrangian, SecondOrder, SeparableEnergy
from ..models import NeuralODE
from .harness.config import Config
from .harness.regularizers import Regularizer
from .harness.simulated import Timed
from .harness.solves import ode_of
from .harness.task import AbstractODETask, Metric
from .harness.trajectories import Fitted, TrajectoryFit

SPAN = 3.0  # of the trajectories to train on; a small swing takes 2 pi
LONG = 20 * SPAN  # of the solves whose energy is looked at


def pendulum(
    folder: str | None = None, sizes: tuple[int, ...] = (256, 64, 128), times: int = 16
) -> Timed:
    """q'' = -sin q from angles within 2 and velocities within 1, to t = 3, without noise."""
    rng = np.random.default_rng(6)
    ts, parts = np.linspace(0.0, SPAN, times), []
    for size in sizes:
        starts = rng.uniform(-1.0, 1.0, (size, 2)) * np.array([2.0, 1.0])
        ys = np.stack([_swing(y0, ts) for y0 in starts]).astype(np.float32)
        parts += [ys[:, 0], ys]
    return Timed(tuple(ts.tolist()), *parts)


def _swing(y0: np.ndarray, ts: np.ndarray) -> np.ndarray:
    rate = lambda t, y: [y[1], -np.sin(y[0])]
    return solve_ivp(rate, (0, ts[-1]), y0, "DOP853", t_eval=ts, rtol=1e-9, atol=1e-9).y.T


def energy(y: Float[Array, "*batch both"]) -> Float[Array, "*batch"]:
    """The true one, of angle and velocity: 2 between rest and upside down."""
    return 0.5 * y[..., 1] ** 2 - jnp.cos(y[..., 0])


class PendulumFit(AbstractODETask):
    """Trajectories by their mean square error; the bias is how far the energy strays."""

    metric: ClassVar[Metric] = Metric("error", False, 1000.0, "mrad")

    def build_model(
        self, config: Any, regularizer: Regularizer, data: Timed, *, key: Key[Array, ""]
    ) -> Fitted:
        field = field_of(config, key=key)
        return Fitted(ode_of(config, field, regularizer, t1=data.ts[-1]), data.ts)

    def judge(
        self,
        prediction: Float[Array, "batch times both"],
        targets: Float[Array, "batch times both"],
        step: Any = None,
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return TrajectoryFit().judge(prediction, targets)

    def bias(self, model: Fitted, data: Timed) -> float:
        """How far the true energy strays from that of the start on solves that are twenty times as
        long as the training's, root mean square, over the spread of the starts' energies.

        Infinite if a solve fails.
        """
        ode = NeuralODE(
            model.ode.field, model.ode.solver, model.ode.controller, max_steps=20_000, throw=False
        )
        y0 = jnp.asarray(data.test_x)
        solution = eqx.filter_jit(ode)(y0, jnp.linspace(0.0, LONG, 121))
        energies = np.asarray(jax.jit(energy)(solution.ys))
        drift = np.sqrt(np.mean((energies - energies[:1]) ** 2)) / np.std(energies[0])
        return float(drift) if np.isfinite(drift) else np.inf


def field_of(config: Any, *, key: Key[Array, ""]) -> Any:
    """The field of a config's model: each is made of networks of the same width and depth."""
    network = lambda size, key, **options: MLP(
        size, config.width, config.depth, final="linear", key=key, **options
    )
    match config.model:
        case "plain":
            return network(2, key)
        case "second_order":
            return SecondOrder(network(2, key, out=1))
        case "hamiltonian":
            return Hamiltonian(network(2, key, out=()))
        case "separable":
            parts = [network(1, part, out=()) for part in jr.split(key)]
            return Hamiltonian(SeparableEnergy(*parts))
        case "lagrangian":
            return Lagrangian(network(2, key, out=()), inertia=1.0)
    raise ValueError(f"There is no model {config.model!r} of the pendulum.")


def _config(model: str, about: str) -> Config:
    return Config(
        about=f"pendulum to t = 3, {about}, width 32, depth 2, tolerance 1e-5, Adam",
        load=pendulum,
        task=PendulumFit(),
        model=model,
        width=32,
        depth=2,
        final="linear",
        rtol=1e-5,
        atol=1e-5,
        epochs=200,
        batch_size=64,
        updates_per_call=20,
        optimizer=lambda num_updates: optax.adam(optax.cosine_decay_schedule(1e-2, num_updates)),
        predict_batch=128,
        coefficients={"steps": 1e-5},
    )


PRESETS = {
    "plain": _config("plain", "angle and velocity as any two numbers"),
    "second_order": _config("second_order", "an acceleration"),
    "hamiltonian": _config("hamiltonian", "an energy"),
    "separable": _config("separable", "a kinetic and a potential energy"),
    "lagrangian": _config("lagrangian", "a Lagrangian, of inertia 1 and a network"),
}
