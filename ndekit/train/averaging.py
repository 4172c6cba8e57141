"""The mean of a model's weights along its training."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from ..numbers import count, real
from .trained import trained


class WeightAverage(eqx.Module):
    r"""The mean of a model's weights, over all updates from `start` on, or over the latest.

    $$\bar\theta \leftarrow \bar\theta + w\, (\theta - \bar\theta), \qquad
    w = \max\left(\tfrac{1}{n}, 1 - \mathrm{decay}\right)$$

    with $n$ the number of models seen since `start`; before it $\bar\theta = \theta$. For the
    `carry` of [`ndekit.train.fit`][], which keeps it in the checkpoints. A loss sees the model
    before each update, so the first of all counts and what the last update makes does not. Training
    with an adversary goes round its solution rather than towards it: there the mean is better.

    Args:
        model: any PyTree; its floating-point arrays are averaged.
        start: how many models to leave out, those in which training has not yet settled.
        decay: in `[0, 1]`: an exponential mean over about `1 / (1 - decay)` updates; 1 weighs all
            alike.

    Raises:
        ValueError: for a `start` below 0 or a `decay` outside of `[0, 1]`.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, optax
        import ndekit as nk

        def loss_fn(model, batch, step, *, key, carry):
            return jnp.sum((model - 1) ** 2), {}, carry.seen(model)

        model = jnp.zeros(3)
        result = nk.train.fit(
            model, loss_fn, lambda step: None, optimizer=optax.sgd(0.1), num_updates=20,
            key=jr.key(0), carry=nk.train.WeightAverage(model, start=10), progress=False,
        )
        averaged = result.carry.into(result.model)
        ```

    Reference: Yazıcı et al. (2019), "The unusual effectiveness of averaging in GAN training", arXiv
    1806.04498.
    """

    weights: PyTree
    number: Int[Array, ""]
    start: int = eqx.field(static=True)
    decay: float = eqx.field(static=True)

    def __init__(self, model: PyTree, *, start: int = 0, decay: float = 1.0):
        count("start", start, 0)
        real("decay", decay, least=0.0, most=1.0)
        self.weights = trained(model)
        self.number = jnp.zeros((), jnp.int32)
        self.start, self.decay = start, float(decay)

    def seen(self, model: PyTree) -> "WeightAverage":
        """The mean with one more model in it."""
        counted = jnp.maximum(self.number + 1 - self.start, 1)

        def step(mean: Array, new: Array) -> Array:
            new = jax.lax.stop_gradient(new)
            share = jnp.maximum(1 / counted.astype(mean.real.dtype), 1 - self.decay)
            return mean + share * (new - mean)

        weights = jax.tree.map(step, self.weights, trained(model))
        is_after = lambda average: (average.weights, average.number)
        return eqx.tree_at(is_after, self, (weights, self.number + 1))

    def remark(self) -> str | None:
        """At the end of a training: that no mean was taken; else `None`."""
        if self.number > self.start:
            return None
        return (
            f"The mean of the weights never began: it leaves out the first {self.start} models, "
            f"and {self.number} were seen. It is the last model's weights."
        )

    def into(self, model: PyTree) -> PyTree:
        """The model with its averaged weights in the place of its own."""
        return eqx.combine(self.weights, model)
