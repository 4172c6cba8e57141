"""Learnt solvers of one field: where noises end, by a network and a few evaluations of it."""

import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from ..couplings import Reflow
from ..fields import MLP
from ..integrate import Solution, diffeqsolve
from ..losses import consistency, flow_matching, mean_flow, shortcut, stratified_times
from ..models import GaussianMixture, NeuralODE
from ..paths import CondOT
from ..shapes import Args, Time
from .harness.config import Config
from .harness.regularizers import Regularizer
from .harness.solves import with_solve
from .harness.task import READINGS, AbstractTask, Metric, accepted_steps

SIZES = (20_480, 2_048, 4_096)  # noises to train on, to validate and to test with
SPREAD = 0.5 / 1.414  # of each of the eight Gaussians
EVALUATIONS = (1, 2, 4, 8)
PATH = CondOT()
_STEP = 1 / 32  # of the teacher's Heun step that a consistency model looks ahead


def teacher() -> Any:
    """The exact velocity from noise to eight Gaussians on a circle, along `PATH`."""
    angles = np.arange(8) * (math.pi / 4)
    centres = 4 / 1.414 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return GaussianMixture(jnp.asarray(centres, float), SPREAD).velocity(PATH)


Points = Float[Array | np.ndarray, "points 2"]
Pairs = Float[Array | np.ndarray, "points 2 2"]  # a noise, and where the teacher takes it


class Endings(NamedTuple):
    """Pairs to be shown, and their ends to be judged by."""

    train_x: Pairs
    train_y: np.ndarray
    validation_x: Pairs
    validation_y: np.ndarray
    test_x: Pairs
    test_y: np.ndarray
    yardsticks: dict[str, float]


class Mean(eqx.Module):
    """u(t, x, s), the mean velocity on the way from t to s; the velocity itself for s = t."""

    net: MLP

    def __call__(self, t: Time, x: Float[Array, "*batch 2"], s: Time) -> Float[Array, "*batch 2"]:
        span = jnp.broadcast_to(jnp.asarray(s - t, x.dtype), (*x.shape[:-1], 1))
        return self.net(t, jnp.concatenate([x, span], axis=-1))


class Ahead(eqx.Module):
    """A field for Euler's method, whose step x + h u(t, x, t + h) is that of the flow map."""

    mean: Callable[..., Any]
    method: str = eqx.field(static=True)
    h: float = eqx.field(static=True)

    def __call__(
        self, t: Time, x: Float[Array, "*batch 2"], args: Args = None
    ) -> Float[Array, "*batch 2"]:
        match self.method:
            case "mean_flow" | "shortcut":
                return self.mean(t, x, t + self.h)
            case "consistency":  # along the chord to where it sees the end
                return self.mean(t, x, 1.0)
        return self.mean(t, x, t)


class Said(NamedTuple):
    """Where a learnt solver takes some noises, and the loss by which it learns."""

    end: Float[Array, "batch 2"]
    loss: Float[Array, ""]


class LearntSolver(eqx.Module):
    """So many steps of Euler's method with the field that it has learnt.

    A prediction, without a key, draws nothing: its loss is the mean square error of the ends.
    """

    ode: NeuralODE

    def __call__(self, x: Pairs, *, key: Any = None) -> tuple[Said, Solution]:
        solution, field = self.ode(x[:, 0]), self.ode.field
        assert solution.ys is not None and isinstance(field, Ahead)
        end = solution.ys[-1]
        if key is None or field.method == "direct":
            return Said(end, jnp.mean((end - x[:, 1]) ** 2)), solution
        return Said(end, loss_of(field, x, key=key)), solution


def loss_of(field: Ahead, pairs: Pairs, *, key: Key[Array, ""]) -> Float[Array, ""]:
    """The mean over a batch of a method's loss. Only reflow looks at which noise goes where."""
    u, number, exact = field.mean, len(pairs), teacher()
    key, of_steps, of_times = jr.split(key, 3)
    # Of a shortcut a quarter of the batch, two steps of 1/128 to 1/2 in one; else flow matching.
    powers = jr.randint(of_steps, (number,), 1, 8)
    steps = jnp.where(jnp.arange(number) % 4 == 0, jnp.exp2(-powers.astype(pairs.dtype)), 0)
    ts = stratified_times(of_times, number, 0.0, 1.0)
    seen = lambda t, x, args: x + (1 - t) * u(t, x, 1.0)

    def one(pair: Any, h: Array, t: Array, key: Key[Array, ""]) -> Array:
        x0, x1 = pair
        given: Any = dict(key=key, teacher=exact)
        match field.method:
            case "mean_flow":
                return mean_flow(u, PATH, x1, **given)
            case "shortcut":
                return shortcut(u, PATH, x1, step=h, **given)
            case "consistency":
                return consistency(seen, PATH, x1, step=_STEP, **given)
            case "reflow":
                straight = lambda t, x, args: u(t, x, t)
                return flow_matching(straight, PATH, x1, key=key, x0=x0, t=t)
        raise ValueError(f"There is no method {field.method!r} of learnt solvers.")

    return jnp.mean(jax.vmap(one)(pairs, steps, ts, jr.split(key, number)))


class SameNoise(AbstractTask):
    """Learnt solvers by how far from the fine solve of the same noise they end."""

    metric: ClassVar[Metric] = Metric("error", False, 1000.0, "/1000")

    def build_model(
        self, config: Config, regularizer: Regularizer, data: Endings, *, key: Key[Array, ""]
    ) -> LearntSolver:
        assert config.equal_steps is not None
        net = MLP(
            3, config.width, config.depth, out=2, time="concat_each_layer", final=config.final,
            key=key,
        )  # fmt: skip
        h = 1 / config.equal_steps
        ode = NeuralODE(
            Ahead(Mean(net), config.model, h), solver=diffrax.Euler(), dt0=h,
            controller=diffrax.ConstantStepSize(), costs=regularizer.costs,
            max_steps=config.equal_steps,
        )  # fmt: skip
        return LearntSolver(ode)

    def judge(
        self, prediction: Said, targets: Points, step: Any = None
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return prediction.loss, distance(prediction.end, targets)

    def see_solver(self, model: LearntSolver, max_steps: int, x: Any) -> Any:
        told = with_solve(model, costs={"h": READINGS["h"]})
        return accepted_steps(told(jax.tree.map(jnp.asarray, x))[1], 0.0)


def distance(x: Points, y: Points) -> Float[Array, ""]:
    """The mean one. A root mean square would be that of the few noises that end in another mode."""
    return jnp.mean(jnp.linalg.norm(x - y, axis=-1))


@functools.cache
def endings(sizes: tuple[int, int, int] = SIZES) -> Endings:
    """Noises and their ends, and the errors of ordinary solvers on the test part."""
    fine = Reflow(lambda x0: end_of(solve(diffrax.Tsit5(), x0)))
    parts = []
    for size, key in zip(sizes, jr.split(jr.key(17), 3), strict=True):
        pairs = np.stack(jax.jit(fine)(jr.normal(key, (size, 2))), axis=1)
        parts += [pairs, pairs[:, 1]]
    return Endings(*parts, yardsticks=ordinary_errors(parts[-2]))


def solve(solver: diffrax.AbstractSolver, x0: Array, steps: int | None = None) -> Solution:
    """The teacher's solve of one noise: in so many equal steps, or finely."""
    controller: Any = diffrax.PIDController(rtol=1e-6, atol=1e-6)
    if steps is not None:
        controller = diffrax.ConstantStepSize()
    return diffeqsolve(
        diffrax.ODETerm(teacher()), solver, 0.0, 1.0, None if steps is None else 1 / steps, x0,
        stepsize_controller=controller,
    )  # fmt: skip


def end_of(solution: Solution) -> Array:
    assert solution.ys is not None
    return solution.ys[-1]


def ordinary_errors(pairs: Pairs) -> dict[str, float]:
    """Of solvers with the exact field in equal steps of the time, by name and evaluations."""
    noise, end = jnp.asarray(pairs[:, 0]), jnp.asarray(pairs[:, 1])
    errors = {}
    for name, per_step in (("Euler", 1), ("Heun", 2), ("Tsit5", 6)):
        for steps in sorted({max(1, number // per_step) for number in EVALUATIONS}):
            solver = getattr(diffrax, name)()
            found = jax.jit(jax.vmap(lambda x0: solve(solver, x0, steps)))(noise)  # noqa: B023
            evals = int(found.stats["num_evals"][0])
            errors[f"{name}, {evals} evals"] = float(distance(jax.vmap(end_of)(found), end))
    return errors


def _config(method: str, number: int) -> Config:
    return Config(
        about=f"eight Gaussians' exact flow in {number} evaluations, learnt by {ABOUT[method]}",
        load=lambda folder: endings(),
        task=SameNoise(),
        model=method,
        equal_steps=number,
        width=64,
        depth=3,
        final="linear",
        rtol=1e-6,
        atol=1e-6,
        epochs=50,
        batch_size=256,
        optimizer=lambda num_updates: optax.adam(optax.cosine_decay_schedule(3e-3, num_updates)),
        updates_per_call=40,
        predict_batch=2048,
        coefficients={},
    )


ABOUT = {
    "direct": "regression on the ends, through the steps",
    "reflow": "flow matching of pairs (Liu et al. 2023)",
    "mean_flow": "MeanFlow of the field (Geng et al. 2025)",
    "shortcut": "two steps in one (Frans et al. 2025)",
    "consistency": "consistency along the field (Song et al. 2023)",
}
PRESETS = {f"{method}_{n}": _config(method, n) for method in ABOUT for n in EVALUATIONS}
