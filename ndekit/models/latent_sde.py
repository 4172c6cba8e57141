"""The latent SDE: a neural SDE as the prior of a time series, and its approximate posterior."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, Real, UInt

from ..fields import MLP, Affine
from ..integrate import AbstractStepCost, ReplayAdjoint, Solution, Step
from ..shapes import Args, Scalar, Time
from .neural_sde import NeuralSDE


class PathKL(AbstractStepCost):
    r"""What a step adds to the divergence of two SDEs with the same diffusion,
    $\tfrac{h}{2} \lvert (f(t_0, y_0) - f_0(t_0, y_0)) / g(t_0, y_0) \rvert^2$.

    Its sum over a solve of $dy = f\, dt + g\, dW$ has as its mean the Kullback-Leibler divergence
    of the law of this path from that of $dy = f_0\, dt + g\, dW$ (Girsanov); the left end of the
    step makes it an unbiased estimate for the Euler scheme itself.

    Args:
        posterior, prior: $f$ and $f_0$, `drift(t, y, args)`.
        diffusion: $g$, diagonal, nowhere zero.
        args: for all three.
    """

    posterior: Callable
    prior: Callable
    diffusion: Callable
    args: Args = None

    def of_step(self, step: Step) -> Scalar:
        at = (step.t0, step.y0, self.args)
        u = (self.posterior(*at) - self.prior(*at)) / self.diffusion(*at)
        return 0.5 * step.h * jnp.sum(u**2)


class Latent(NamedTuple):
    """What a latent SDE makes of one series.

    Attributes:
        values: means of the observations at `ts`.
        states: latent states there.
        path_kl: of the posterior path from the prior's.
        initial_kl: of the posterior of the first state from the prior's.
        solution: of the solve.
    """

    values: Float[Array, "times size"]
    states: Float[Array, "times latent"]
    path_kl: Scalar
    initial_kl: Scalar
    solution: Solution


class LatentSDE(eqx.Module):
    r"""A series $x$ at times `ts` as noisy readings of a latent SDE.

    $$dz = f_0(t, z)\, dt + g(z)\, dW, \qquad z(t_0) \sim N(m_0, s_0), \qquad
    x(t) \sim N(\mathrm{decode}(z(t)), \sigma).$$

    The posterior has the same diffusion and the drift $f(t, z, c(t))$, where the context $c$ is
    what a GRU has read of the future of the series, constant between observations. One sample of
    the posterior gives an unbiased estimate of the evidence lower bound:

    $$\log p(x) \ge E\left[ \sum_t \log p(x_t | z_t) \right]
    - \beta (\mathrm{KL}_{path} + \mathrm{KL}_{t_0}).$$

    Args:
        size: of an observation.
        latent: of the state.
        context: of what the encoder hands on.
        width: of every hidden layer.
        dt0: the step of the Euler scheme, in units of `ts`.
        key: draws the weights.

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

    encoder: eqx.nn.GRUCell
    to_context: Affine
    to_first: Affine
    first_mean: Float[Array, " latent"]
    first_log_std: Float[Array, " latent"]
    prior: MLP
    posterior: MLP
    diffusion: MLP
    decoder: Affine
    dt0: float = eqx.field(static=True)
    solver: diffrax.AbstractSolver
    adjoint: Any

    def __init__(
        self,
        size: int,
        latent: int,
        context: int,
        width: int,
        *,
        dt0: float,
        key: Key[Array, ""] | UInt[Array, "2"],
        solver: diffrax.AbstractSolver = diffrax.Euler(),
        adjoint: Any = ReplayAdjoint(),
    ):
        keys = jr.split(key, 7)
        self.encoder = eqx.nn.GRUCell(size, width, key=keys[0])
        self.to_context = Affine(width, context, key=keys[1])
        self.to_first = Affine(context, 2 * latent, gain=0.1, key=keys[2])
        self.first_mean, self.first_log_std = jnp.zeros(latent), jnp.zeros(latent)
        layers: dict[str, Any] = dict(width=width, depth=2, activation=jax.nn.softplus)
        self.prior = MLP(latent, final="linear", key=keys[3], **layers)
        self.posterior = MLP(latent + context, out=latent, final="linear", key=keys[4], **layers)
        self.diffusion = MLP(latent, width, 1, final="sigmoid", key=keys[5])
        self.decoder = Affine(latent, size, key=keys[6])
        self.dt0, self.solver, self.adjoint = dt0, solver, adjoint

    def __call__(
        self,
        ts: Real[Array, " times"],
        xs: Float[Array, "times size"],
        *,
        key: Key[Array, ""] | UInt[Array, "2"],
    ) -> Latent:
        """One sample of the posterior, given a series."""
        first_key, path_key = jr.split(key)
        contexts = self.read(xs)
        mean, log_std = jnp.split(self.to_first(contexts[0], ts[0]), 2)
        z0 = mean + jnp.exp(log_std) * jr.normal(first_key, mean.shape, mean.dtype)
        drift = _Driven(self.posterior, ts, contexts)
        kl = PathKL(drift, self.prior, self.diffusion)
        sol = self._solve(drift, z0, ts, {"path_kl": kl}, path_key)
        initial = _normal_kl(mean, log_std, self.first_mean, self.first_log_std)
        assert sol.ys is not None
        values = self.decoder(sol.ys, ts[0])
        return Latent(values, sol.ys, sol.costs["path_kl"], initial, sol)

    def loss(
        self,
        ts: Real[Array, " times"],
        xs: Float[Array, "times size"],
        *,
        noise_std: float,
        beta: Any = 1.0,
        key: Key[Array, ""] | UInt[Array, "2"],
    ) -> tuple[Scalar, Latent]:
        """The negative evidence lower bound of a series, divergences `beta` times; what it saw."""
        latent = self(ts, xs, key=key)
        off = (xs - latent.values) / noise_std
        log_likelihood = -jnp.sum(0.5 * off**2 + jnp.log(noise_std * jnp.sqrt(2 * jnp.pi)))
        return beta * (latent.path_kl + latent.initial_kl) - log_likelihood, latent

    def sample(
        self, ts: Real[Array, " times"], *, key: Key[Array, ""] | UInt[Array, "2"]
    ) -> Float[Array, "times size"]:
        """A series drawn from the prior, without noise of observation."""
        first_key, path_key = jr.split(key)
        normal = jr.normal(first_key, self.first_mean.shape, self.first_mean.dtype)
        z0 = self.first_mean + jnp.exp(self.first_log_std) * normal
        sol = self._solve(self.prior, z0, ts, {}, path_key)
        assert sol.ys is not None
        return self.decoder(sol.ys, ts[0])

    def read(self, xs: Float[Array, "times size"]) -> Float[Array, "times context"]:
        """The context at each time: what is known of the series from there on."""

        def step(state: Array, x: Array) -> tuple[Array, Array]:
            state = self.encoder(x, state)
            return state, state

        start = jnp.zeros(self.encoder.hidden_size, xs.dtype)
        _, states = jax.lax.scan(step, start, xs, reverse=True)
        return self.to_context(states, jnp.zeros((), xs.dtype))

    def _solve(self, drift: Callable, z0: Array, ts: Array, costs: Any, key: Any) -> Solution:
        sde = NeuralSDE(
            drift, self.diffusion, solver=self.solver, adjoint=self.adjoint, costs=costs,
            dt0=self.dt0,
        )  # fmt: skip
        return sde(z0, ts, key=key)


class _Driven(eqx.Module):
    """The posterior's drift: a field of state and context."""

    field: MLP
    ts: Real[Array, " times"]
    contexts: Float[Array, "times context"]

    def __call__(self, t: Time, z: Array, args: Args = None) -> Array:
        # The context of the next observation: that of the last one has seen less than it may.
        index = jnp.searchsorted(self.ts, t, side="right")
        context = self.contexts[jnp.minimum(index, len(self.ts) - 1)]
        return self.field(t, jnp.concatenate([z, context]))


def _normal_kl(mean: Array, log_std: Array, other_mean: Array, other_log_std: Array) -> Scalar:
    """The divergence of one diagonal normal law from another."""
    ratio = jnp.exp(2 * (log_std - other_log_std))
    off = (mean - other_mean) ** 2 * jnp.exp(-2 * other_log_std)
    return jnp.sum(0.5 * (ratio + off - 1) - log_std + other_log_std)
