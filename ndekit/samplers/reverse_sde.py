"""The stochastic differential equations that share the marginals of a flow."""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.core import Tracer
from jaxtyping import Array, Float, Key, UInt

from ..integrate import BrownianMotion
from ..integrate.noise.brownian import levy_area_for
from ..numbers import real
from ..shapes import Args, Time
from .probability_flow import ProbabilityFlow
from .variables import AbstractLevel


class ReverseSDE(eqx.Module):
    r"""$dx = (v + \tfrac{1}{2} \gamma^2\, \mathrm{score})\, dt + \gamma\, dw$, from noise to data,
    in the variable of the flow.

    For every $\gamma_t \ge 0$ it has the marginals of the flow: with 0 it is the ODE, with the
    path's own $g$ ([`squared_diffusion`][ndekit.paths.AbstractGaussianPath.squared_diffusion]) the
    usual reverse of the noising SDE. Here $\gamma = \eta\, g$, or $\eta$ times a function of time.
    In $\sigma$, for instance, and with $\eta^2 = \gamma^2 / g^2$,

    $$dX = (1 + \eta^2)\, \epsilon\, d\sigma + \eta \sqrt{2 \sigma}\, dw.$$

    Noise forgets errors of earlier steps, at the price of smaller ones.

    Args:
        flow: the network, its path and the variable.
        eta: what $g$, or `gamma`, is multiplied by, not below 0.
        gamma: a function of the time of the path, instead of $g$.

    Raises:
        ValueError: if `eta` is below 0.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        path = nk.paths.VP()
        net = lambda t, x, args: path.m(t) * x  # data N(0, 1)
        sde = nk.samplers.ReverseSDE(nk.samplers.ProbabilityFlow(net, path, predicts="noise"))
        x0 = jr.normal(jr.key(0), (500,))
        sol = nk.diffeqsolve(
            sde.terms(x0, diffrax.Euler(), key=jr.key(1)), diffrax.Euler(), 0.0, 0.999, 0.01, x0
        )
        assert abs(jnp.std(sol.ys[-1]) - 1) < 0.15
        ```

    References: Song et al. (2021), arXiv 2011.13456; Albergo, Boffi and Vanden-Eijnden (2023),
    "Stochastic interpolants", arXiv 2303.08797.
    """

    flow: ProbabilityFlow
    eta: float = 1.0
    gamma: Callable | None = None

    def __check_init__(self):
        real("eta", self.eta, least=0.0)

    def drift(
        self, u: Time, y: Float[Array, "*shape"], args: Args = None
    ) -> Float[Array, "*shape"]:
        """Of the state, by the variable."""
        flow, path = self.flow, self.flow.path
        t, turned, kind = flow.time(u), flow.turned(u, y, args), flow.kind
        rate, noise = kind.rate_of(u, turned), turned("noise")
        if isinstance(kind, AbstractLevel):
            part = self._squared(t) / path.squared_diffusion(t) * kind.of_noise(u)[0]
        else:
            part = -0.5 * self._squared(t) / path.m(t)
        return rate + part.astype(noise.dtype) * noise

    def diffusion(self, u: Time) -> Array:
        """What multiplies each number's own Brownian motion, by the variable, above 0."""
        flow, path = self.flow, self.flow.path
        t = flow.time(u)
        if not isinstance(flow.kind, AbstractLevel):
            return jnp.sqrt(self._squared(t))
        share = self._squared(t) / path.squared_diffusion(t)
        return jnp.sqrt(share * flow.kind.of_noise(u)[1])

    def terms(
        self,
        y0: Float[Array, "*shape"],
        solver: diffrax.AbstractSolver,
        *,
        key: Key[Array, ""] | UInt[Array, "2"],
    ) -> diffrax.MultiTerm:
        """Drift and noise as diffrax's terms for a solver, along one path, of states like `y0`."""
        shape = jax.ShapeDtypeStruct(y0.shape, y0.dtype)
        motion = BrownianMotion(shape, key, levy_area_for(solver))

        def noise(u: Time, y: Array, args: Args) -> lx.AbstractLinearOperator:
            size = self.diffusion(jnp.asarray(u)).astype(y.dtype)
            return lx.DiagonalLinearOperator(jnp.broadcast_to(size, y.shape))

        drift: Callable = self.drift
        return diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(noise, motion))

    def check_end(self, name: str, t: Time) -> None:
        """Pass over an end of a solve at which neither drift nor noise is infinite.

        Raises:
            ValueError: if one is, for a known time and path.
        """
        self.flow.check_end(name, t)
        with jax.ensure_compile_time_eval():
            u = self.flow.at(t)
            ones: Callable = lambda t, x, args: jnp.ones_like(x)
            alike = eqx.tree_at(lambda sde: sde.flow.network, self, ones)
            size = alike.drift(u, jnp.ones((), u.dtype)) + alike.diffusion(u)
            is_finite = jnp.all(jnp.isfinite(size))
        if not isinstance(is_finite, Tracer) and not is_finite:
            raise ValueError(
                f"The score, or the noise of the reverse SDE, is infinite at `{name}` = "
                f"{float(t):g} of {type(self.flow.path).__name__}. Use another `{name}`, such as "
                "`path.t_of_sigma(0.002)` at the data or `path.t_of_sigma(80.0)` at the noise, or "
                "a `gamma` that is 0 there."
            )

    def _squared(self, t: Time) -> Array:
        if self.gamma is None:
            return self.eta**2 * self.flow.path.squared_diffusion(t)
        return (self.eta * jnp.asarray(self.gamma(t))) ** 2
