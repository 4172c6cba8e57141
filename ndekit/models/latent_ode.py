"""The latent ODE: a series as noisy readings of an ODE whose first state is drawn."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key, Real, UInt

from ..choices import check_choice
from ..data import Series
from ..fields import MLP
from ..integrate import ReplayAdjoint, Solution, diffeqsolve
from ..numbers import count, counts, real
from ..shapes import Time
from .densities import Normal
from .latent_encoders import gated_encoder, gru_encoder, ode_rnn_encoder
from .neural_cde import NeuralCDE

AnyKey = Key[Array, ""] | UInt[Array, "2"]
Encoder = Literal["gru", "gated", "ode_rnn", "cde"]
SpreadKind = Literal["log_variance", "absolute"]


class LatentPath(eqx.Module):
    """What a latent ODE makes of a series.

    Attributes:
        values: the means of the readings, for each sample of the posterior.
        z0: the first states.
        posterior: of the first state.
        encoder: the solution of the encoder's solve, if it has one.
    """

    values: Float[Array, "*batch samples times channels"]
    z0: Float[Array, "*batch samples latent"]
    posterior: Normal
    encoder: Solution | None


class LatentODE(eqx.Module):
    r"""$z(t_0) \sim N(0, 1)$, $z' = f_\theta(z)$, $x(t) \sim N(\mathrm{decoder}(z(t)), \sigma)$;
    with $q(z(t_0) \mid x) = N(\mu, s)$ by an encoder that reads the series backwards.

    One series; `jax.vmap` for a batch, each with its own times, gaps and length. Its bounds are
    [`ndekit.models.latent_bound`][].

    Args:
        channels: of the series.
        latent: of the state $z$.
        encoder: `"gru"` (told the time between rows), `"gated"` (the same with the state of an
            ODE-RNN, a mean and a spread), `"ode_rnn"` (flows between rows), `"cde"` (a neural CDE
            along the whole series); or a module `encoder(series, key=...)` that gives
            $2\,$`latent` numbers and a solution or `None`.
        encoder_size: of the encoder's state.
        width, depth: of the field $f$, tanh.
        decoder: of a state; affine if `None`.
        spread: how the encoder's second half is read: as the logarithm of a variance, or as a
            standard deviation up to its sign.
        t0: the time of $z(t_0)$; that of the first row if `None`.
        key: draws the weights.
        encoder_options: of the encoder, such as its `controller` and `costs`.
        solver, controller, adjoint, costs, dt0, max_steps, throw: of the solve of $z$, as for
            [`ndekit.models.NeuralODE`][].

    Raises:
        ValueError: for sizes, `encoder` or `spread` out of range.

    Example:
        ```python
        import jax.random as jr, numpy as np, ndekit as nk

        model = nk.models.LatentODE(1, 4, costs={"steps": nk.StepCount()}, key=jr.key(0))
        series = nk.data.Series([0.0, 0.3, 1.0], np.array([[1.0], [np.nan], [0.4]]))
        path, sol = model(series, key=jr.key(1), samples=3)
        loss = nk.models.latent_bound(path, series, noise_std=0.1)
        future, _ = model(series, ts=np.array([1.0, 2.0]), key=jr.key(1))
        ```

    Reference: Chen, Rubanova, Bettencourt and Duvenaud (2018), arXiv 1806.07366; Rubanova, Chen and
    Duvenaud (2019), arXiv 1907.03907.
    """

    encoder: Callable
    field: Callable
    decoder: Callable
    latent: int = eqx.field(static=True)
    spread: SpreadKind = eqx.field(static=True)
    t0: Time | None
    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController
    adjoint: Any
    costs: Mapping[str, Any]
    dt0: Time | None
    max_steps: int = eqx.field(static=True)
    throw: bool = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        latent: int,
        *,
        encoder: Encoder | Callable = "gru",
        encoder_size: int = 25,
        width: int = 20,
        depth: int = 2,
        decoder: Callable | None = None,
        spread: SpreadKind = "log_variance",
        t0: Time | None = None,
        key: AnyKey,
        encoder_options: Mapping[str, Any] | None = None,
        solver: diffrax.AbstractSolver = diffrax.Tsit5(),
        controller: diffrax.AbstractStepSizeController = diffrax.PIDController(1e-3, 1e-4),
        adjoint: Any = ReplayAdjoint(),
        costs: Mapping[str, Any] | None = None,
        dt0: Time | None = None,
        max_steps: int = 4096,
        throw: bool = True,
    ):
        counts(channels=channels, latent=latent, encoder_size=encoder_size)
        check_choice("spread", spread, get_args(SpreadKind))
        if max_steps is not None:
            count("max_steps", max_steps)
        if dt0 is not None:
            real("dt0", dt0)
        keys = jr.split(key, 3)
        if isinstance(encoder, str):
            check_choice("encoder", encoder, get_args(Encoder))
            options, sizes = dict(encoder_options or {}), (channels, encoder_size, 2 * latent)
            reads: Callable = _ENCODERS[encoder](*sizes, key=keys[0], **options)
        elif encoder_options:
            raise ValueError("`encoder_options` are for an encoder that is chosen by its name.")
        else:
            reads = encoder
        self.encoder, self.latent, self.spread, self.t0 = reads, latent, spread, t0
        self.field = MLP(latent, width, depth, key=keys[1])
        self.decoder = eqx.nn.Linear(latent, channels, key=keys[2]) if decoder is None else decoder
        self.solver, self.controller, self.adjoint = solver, controller, adjoint
        self.costs, self.dt0, self.max_steps, self.throw = dict(costs or {}), dt0, max_steps, throw

    def __call__(
        self,
        series: Series,
        ts: Real[Array | np.ndarray, " times"] | None = None,
        *,
        key: AnyKey | None = None,
        samples: int = 1,
    ) -> tuple[LatentPath, Solution]:
        """Samples of the posterior, given a series.

        Args:
            series: a single one.
            ts: the times of the values, from $t_0$ on, in order; those of the series if `None`, the
                last one repeated in the padding.
            key: draws the samples, and what costs draw; if `None`, there is one path, from the
                mean of the posterior.
            samples: how many, from 1.

        Returns:
            The path, and the solution; each of its leaves has a leading axis of samples.

        Raises:
            ValueError: for several samples without a key.
        """
        counts(samples=samples)
        if key is None and samples > 1:
            raise ValueError(f"{samples} samples must be drawn by a `key`, but got none.")
        series = series.clean()
        draw, solve, encode = (None,) * 3 if key is None else jr.split(key, 3)
        posterior, encoded = self._encoded(series, encode)
        t0 = series.ts[0] if self.t0 is None else jnp.asarray(self.t0, series.ts.dtype)
        if ts is None:
            ts = jnp.where(series.is_real, series.ts, series.ts[series.length - 1])
        keys, z0 = None, posterior.mean[None]
        if draw is not None and solve is not None:
            keys = jr.split(solve, samples)
            z0 = posterior.sample((samples,), key=draw)
        run = lambda z0, key: self.decode(z0, ts, t0=t0, key=key)
        values, sol = jax.vmap(run)(z0, keys)
        return LatentPath(values, z0, posterior, encoded), sol

    def posterior(self, series: Series, *, key: Any = None) -> Normal:
        r"""$q(z(t_0) \mid x)$."""
        return self._encoded(series.clean(), key)[0]

    def decode(
        self, z0: Float[Array, " latent"], ts: Any, *, t0: Time | None = None, key: Any = None
    ) -> tuple[Float[Array, "times channels"], Solution]:
        """The means of the readings at `ts` of the path from `z0`, which begins at `t0` (`ts[0]` if
        `None`); and its solution.
        """
        ts = jnp.asarray(ts, z0.dtype)
        start = ts[0] if t0 is None else t0
        sol = diffeqsolve(
            diffrax.ODETerm(self.field),  # pyright: ignore[reportArgumentType]
            self.solver, start, ts[-1], self.dt0, z0, saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=self.controller, adjoint=self.adjoint, costs=self.costs,
            max_steps=self.max_steps, throw=self.throw, key=key,
        )  # fmt: skip
        return jax.vmap(self.decoder)(sol.ys), sol

    def sample(self, ts: Any, *, key: AnyKey) -> Float[Array, "times channels"]:
        """A series of the prior, without the noise of readings, at `ts`."""
        return self.decode(jr.normal(key, (self.latent,)), ts)[0]

    def _encoded(self, series: Series, key: Any) -> tuple[Normal, Any]:
        out, sol = self.encoder(series, key=key)
        if jnp.shape(out) != (2 * self.latent,):
            raise ValueError(
                f"The encoder must give {2 * self.latent} numbers, a mean and a spread of each of "
                f"the {self.latent} of the state, but gave shape {jnp.shape(out)}."
            )
        mean, spread = jnp.split(out, 2)
        # Nowhere the logarithm of nothing.
        absolute = lambda: jnp.log(jnp.abs(spread) + 1e-8)
        log_std = 0.5 * spread if self.spread == "log_variance" else absolute()
        return Normal(mean, log_std), sol


class _CDEEncoder(eqx.Module):
    """A neural CDE along the series: the state at its end."""

    cde: NeuralCDE

    def __call__(self, series: Series, *, key: Any = None) -> tuple[Array, Solution]:
        return self.cde(series, key=key)


def _cde_encoder(channels: int, size: int, out: int, *, key: Any, **options: Any) -> Callable:
    return _CDEEncoder(NeuralCDE(channels, size, out, key=key, **options))


_ENCODERS = {
    "gru": gru_encoder,
    "gated": gated_encoder,
    "ode_rnn": ode_rnn_encoder,
    "cde": _cde_encoder,
}
