"""A small diffusion model of handwritten digits, for experiments on its field."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from ...data import Batches, mnist
from ...fields import MLP, Preconditioned
from ...models import Flow
from ...paths import AbstractGaussianPath
from ...train import fit

SIZE = 14  # pixels to a side


def digit_flow(
    path: AbstractGaussianPath,
    levels: tuple[float, float],
    *,
    updates: int = 4000,
    width: int = 512,
    batch_size: int = 256,
    key: Key[Array, ""],
    progress: bool = True,
) -> Flow:
    """A flow of MNIST's digits, every second pixel, centred and with a mean square of 1.

    EDM's preconditioning, weights and levels of noise, with a multilayer perceptron in place of
    their U-Net; Adam with a cosine schedule.
    """
    net_key, batch_key, key = jr.split(key, 3)
    images = mnist(None, size=SIZE).train_x
    images = (images - images.mean()) / images.std()
    network = MLP(
        SIZE**2, width, 3, time="concat", activation=jax.nn.silu, final="linear", key=net_key
    )
    network = Preconditioned(network, path)
    ends = path.t_of_sigma(levels[0]), path.t_of_sigma(levels[1])
    flow = Flow(
        network, path, SIZE**2, predicts="data", variable="log_sigma", t0=ends[0], t1=ends[1]
    )
    batches = Batches(np.asarray(images, np.float32), batch_size=batch_size, key=batch_key)
    return fit(
        flow, _loss, batches, optimizer=optax.adam(optax.cosine_decay_schedule(1e-3, updates)),
        num_updates=updates, key=key, updates_per_call=min(50, updates), progress=progress,
    ).model  # fmt: skip


def _loss(
    flow: Flow, batch: Float[Array, "batch size"], step: Array, *, key: Key[Array, ""]
) -> tuple[Array, dict]:
    """EDM's: levels of noise by exp N(-0.5, 1.2^2), of data with unit variance."""
    level_key, key = jr.split(key)
    sigma = jnp.exp(-0.5 + 1.2 * jr.normal(level_key, (len(batch),)))
    ts = flow.path.t_of_sigma(jnp.clip(sigma, flow.path.sigma(flow.t1), flow.path.sigma(flow.t0)))
    network = flow.network
    assert isinstance(network, Preconditioned)
    one = lambda x1, t, key: flow.loss(x1, key=key, t=t, weight=network.weight)
    return jnp.mean(jax.vmap(one)(batch, ts, jr.split(key, len(batch)))), {}
