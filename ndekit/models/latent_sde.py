"""The latent SDE: a neural SDE as the prior of a time series, and its approximate posterior."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, Real, UInt

from ..fields import MLP, Affine
from ..numbers import count
from ..shapes import Args, Time
from .densities import Normal
from .latent_prior import AbstractLatentSDE, Latent, LatentPrior
from .series import encoder_of, last_of, states_of


class LatentSDE(AbstractLatentSDE):
    r"""A series $x$ at times `ts` as noisy readings of a latent SDE.

    $$dz = f_0(t, z)\, dt + g(z)\, dW, \qquad z(t_0) \sim N(m_0, s_0), \qquad
    x(t) \sim N(\mathrm{decode}(z(t)), \sigma).$$

    The posterior has the same diffusion and the drift $f(t, z, c(t))$, where the context $c$ is
    what a GRU has read of the future of the series, constant between observations. One sample of
    the posterior gives an estimate of the evidence lower bound, unbiased for the Euler scheme:

    $$\log p(x) \ge E\left[ \sum_t \log p(x_t | z_t) \right]
    - \beta (\mathrm{KL}_{path} + \mathrm{KL}_{t_0}).$$

    Args:
        size: of an observation.
        latent: of the state.
        context: of what the encoder hands on.
        width: of every hidden layer.
        dt0: the step of the Euler scheme, in units of `ts`.
        key: draws the weights.
        diffusion0: what $g$ is about to begin with, between 0 and 1. From a large one training
            finds a prior that only diffuses, and a posterior that is driven all the way.
        missing: whether numbers of a series may be missing (NaN). The encoder then reads, beside
            each number, whether it is there, and the bound is of those that are.
        solve: how paths are solved, as for [`ndekit.models.NeuralSDE`][]: `solver`, `controller`,
            `adjoint`, `costs`, `max_steps`.

    Raises:
        ValueError: for a `diffusion0` out of range; when called with series that do not fit their
            times or the model.

    Example:
        ```python
        import jax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        model = nk.models.LatentSDE(2, latent=3, context=8, width=16, dt0=0.1, key=jr.key(0))
        ts, xs = jnp.linspace(0.0, 1.0, 5), jnp.ones((5, 2))
        loss, latent = model.loss(ts, xs, noise_std=0.1, beta=1.0, key=jr.key(1))
        assert latent.values.shape == (5, 2)
        drawn = model.sample(ts, key=jr.key(2))
        ```

    Reference: Li, Wong, Chen and Duvenaud (2020), "Scalable gradients for stochastic differential
    equations", section 5; the architecture is that of torchsde's example.
    """

    prior: LatentPrior
    encoder: eqx.nn.GRUCell
    to_context: Affine
    to_first: Affine
    posterior: MLP
    missing: bool = eqx.field(static=True)

    def __init__(
        self,
        size: int,
        latent: int,
        context: int,
        width: int,
        *,
        dt0: float | None,
        key: Key[Array, ""] | UInt[Array, "2"],
        diffusion0: float = 0.1,
        missing: bool = False,
        **solve: Any,
    ):
        count("context", context)
        if "path_kl" in (solve.get("costs") or {}):
            raise ValueError("The cost `path_kl` is the model's own. Give yours another name.")
        keys = jr.split(key, 5)
        self.prior = LatentPrior(
            size, latent, width, dt0=dt0, key=keys[0], diffusion0=diffusion0, **solve
        )
        self.encoder = encoder_of(size, width, missing, keys[1])
        self.missing = missing
        self.to_context = Affine(width, context, key=keys[2])
        self.to_first = Affine(context, 2 * latent, gain=0.1, key=keys[3])
        self.posterior = MLP(
            latent + context, width, 2, out=latent, activation=jax.nn.softplus, final="linear",
            key=keys[4],
        )  # fmt: skip

    def __call__(
        self,
        ts: Real[Array, " times"],
        xs: Float[Array, "*batch times size"],
        *,
        key: Key[Array, ""] | UInt[Array, "2"],
    ) -> Latent:
        """One sample of the posterior, given a series. A batch is solved as one state."""
        ts, xs = self.prior.as_series(ts, xs, axes=None, holes=self.missing)
        first_key, path_key = jr.split(key)
        contexts = self.read(ts, xs)
        first = Normal(*jnp.split(self.to_first(contexts[0]), 2, axis=-1))
        drift = _Driven(self.posterior, ts, contexts)
        prior = self.prior
        costs = {**prior.sde.costs, "path_kl": prior.kl_from(drift)}
        posterior = dataclasses.replace(prior.sde, drift=drift, costs=costs)
        sol = posterior(first.sample(key=first_key), ts, key=path_key)
        assert sol.ys is not None
        states = jnp.moveaxis(sol.ys, 0, -2)
        values = prior.decoder(states)
        path_kl = sol.costs["path_kl"]
        asked_for = {name: sol.costs[name] for name in prior.sde.costs}
        sol = dataclasses.replace(sol, costs=asked_for)
        return Latent(values, states, path_kl, first.kl(prior.first), sol)

    def read(
        self, ts: Real[Array, " times"], xs: Float[Array, "*batch times size"]
    ) -> Float[Array, "times *batch context"]:
        """The context at each time: what is known of the series from there on."""
        states = states_of(self.encoder, ts, xs, self.missing, reverse=True)
        return self.to_context(jnp.moveaxis(states, -2, 0))


class _Driven(eqx.Module):
    """The posterior's drift: a field of state and context."""

    field: MLP
    ts: Real[Array, " times"]
    contexts: Float[Array, "times *batch context"]

    def __call__(self, t: Time, z: Array, args: Args = None) -> Array:
        # Of the next observation: what is to come. That of the last one knows what has been, too.
        index = jnp.searchsorted(self.ts, t, side="right")
        context = self.contexts[jnp.minimum(index, last_of(self.ts))]
        return self.field(t, jnp.concatenate([z, context], axis=-1))
