"""Classifiers of images with an ODE inside."""

from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Int, Key

from ...data import Dataset
from ...fields import MLP, Affine
from ...models import ODEClassifier
from .regularizers import Regularizer
from .series import AbstractSeriesTask
from .solves import ode_of
from .task import AbstractODETask, AbstractTask, Metric


class AbstractClassification(AbstractTask):
    """Something to classes, by cross-entropy."""

    metric: ClassVar[Metric] = Metric("accuracy", True, 100.0, "%")

    def judge(
        self,
        prediction: Float[Array, "batch classes"],
        targets: Int[Array, " batch"],
        step: Any = None,
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        losses = optax.softmax_cross_entropy_with_integer_labels(prediction, targets)
        return jnp.mean(losses), jnp.mean(jnp.argmax(prediction, axis=-1) == targets)


class Classification(AbstractClassification, AbstractODETask):
    """Pixels to classes, by cross-entropy."""

    def build_model(
        self, config: Any, regularizer: Regularizer, data: Dataset, *, key: Key[Array, ""]
    ) -> ODEClassifier:
        """Pixels are the state, time enters each layer of the field, a linear layer reads it."""
        field_key, head_key = jr.split(key)
        size = data.num_features
        field = MLP(
            size, config.width, config.depth, time="concat_each_layer", final=config.final,
            near_zero=False, key=field_key,
        )  # fmt: skip
        ode = ode_of(config, field, regularizer)
        return ODEClassifier(eqx.nn.Identity(), ode, Affine(size, data.num_classes, key=head_key))


class AbstractSeriesClassification(AbstractClassification, AbstractSeriesTask):
    """Series to classes, by cross-entropy."""
