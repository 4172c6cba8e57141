"""The prior of a latent SDE, and what its posteriors have in common."""

import abc
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, Real, UInt

from ..fields import MLP, Affine
from ..integrate import AbstractStepCost, ReplayAdjoint, Solution, Step
from ..numbers import counts, positive, real
from ..shapes import Args, Scalar, Time
from .densities import Normal
from .neural_sde import NeuralSDE
from .series import as_series, without_padding


class PathKL(AbstractStepCost):
    r"""What a step adds to the divergence of two SDEs with the same diffusion,
    $\tfrac{h}{2} \lvert (f(t_0, y_0) - f_0(t_0, y_0)) / g(t_0, y_0) \rvert^2$.

    Its sum over a solve of $dy = f\, dt + g\, dW$ has as its mean the Kullback-Leibler divergence
    of the law of this path from that of $dy = f_0\, dt + g\, dW$ (Girsanov). At the left end of
    each step it is exact for the Euler scheme; for other solvers it is a sum of first order in the
    steps. Of a batch that is one state, `(*batch, size)`, it is the mean over samples.

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
        return step.h * self.rate(step.t0, step.y0)

    def rate(self, t: Time, y: Float[Array, "*batch size"]) -> Scalar:
        r"""The divergence in a unit of time, $\tfrac12 \lvert (f - f_0) / g \rvert^2$."""
        at = (t, y, self.args)
        u = (self.posterior(*at) - self.prior(*at)) / self.diffusion(*at)
        return 0.5 * jnp.mean(jnp.sum(u**2, axis=-1))


class Latent(NamedTuple):
    """What a latent SDE makes of a series; for a batch, divergences are means.

    Attributes:
        values: means of the observations at `ts`.
        states: latent states there: along one path, or, for a matched SDE, one by one.
        path_kl: of the posterior path from the prior's, an estimate.
        initial_kl: of the posterior of the first state from the prior's.
        solution: of the solve, with the costs asked for; `None` if there was none.
    """

    values: Float[Array, "*batch times size"]
    states: Float[Array, "*batch times latent"]
    path_kl: Scalar
    initial_kl: Scalar
    solution: Solution | None

    def negative_bound(
        self, xs: Float[Array, "*batch times size"], noise_std: float, beta: Any = 1.0
    ) -> Scalar:
        """Minus the evidence lower bound of a series, with the divergences `beta` times; the mean
        over series. Numbers that are missing (NaN) have no part in it.

        Raises:
            ValueError: for a `noise_std` that is not positive.
        """
        positive("noise_std", noise_std)
        is_there = ~jnp.isnan(xs)
        off = jnp.where(is_there, xs - self.values, 0) / noise_std
        log_density = -0.5 * off**2 - jnp.log(noise_std * jnp.sqrt(2 * jnp.pi))
        log_likelihood = jnp.mean(jnp.sum(jnp.where(is_there, log_density, 0), axis=(-2, -1)))
        return beta * (self.path_kl + self.initial_kl) - log_likelihood


class LatentPrior(eqx.Module):
    r"""Series from noise, $z(t_0) \sim N(m_0, s_0)$, $dz = f_0(t, z)\, dt + g(z)\, dW$ in
    the sense of the solver, by default Ito's.

    Part of an [`ndekit.models.LatentSDE`][] and of an [`ndekit.models.MatchedLatentSDE`][].

    Attributes:
        first: the law of the first state.
        sde: $f_0$ and $g$, diagonal, and how paths are solved.
        decoder: from states to means of observations, affine.
    """

    first: Normal
    sde: NeuralSDE
    decoder: Affine

    def __init__(
        self,
        size: int,
        latent: int,
        width: int,
        *,
        dt0: float | None,
        key: Key[Array, ""] | UInt[Array, "2"],
        diffusion0: float = 0.1,
        solver: diffrax.AbstractSolver = diffrax.Euler(),
        controller: diffrax.AbstractStepSizeController = diffrax.ConstantStepSize(),
        adjoint: Any = ReplayAdjoint(),
        costs: Mapping[str, Any] | None = None,
        max_steps: int = 4096,
    ):
        counts(size=size, latent=latent, width=width)
        real("diffusion0", diffusion0, above=0.0, below=1.0)
        drift_key, diffusion_key, decoder_key = jr.split(key, 3)
        drift = MLP(latent, width, 2, activation=jax.nn.softplus, final="linear", key=drift_key)
        diffusion = MLP(latent, width, 1, final="sigmoid", key=diffusion_key)
        level = jnp.full(latent, math.log(diffusion0 / (1 - diffusion0)))
        diffusion = eqx.tree_at(lambda field: field.layers[-1].bias, diffusion, level)
        self.first = Normal(jnp.zeros(latent), jnp.zeros(latent))
        self.sde = NeuralSDE(
            drift, diffusion, dt0=dt0, solver=solver, controller=controller, adjoint=adjoint,
            costs={} if costs is None else costs, max_steps=max_steps,
        )  # fmt: skip
        self.decoder = Affine(latent, size, key=decoder_key)

    def as_series(self, ts: Any, xs: Any, *, axes: int | None, holes: bool) -> tuple[Array, Array]:
        """Times and series as arrays, if they fit each other and the model."""
        weight = self.decoder.weight
        return as_series(ts, xs, weight.shape[-1], weight.dtype, axes=axes, holes=holes)

    def kl_from(self, drift: Callable) -> PathKL:
        """What divides the paths with another drift from those of the prior."""
        return PathKL(drift, self.sde.drift, self.sde.diffusion)

    def sample(
        self, ts: Real[Array, " times"], *, key: Key[Array, ""] | UInt[Array, "2"]
    ) -> Float[Array, "times size"]:
        """A series, without noise of observation."""
        first_key, path_key = jr.split(key)
        sol = self.sde(self.first.sample(key=first_key), ts, key=path_key)
        assert sol.ys is not None
        return self.decoder(sol.ys)


class AbstractLatentSDE(eqx.Module):
    """A latent prior and a way to its posterior: what [`ndekit.models.LatentSDE`][] and
    [`ndekit.models.MatchedLatentSDE`][] have in common.
    """

    prior: eqx.AbstractVar[LatentPrior]

    @abc.abstractmethod
    def __call__(
        self,
        ts: Real[Array, " times"],
        xs: Float[Array, "*batch times size"],
        *,
        key: Key[Array, ""] | UInt[Array, "2"],
    ) -> Latent:
        """A sample of the posterior, and estimates of the divergences."""

    def loss(
        self,
        ts: Real[Array, " times"],
        xs: Float[Array, "*batch times size"],
        *,
        noise_std: float,
        beta: Any = 1.0,
        key: Key[Array, ""] | UInt[Array, "2"],
    ) -> tuple[Scalar, Latent]:
        """The negative evidence lower bound of a series, divergences `beta` times; what it saw.

        Args:
            ts: times, increasing. A series that is shorter than others of its batch is padded by
                repeating its last time: what stands there in `xs`, NaN too, changes nothing.
            xs: the series; NaN for what is missing, if the model was made for that (`missing`).
            noise_std: of an observation, above 0.
            beta: grows from 0 to 1 along a training, for example.
            key: for the sample.
        """
        latent = self(ts, xs, key=key)
        xs = without_padding(jnp.asarray(ts), jnp.asarray(xs))
        return latent.negative_bound(xs, noise_std, beta), latent

    def sample(
        self, ts: Real[Array, " times"], *, key: Key[Array, ""] | UInt[Array, "2"]
    ) -> Float[Array, "times size"]:
        """A series drawn from the prior, without noise of observation."""
        return self.prior.sample(ts, key=key)
