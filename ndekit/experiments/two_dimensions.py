"""Samples of the plane carried to others by flow matching: how near they come, by what energy."""

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from ..couplings import Reflow, SchroedingerBridge
from ..fields import MLP
from ..integrate import Solution
from ..losses import bridge_matching, flow_matching
from ..models import NeuralODE, NeuralSDE
from ..paths import Bridge, CondOT, NoisyLine
from ..regularize import Kinetic
from .harness.config import Config
from .harness.plane import PROBLEMS, Coupling, Ends, coupled, draw_ends, normal
from .harness.registry import find_regularizer
from .harness.regularizers import Regularizer
from .harness.solves import key_or_fixed, ode_of
from .harness.task import AbstractODETask, Metric
from .harness.training import Trainer
from .harness.transport import partners, wasserstein2

SIZES = (10_000, 1_000, 4_000)  # of each law, to train on, to validate and to test with
NOISE = 0.1  # of every bridge
PARTNERS = 25  # sources for each sample of the target, found ahead of the training
EPOCHS = 1_000
COUPLED = 512  # samples among which a coupling looks for them
STEPS = 100  # of Euler's, or Euler and Maruyama's, by which samples are made
PENALISED = 64  # samples of a batch whose solve is counted in the training
_NEAR_END = 1e-3  # the velocity of a Brownian bridge has no finite variance up to its ends


class Carried(NamedTuple):
    """Where an adaptive solve has carried samples, and by what they can be carried otherwise."""

    flow: "Flow"
    starts: Float[Array, "batch plane"]
    ends: Float[Array, "batch plane"]


class NotSolved(NamedTuple):
    """In place of a solution: a loss that needs no solve."""

    stats: Mapping[str, float] = {"num_steps": 0.0, "num_evals": 0.0}
    costs: Mapping[str, Any] = {}


class Flow(eqx.Module):
    """A velocity field, the path it is matched on, and for an SDE `NOISE`^2 / 2 times the score."""

    ode: NeuralODE
    path: CondOT | NoisyLine | Bridge
    half_score: MLP | None

    def encoder(self, x: Float[Array, "batch partners ends plane"]) -> Float[Array, "batch plane"]:
        """Sources: of each sample's pairs the first one's."""
        return x[:, 0, 0]

    def __call__(
        self, x: Float[Array, "batch partners ends plane"], *, key: Any = None
    ) -> tuple[Any, Any]:
        """With a key, as in training, the matching loss; without one, samples."""
        if key is None:
            solution = self.ode(self.encoder(x))
            return Carried(self, self.encoder(x), last(solution)), solution
        which, matched = jr.split(key)
        chosen = jr.randint(which, (len(x),), 0, x.shape[1])
        pairs = jnp.take_along_axis(x, chosen[:, None, None, None], axis=1)[:, 0]
        loss = jnp.mean(jax.vmap(self.matching)(pairs, jr.split(matched, len(x))))
        if not self.ode.costs:
            return loss, NotSolved()
        return loss, self.ode(pairs[:PENALISED, 0], key=key)

    def matching(self, pair: Float[Array, "ends plane"], key: Key[Array, ""]) -> Float[Array, ""]:
        """The loss of one pair."""
        (x0, x1), field = pair, self.ode.field
        if isinstance(self.path, CondOT):
            return flow_matching(field, self.path, x1, x0=x0, key=key)
        t, score, half_score = None, None, self.half_score
        if isinstance(self.path, Bridge):
            time_key, key = jr.split(key)
            t = jr.uniform(time_key, (), x1.dtype, _NEAR_END, 1 - _NEAR_END)
        if half_score is not None:
            score = lambda t, x, args: half_score(t, x, args) * (2 / NOISE**2)
        return bridge_matching(field, self.path, x0, x1, key=key, score=score, t=t)


def by_euler(flow: Flow, **costs: Any) -> NeuralODE:
    """The flow's ODE by `STEPS` equal steps of Euler's method."""
    return dataclasses.replace(
        flow.ode, solver=diffrax.Euler(), controller=_equal_steps(), costs=costs, max_steps=STEPS
    )


@eqx.filter_jit
def carried(
    flow: Flow, starts: Float[Array, "*batch plane"], *, key: Key[Array, ""]
) -> Float[Array, "*batch plane"]:
    """Samples by `STEPS` equal steps: of the SDE if there is a score, otherwise of the ODE."""
    if flow.half_score is None:
        return last(by_euler(flow)(starts))
    half_score = flow.half_score
    drift = lambda t, y, args: flow.ode.field(t, y, args) + half_score(t, y, args)
    noise = lambda t, y, args: jnp.full_like(y, NOISE)
    sde = NeuralSDE(drift, noise, controller=_equal_steps(), dt0=None, max_steps=STEPS)
    return last(sde(starts, key=key))


@eqx.filter_jit
def path_energy(flow: Flow, starts: Float[Array, "batch plane"]) -> Float[Array, ""]:
    r"""$E \int_0^1 |v|^2\, dt$ along the ODE."""
    kinetic = by_euler(flow, kinetic=Kinetic())(starts).costs["kinetic"]
    return 2 * starts.shape[1] * kinetic  # which is half the mean square over the coordinates


def last(solution: Solution) -> Array:
    """The state at the end."""
    assert solution.ys is not None
    return solution.ys[-1]


def _equal_steps() -> diffrax.StepTo:
    return diffrax.StepTo(ts=jnp.linspace(0.0, 1.0, STEPS + 1))


class Transport(AbstractODETask):
    """Samples by $W_2$ to the target's; the bias is the energy beside the least, less 1."""

    metric: ClassVar[Metric] = Metric("W2", False, 1.0, "units")
    measured: ClassVar[int | None] = 1_000

    def build_model(
        self, config: Any, regularizer: Regularizer, data: Any, *, key: Key[Array, ""]
    ) -> Flow:
        method = METHODS[config.model]
        keys = jr.split(key)
        network = lambda key: MLP(
            2, config.width, config.depth, time="concat", activation=jax.nn.selu,
            final=config.final, near_zero=False, key=key,
        )  # fmt: skip
        score = network(keys[1]) if method.stochastic else None
        return Flow(ode_of(config, network(keys[0]), regularizer), method.path, score)

    def judge(
        self, prediction: Any, targets: Float[Array, "batch plane"], step: Any = None
    ) -> tuple[Any, Any]:
        """In training the matching loss alone; else $W_2$ of adaptive steps and of equal ones."""
        if not isinstance(prediction, Carried):
            return prediction, prediction
        flow, starts, ends = prediction
        by_equal = carried(flow, starts, key=key_or_fixed(None))
        target = np.asarray(targets)
        adaptive, equal = (wasserstein2(np.asarray(made), target) for made in (ends, by_equal))
        return adaptive, equal

    def bias(self, model: Flow, data: Ends) -> float:
        """The normalised path energy, $|E - W_2^2| / W_2^2$ with that of source and target."""
        energy = float(path_energy(model, model.encoder(jnp.asarray(data.test_x))))
        return abs(energy - data.least_energy) / data.least_energy


class Method(NamedTuple):
    """What is matched between which pairs, and whether with a score."""

    about: str
    path: CondOT | NoisyLine | Bridge
    coupling: str
    stochastic: bool = False


METHODS = {
    "ot_cfm": Method("OT-CFM", NoisyLine(NOISE), "exact"),
    "i_cfm": Method("I-CFM", NoisyLine(NOISE), "independent"),
    "fm": Method("flow matching from noise", CondOT(NOISE), "independent"),
    "reflow": Method("rectified flow on the pairs of I-CFM", NoisyLine(0.0), "reflow"),
    "sf2m_exact": Method("SF2M, exact pairs", Bridge(NOISE), "exact", True),
    "sf2m_independent": Method("SF2M, independent pairs", Bridge(NOISE), "independent", True),
    "sb_cfm": Method("SB-CFM, entropic pairs", Bridge(NOISE), "entropic"),
}
FROM_NOISE = ("fm", "sb_cfm")  # published from normal noise alone


def load(problem: str, coupling: str, sizes: tuple[int, int, int] = SIZES) -> Ends:
    """Samples of a problem with the pairs of a coupling; those of `reflow` train a flow first."""
    ends = draw_ends(problem, sizes)
    if coupling == "reflow":
        return reflowed(problem, sizes)
    return coupled(ends, COUPLINGS[coupling](), PARTNERS, COUPLED)


def reflowed(problem: str, sizes: tuple[int, int, int], epochs: int = EPOCHS) -> Ends:
    """Pairs of new sources and where I-CFM's flow, of seed 0, carries them."""
    config, ends = PRESETS[f"{problem}_i_cfm"], load(problem, "independent", sizes)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, find_regularizer("none"), 0.0, ends, epochs)
        flow = trainer.train(0, Path(folder), progress=False).model
    pairs = Reflow(lambda x0: carried(flow, x0, key=key_or_fixed(None)))
    rng, (source, _) = np.random.default_rng(27), PROBLEMS[problem]
    starts = [jnp.asarray(source(rng, sizes[0]), jnp.float32) for _ in range(PARTNERS)]
    made = [np.stack(pairs(x0), axis=1) for x0 in starts]
    return ends._replace(train_x=np.stack(made, axis=1))


def independent() -> Coupling:
    return lambda x0, x1: (x0, x1)  # both in a random order


def exact() -> Coupling:
    return lambda x0, x1: (x0[partners(x0, x1)], x1)


def entropic() -> Coupling:
    found, keys = eqx.filter_jit(SchroedingerBridge(NOISE)), map(jr.key, itertools.count())
    return lambda x0, x1: found(jnp.asarray(x0), jnp.asarray(x1), key=next(keys))


COUPLINGS: dict[str, Callable[[], Coupling]] = {
    "independent": independent,
    "exact": exact,
    "entropic": entropic,
}


def _config(problem: str, name: str) -> Config:
    method = METHODS[name]
    return Config(
        about=f"{problem} by {method.about}, width 64, depth 3, batches of 512",
        load=lambda folder: load(problem, method.coupling),
        task=Transport(),
        model=name,
        width=64,
        depth=3,
        final="linear",
        rtol=1e-4,
        atol=1e-4,
        epochs=EPOCHS,
        batch_size=512,
        optimizer=lambda num_updates: optax.adamw(1e-3, weight_decay=1e-5),
        updates_per_call=19,
        predict_batch=SIZES[2],
        coefficients={"steps": 3e-3},
    )


PRESETS = {
    f"{problem}_{name}": _config(problem, name)
    for problem, (source, _) in PROBLEMS.items()
    for name in METHODS
    if source is normal or name not in FROM_NOISE
}
