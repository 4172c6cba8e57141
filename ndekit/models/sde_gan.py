"""A neural SDE trained as a generative adversarial network."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, Real, UInt

from ..fields import MLP, Affine, clip_weights, lipswish
from ..integrate import ReplayAdjoint, Solution, diffeqsolve
from ..numbers import count, counts
from ..shapes import Scalar
from .neural_sde import NeuralSDE, SampleTerm
from .series import as_series, last_of

# For Stratonovich's equations, with noise as well as along a path with a derivative.
SOLVERS = (diffrax.ReversibleHeun, diffrax.Heun, diffrax.Midpoint, diffrax.Ralston)


class Generator(eqx.Module):
    r"""Series from noise: $x_0 = \zeta(v)$, $dx = f(t, x)\, dt + g(t, x) \circ dW$, of which a
    linear map of the state is seen at `ts`.

    Part of an [`ndekit.models.SDEGAN`][]. A batch is solved as one state, each sample with noise of
    its own.

    Attributes:
        first: $\zeta$.
        sde: $f$, $g$ and how they are solved.
        readout: from states to values.
        initial_noise_size: of $v$.
    """

    first: MLP
    sde: NeuralSDE
    readout: Affine
    initial_noise_size: int = eqx.field(static=True)

    def __call__(
        self,
        ts: Real[Array, " times"],
        number: int,
        *,
        key: Key[Array, ""] | UInt[Array, "2"],
    ) -> tuple[Float[Array, "number times size"], Solution]:
        """So many series, and the solve they come from."""
        count("number", number)
        first_key, path_key = jr.split(key)
        shape = (number, self.initial_noise_size)
        y0 = self.first(ts[0], jr.normal(first_key, shape, self.readout.weight.dtype))
        solution = self.sde(y0, ts, key=path_key)
        assert solution.ys is not None
        return jnp.swapaxes(self.readout(solution.ys), 0, 1), solution


class Discriminator(eqx.Module):
    r"""A score of a series, Lipschitz in it: the mean of $m(h(t_0))$ and $m(h(t_1))$ for the neural
    controlled differential equation $dh = g(h)\, d(t, x)$, $h(t_0) = \zeta(t_0, x(t_0))$.

    Part of an [`ndekit.models.SDEGAN`][]. A step of `solver` leads from each time to the next.
    Numbers that are not known are NaN and interpolated: each series may miss others.
    """

    first: MLP
    field: MLP
    readout: Affine
    solver: diffrax.AbstractSolver
    adjoint: Any

    def __call__(
        self, ts: Real[Array, " times"], xs: Float[Array, "batch times size"]
    ) -> Float[Array, " batch"]:
        weight = self.readout.weight
        ts, xs = as_series(ts, xs, self.field.out[1] - 1, weight.dtype, axes=1, holes=True)
        filled = jax.vmap(lambda x: _filled(ts, x))(xs)
        times = jnp.broadcast_to(ts[None, :, None], (*filled.shape[:-1], 1)).astype(filled.dtype)
        path = jnp.swapaxes(jnp.concatenate([times, filled], axis=-1), 0, 1)
        # Steps need times that increase. The path, time's own part included, rests in the padding:
        # nothing changes there, however long it takes.
        beyond = jnp.maximum(jnp.arange(len(ts)) - last_of(ts), 0).astype(ts.dtype)
        ts = ts + beyond * (ts[-1] - ts[0])

        h0 = self.first(ts[0], path[0])
        sol = diffeqsolve(
            SampleTerm(self.field, diffrax.LinearInterpolation(ts, path)), self.solver,
            ts[0], ts[-1], None, h0, adjoint=self.adjoint, max_steps=len(ts),
            stepsize_controller=diffrax.StepTo(ts),
        )  # fmt: skip
        assert sol.ys is not None
        ends = self.readout(jnp.stack([h0, sol.ys[-1]]))
        return jnp.mean(ends[..., 0], axis=0)


class SDEGAN(eqx.Module):
    r"""A neural SDE whose paths a neural CDE cannot tell from the data (a Wasserstein GAN).

    `distance` is $E[D(x)] - E[D(\mathrm{fake})]$, what the generator makes small and the
    discriminator $D$ large. In its gradient the sign of the discriminator's part is turned, so that
    *one* optimiser that goes downhill trains both. The Lipschitz bound of $D$ is kept by
    `clipped`, after each update: see the example.

    Args:
        size: of an observation.
        hidden: of the states of generator and discriminator.
        width, depth: of their networks.
        initial_noise_size: of the noise that a series begins with.
        noise_size: of the Brownian motion; `hidden` of them, one for each number, if `None`.
        solver: for both equations: `ReversibleHeun`, `Heun`, `Midpoint` or `Ralston`.
        controller, dt0, max_steps, costs: of the generator's solve.
        adjoint: for both solves.
        key: draws the weights.

    Raises:
        ValueError: for another solver; when called with series that do not fit their times or the
            model.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, optax
        import ndekit as nk

        gan = nk.models.SDEGAN(1, hidden=8, width=8, depth=1, noise_size=3, dt0=0.1, key=jr.key(0))
        ts, xs = jnp.linspace(0.0, 1.0, 6), jr.normal(jr.key(1), (32, 6, 1))

        def loss_fn(gan, xs, step, *, key):
            return gan.distance(ts, xs, key=key), {}

        result = nk.train.fit(
            gan, loss_fn, lambda step: xs, num_updates=3, key=jr.key(2), progress=False,
            optimizer=nk.train.projected(optax.rmsprop(1e-3), nk.models.SDEGAN.clipped),
        )
        series, solution = result.model.generator(ts, 10, key=jr.key(3))
        assert series.shape == (10, 6, 1)
        ```

    References: Kidger, Foster, Li, Oberhauser and Lyons (2021), "Neural SDEs as
    infinite-dimensional GANs", arXiv 2102.03657; for the clipping Kidger, Foster, Li and Lyons
    (2021), arXiv 2105.13493.
    """

    generator: Generator
    discriminator: Discriminator

    def __init__(
        self,
        size: int,
        *,
        hidden: int,
        width: int,
        depth: int,
        initial_noise_size: int = 5,
        noise_size: int | None = None,
        dt0: float | None,
        key: Key[Array, ""] | UInt[Array, "2"],
        solver: diffrax.AbstractSolver = diffrax.ReversibleHeun(),
        controller: diffrax.AbstractStepSizeController = diffrax.ConstantStepSize(),
        adjoint: Any = ReplayAdjoint(),
        max_steps: int = 4096,
        costs: Any = None,
    ):
        if not isinstance(solver, SOLVERS):
            names = ", ".join(f"diffrax.{solver.__name__}()" for solver in SOLVERS)
            raise ValueError(f"`solver` must be one of {names}, for both equations; got {solver}.")
        counts(size=size, hidden=hidden, initial_noise_size=initial_noise_size)
        if noise_size is not None:
            count("noise_size", noise_size)
        keys = jr.split(key, 7)
        layers: dict[str, Any] = dict(
            width=width, depth=depth, activation=lipswish, near_zero=False
        )
        moves: dict[str, Any] = dict(time="concat", final="scaled_tanh", **layers)
        noise = None if noise_size is None else (hidden, noise_size)
        sde = NeuralSDE(
            MLP(hidden, key=keys[0], **moves),
            MLP(hidden, out=noise, key=keys[1], **moves),
            noise="diagonal" if noise_size is None else "general",
            noise_size=noise_size,
            solver=solver,
            controller=controller,
            adjoint=adjoint,
            costs={} if costs is None else costs,
            dt0=dt0,
            max_steps=max_steps,
        )
        first = MLP(initial_noise_size, out=hidden, final="linear", key=keys[2], **layers)
        self.generator = Generator(
            first, sde, Affine(hidden, size, key=keys[3]), initial_noise_size
        )
        self.discriminator = clip_weights(
            Discriminator(
                MLP(1 + size, out=hidden, final="linear", key=keys[4], **layers),
                MLP(hidden, out=(hidden, 1 + size), final="tanh", key=keys[5], **layers),
                Affine(hidden, 1, key=keys[6]),
                solver,
                adjoint,
            )
        )

    def distance(
        self,
        ts: Real[Array, " times"],
        xs: Float[Array, "batch times size"],
        *,
        key: Key[Array, ""] | UInt[Array, "2"],
    ) -> Scalar:
        """The discriminator's estimate of how far the generator is from the series `xs`."""
        fakes, _ = self.generator(ts, len(xs), key=key)
        return self.apart(ts, xs, fakes)

    def apart(
        self,
        ts: Real[Array, " times"],
        xs: Float[Array, "batch times size"],
        fakes: Float[Array, "batch times size"],
    ) -> Scalar:
        """Scores of `xs` minus those of `fakes`, in the mean. What is missing (NaN) in the data is
        left out of the fakes too: holes must not give these away.
        """
        judge = turned(self.discriminator)
        fakes = jnp.where(jnp.isnan(xs), jnp.nan, fakes)
        return jnp.mean(judge(ts, xs)) - jnp.mean(judge(ts, fakes))

    def clipped(self) -> "SDEGAN":
        """The same, with a discriminator whose weights are within their bounds."""
        return eqx.tree_at(lambda gan: gan.discriminator, self, clip_weights(self.discriminator))


def turned(module: Any) -> Any:
    """The same module; what is differentiated through its numbers changes its sign."""
    turn: Callable = lambda x: 2 * jax.lax.stop_gradient(x) - x
    return jax.tree.map(lambda x: turn(x) if eqx.is_inexact_array(x) else x, module)


def _filled(ts: Array, x: Array) -> Array:
    """Straight lines across what is missing; the first and last known values beyond.

    The values are those of `diffrax.linear_interpolation`, whose gradient is NaN at holes.
    """
    number = jnp.arange(len(ts))

    def fill(column: Array) -> Array:
        known = ~jnp.isnan(column)
        before = jax.lax.cummax(jnp.where(known, number, -1))
        after = jax.lax.cummin(jnp.where(known, number, len(ts)), reverse=True)
        low = jnp.where(before < 0, after, before)
        high = jnp.where(after == len(ts), before, after)
        low, high = jnp.clip(low, 0, len(ts) - 1), jnp.clip(high, 0, len(ts) - 1)
        length = jnp.where(high > low, ts[high] - ts[low], 1)
        # Nowhere a NaN, also where it is not taken: its gradient would be one.
        values = jnp.where(known, column, 0)
        slope = (values[high] - values[low]) / length.astype(values.dtype)
        return values[low] + slope * (ts - ts[low]).astype(values.dtype)

    return jax.vmap(fill, in_axes=1, out_axes=1)(x)
