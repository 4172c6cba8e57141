"""MNIST with noise in the state, by a neural SDE between two affine layers, as in paper A."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Key

from ..data import mnist
from ..fields import MLP, Affine
from ..integrate import SOSRI
from ..models import NeuralSDE
from .harness.classification import AbstractClassification
from .harness.config import Config
from .harness.regularizers import SDE_COEFFICIENTS, Regularizer
from .harness.solves import key_or_fixed, solve_options
from .harness.task import AbstractSDETask

LOGITS = 10


class NoisyClassifier(eqx.Module):
    """Affine layer, neural SDE, affine layer. Without a key: the mean logits of ten solves."""

    encoder: Affine
    ode: NeuralSDE
    head: Affine

    def __call__(
        self, x: Float[Array, "batch inputs"], *, key: Any = None
    ) -> tuple[Float[Array, "batch classes"], Any]:
        z = self.encoder(x)
        if key is None:
            z = jnp.broadcast_to(z, (LOGITS, *z.shape))
        solution = self.ode(z, key=key_or_fixed(key))
        assert solution.ys is not None
        logits = self.head(solution.ys[-1])
        return (jnp.mean(logits, 0) if key is None else logits), solution


class NoisyClassification(AbstractClassification, AbstractSDETask):
    """Images to classes by a neural SDE between two affine layers, by cross-entropy."""

    def build_model(
        self, config: Any, regularizer: Regularizer, data: Any, *, key: Key[Array, ""]
    ) -> NoisyClassifier:
        keys, size = jr.split(key, 4), 32
        drift = MLP(
            size, config.width, config.depth, final=config.final, near_zero=False, key=keys[0]
        )
        diffusion = MLP(size, 1, 0, final="linear", near_zero=False, key=keys[1])
        return NoisyClassifier(
            Affine(data.num_features, size, key=keys[2]),
            NeuralSDE(drift, diffusion, **solve_options(config, regularizer, SOSRI())),
            Affine(size, data.num_classes, key=keys[3]),
        )


_PAPER_A = Config(
    about="MNIST by a neural SDE, paper A: 784-32, SOSRI at 0.14, Adam, 40 epochs",
    load=lambda folder: mnist(folder),
    task=NoisyClassification(),
    width=64,
    depth=1,
    final="linear",
    rtol=0.14,
    atol=0.14,
    dt0=0.01,
    epochs=40,
    batch_size=512,
    optimizer=lambda num_updates: optax.adam(lambda n: 0.01 / (1 + 1e-5 * n)),
    updates_per_call=1,
    predict_batch=500,
    coefficients=SDE_COEFFICIENTS,
    max_steps=512,
)

PRESETS = {
    "small": _PAPER_A._replace(
        about="the same, 14x14 pixels, 2 epochs",
        load=lambda folder: mnist(folder, size=14, num_validation=5000),
        epochs=2,
        # Three of them by `ndekit search`: docs/papers/neural_sdes.md has what was tried.
        coefficients=SDE_COEFFICIENTS | {"steps": 0.01, "local_time": 5.0, "stiffness": 10.0},
    ),
    "paper_a": _PAPER_A,
}
