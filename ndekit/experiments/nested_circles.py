"""A disc and the ring around it, told apart behind an ODE by a linear map."""

from typing import Any

import equinox as eqx
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from ..data import Dataset
from ..fields import MLP, Affine, Augmented, SecondOrder
from ..integrate import Solution
from ..models import NeuralODE
from ..shapes import Args
from .harness.classification import AbstractClassification
from .harness.config import Config
from .harness.regularizers import Regularizer
from .harness.solves import ode_of
from .harness.task import AbstractODETask

EXTRA = 3  # numbers that an augmented state has besides the plane's two


def nested_circles(
    folder: str | None = None, sizes: tuple[int, ...] = (3000, 600, 1500)
) -> Dataset:
    """Points of the disc of radius 0.5 (a third), and of the ring from 1 to 1.5."""
    rng, parts = np.random.default_rng(5), []
    for size in sizes:
        inside = np.arange(size) % 3 == 0
        low, high = np.where(inside, 0.0, 1.0), np.where(inside, 0.5, 1.5)
        radius = np.sqrt(rng.uniform(low**2, high**2))  # uniform in area
        angle = rng.uniform(0, 2 * np.pi, size)
        x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        parts += [x.astype(np.float32), inside.astype(np.int32)]
    return Dataset("nested circles", 2, *parts)


class Lifted(eqx.Module):
    """Logits from the last state of an ODE whose field may lift its first one."""

    ode: NeuralODE
    head: Affine

    def encoder(self, x: Float[Array, "batch plane"]) -> Float[Array, "batch state"]:
        return x if isinstance(self.ode.field, MLP) else self.ode.field.lift(x)

    def __call__(
        self, x: Float[Array, "batch plane"], args: Args = None, *, key: Any = None
    ) -> tuple[Float[Array, "batch classes"], Solution]:
        solution = self.ode(self.encoder(x), args=args, key=key)
        assert solution.ys is not None
        return self.head(solution.ys[-1]), solution


class Circles(AbstractClassification, AbstractODETask):
    """Points of the plane to classes, by cross-entropy; a batch is one state."""

    def build_model(
        self, config: Any, regularizer: Regularizer, data: Dataset, *, key: Key[Array, ""]
    ) -> Lifted:
        field_key, head_key = jr.split(key)
        plane = data.num_features
        network = lambda size, out: MLP(
            size, config.width, config.depth, out=out, final=config.final, key=field_key
        )
        if config.model == "plain":
            size = plane
            field = network(size, None)
        elif config.model == "second_order":
            size = 2 * plane
            field = SecondOrder(network(size, plane))
        else:
            size = plane + EXTRA
            field = Augmented(network(size, None), EXTRA, learnt=config.model == "learnt")
        head = Affine(size, data.num_classes, key=head_key)
        return Lifted(ode_of(config, field, regularizer), head)


def _config(model: str, about: str) -> Config:
    return Config(
        about=f"nested circles, {about}, width 32, depth 2, tolerance 1e-3, Adam",
        load=nested_circles,
        task=Circles(),
        model=model,
        width=32,
        depth=2,
        final="linear",
        rtol=1e-3,
        atol=1e-3,
        epochs=30,
        batch_size=60,
        updates_per_call=50,
        optimizer=lambda num_updates: optax.adam(optax.cosine_decay_schedule(1e-2, num_updates)),
        predict_batch=1500,
        coefficients={"steps": 1e-2},
    )


PRESETS = {
    "plain": _config("plain", "an ODE on the plane"),
    "augmented": _config("augmented", f"{EXTRA} more numbers, zero at the start"),
    "learnt": _config("learnt", f"{EXTRA} more numbers, learnt at the start"),
    "second_order": _config("second_order", "an acceleration, at rest at the start"),
}
