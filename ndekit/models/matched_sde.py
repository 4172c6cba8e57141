"""A latent SDE trained without a solve, by matching drifts."""

from collections.abc import Callable, Iterable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, Real, UInt

from ..fields import MLP, Affine
from ..numbers import counts
from ..shapes import Args, Time
from .densities import Normal
from .latent_prior import AbstractLatentSDE, Latent, LatentPrior
from .series import encoder_of, last_of, states_of


class MarginalDrift(eqx.Module):
    r"""The drift of an SDE (Ito) whose noise and normal marginals are given.

    For $dz = f\, dt + g\, dW$ and $q_t = N(m(t), s(t)^2)$, by components:

    $$f = m' + \frac{s'}{s} (z - m) + \tfrac12 \partial_i g_i^2 + \tfrac12 g_i^2
    \frac{m - z}{s^2}.$$

    The first two terms alone are the ordinary differential equation with these marginals, the last
    two make up for what the noise adds (Fokker and Planck).

    Args:
        marginal: `marginal(t)`, a pair of $m$ and $\log s$, differentiable in `t`.
        diffusion: $g$ as `diffusion(t, z, args)`, diagonal.

    Raises:
        ValueError: when called with more than one state at once.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        marginal = lambda t: (jnp.sin(t) * jnp.ones(2), jnp.zeros(2))
        drift = nk.models.MarginalDrift(marginal, lambda t, z, args: jnp.ones(2))
        assert jnp.allclose(drift(0.0, jnp.zeros(2), None), 1.0)
        ```

    Reference: Bartosh, Vetrov and Naesseth (2025), "SDE Matching", arXiv 2502.02472, section 4.
    """

    marginal: Callable[[Time], Iterable[Array]]
    diffusion: Callable

    def __call__(
        self, t: Time, z: Float[Array, " latent"], args: Args = None
    ) -> Float[Array, " latent"]:
        if jnp.ndim(z) != 1:
            raise ValueError(
                f"`MarginalDrift` takes one state, got shape {z.shape}. Use `jax.vmap`."
            )
        t = jnp.asarray(t, z.dtype)
        (mean, log_std), (mean_rate, log_std_rate) = jax.jvp(
            self.marginal, (t,), (jnp.ones_like(t),)
        )
        squared = lambda z: self.diffusion(t, z, args) ** 2
        spread = jnp.diagonal(jax.jacfwd(squared)(z))
        score = (mean - z) * jnp.exp(-2 * log_std)
        return mean_rate + log_std_rate * (z - mean) + 0.5 * (spread + squared(z) * score)


class MatchedLatentSDE(AbstractLatentSDE):
    r"""The model of [`ndekit.models.LatentSDE`][], trained without solving anything.

    Its posterior is given by its marginals, $z(t) \sim N(m(t, x), s(t, x)^2)$, networks of the time
    and of what two GRUs have read of the series from either side, interpolated linearly. The drift
    $f$ of such a posterior is known ([`ndekit.models.MarginalDrift`][]), and so is the integrand of
    the path divergence:

    $$\mathrm{KL}_{path} = (t_1 - t_0)\; E_{t \sim U,\; z \sim q_t}
    \tfrac12 \left\lvert \frac{f(t, z) - f_0(t, z)}{g(z)} \right\rvert^2.$$

    An update costs so many evaluations of the fields as there are draws, in parallel, however long
    the series is. The estimate of the evidence lower bound is unbiased, and that of the equation,
    not of a scheme's steps. A series at a time; `jax.vmap` is for many.

    Args:
        size: of an observation.
        latent: of the state.
        context: of what the encoders hand on.
        width: of every hidden layer.
        dt0: the step with which series are drawn from the prior, in units of `ts`.
        draws: of a time for the path divergence; one from each of so many equal intervals.
        key: draws the weights.
        diffusion0: what $g$ is about to begin with, between 0 and 1.
        missing: whether numbers of a series may be missing (NaN), as for
            [`ndekit.models.LatentSDE`][].
        solve: how series are drawn from the prior: `solver` (for Ito equations), `controller`,
            `max_steps`.

    Raises:
        ValueError: for fewer than one draw, `costs`, a solver that is not Ito's, or a `diffusion0`
            out of range; when called with series that do not fit their times or the model.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, ndekit as nk

        model = nk.models.MatchedLatentSDE(
            2, latent=3, context=8, width=16, dt0=0.1, key=jr.key(0)
        )
        ts, xs = jnp.linspace(0.0, 1.0, 5), jnp.ones((5, 2))
        loss, latent = model.loss(ts, xs, noise_std=0.1, key=jr.key(1))
        drawn = model.sample(ts, key=jr.key(2))
        ```

    Reference: Bartosh, Vetrov and Naesseth (2025), "SDE Matching: scalable and simulation-free
    training of latent stochastic differential equations", arXiv 2502.02472.
    """

    prior: LatentPrior
    forwards: eqx.nn.GRUCell
    backwards: eqx.nn.GRUCell
    to_context: Affine
    posterior: MLP
    draws: int = eqx.field(static=True)
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
        draws: int = 1,
        diffusion0: float = 0.1,
        missing: bool = False,
        **solve: Any,
    ):
        counts(context=context, draws=draws)
        if solve.get("costs"):
            raise ValueError(
                "`costs` read the steps of a solve, and this model is trained without."
            )
        solver = solve.get("solver", diffrax.Euler())
        if not isinstance(solver, diffrax.AbstractItoSolver):
            raise ValueError(
                f"The drifts that are matched are those of Ito's equation, but `{solver}` solves "
                "Stratonovich's. Use `diffrax.Euler()` or `ndekit.SOSRI()`."
            )
        keys = jr.split(key, 5)
        self.prior = LatentPrior(
            size, latent, width, dt0=dt0, key=keys[0], diffusion0=diffusion0, **solve
        )
        self.forwards = encoder_of(size, width, missing, keys[1])
        self.backwards = encoder_of(size, width, missing, keys[2])
        self.to_context = Affine(2 * width, context, key=keys[3])
        self.posterior = MLP(
            context, width, 2, out=(2, latent), time="concat", activation=jax.nn.softplus,
            final="linear", key=keys[4],
        )  # fmt: skip
        self.draws, self.missing = draws, missing

    def marginal(
        self, ts: Real[Array, " times"], xs: Float[Array, "times size"]
    ) -> Callable[[Time], Normal]:
        """The posterior's law at any time from `ts[0]` to `ts[-1]`, given a series."""
        return self._marginal(*self.prior.as_series(ts, xs, axes=0, holes=self.missing))

    def _marginal(self, ts: Array, xs: Array) -> Callable[[Time], Normal]:
        contexts, last = self.read(ts, xs), last_of(ts)

        def at(t: Time) -> Normal:
            low = jnp.clip(jnp.searchsorted(ts, t, side="right") - 1, 0, jnp.maximum(last - 1, 0))
            length = jnp.where(last > 0, ts[low + 1] - ts[low], 1)
            part = (t - ts[low]) / length
            context = contexts[low] + part * (contexts[low + 1] - contexts[low])
            return Normal(*self.posterior(t, context))

        return at

    def __call__(
        self,
        ts: Real[Array, " times"],
        xs: Float[Array, "times size"],
        *,
        key: Key[Array, ""] | UInt[Array, "2"],
    ) -> Latent:
        """Samples of the posterior at `ts`, each for itself, and estimates of the divergences."""
        ts, xs = self.prior.as_series(ts, xs, axes=0, holes=self.missing)
        marginal = self._marginal(ts, xs)
        divergence = self.prior.kl_from(MarginalDrift(marginal, self.prior.sde.diffusion))
        draw = jax.vmap(lambda t, key: marginal(t).sample(key=key))

        state_key, time_key, key = jr.split(key, 3)
        states = draw(ts, jr.split(state_key, len(ts)))
        parts = jnp.arange(self.draws, dtype=xs.dtype)
        parts = parts + jr.uniform(time_key, parts.shape, xs.dtype)
        times = ts[0] + parts / self.draws * (ts[-1] - ts[0])
        rates = jax.vmap(divergence.rate)(times, draw(times, jr.split(key, self.draws)))
        path_kl = (ts[-1] - ts[0]) * jnp.mean(rates)
        initial_kl = marginal(ts[0]).kl(self.prior.first)
        return Latent(self.prior.decoder(states), states, path_kl, initial_kl, None)

    def read(
        self, ts: Real[Array, " times"], xs: Float[Array, "times size"]
    ) -> Float[Array, "times context"]:
        """What is known of the series at each of its times, from either side."""
        sides = [
            states_of(cell, ts, xs, self.missing, reverse)
            for cell, reverse in ((self.forwards, False), (self.backwards, True))
        ]
        return self.to_context(jnp.concatenate(sides, axis=-1))
