"""A network trained along a Gaussian path, with its samples and its density."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import diffrax
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jax.core import Tracer
from jaxtyping import Array, Float, Key, UInt

from ..integrate import ReplayAdjoint, Solution
from ..losses import denoising
from ..numbers import count, positive, real
from ..paths import AbstractGaussianPath
from ..paths.conversion import Prediction
from ..probes import AbstractTrace, Exact
from ..samplers import ProbabilityFlow, Sampler
from ..samplers.variables import Variable
from ..shapes import Args, Time
from .abstract_flow import AbstractFlow, checked_points
from .cnf import CNF
from .densities import Normal, StandardNormal


def _unlearnt(name: str, t: Time) -> Time:
    """A time as a Python number, which no optimizer changes."""
    if isinstance(t, Tracer):
        return t
    real(name, t, least=0.0, most=1.0, advice="Noise is at 0, data are at 1.")
    return float(t)


class Flow(AbstractFlow):
    r"""A diffusion or flow-matching model: a network, a Gaussian path, and how it is solved.

    The network is trained by `loss`, without a solve. After that it has all that
    [`ndekit.models.CNF`][] has, by the probability-flow ODE in the variable of one's choice:
    samples, by this solver or by any of [`ndekit.samplers`][], and their density,

    $$\log p(x) = \log p_0(x_{t_0}) - \int_{t_0}^{t_1} \mathrm{tr}\, J\, dt$$

    up to the scale of the variable's state. Samples are $x / a$ at `t1`: data, with noise of level
    `sigma(t1)` where that is not 0. Their density does not depend on the path or the variable.
    `log_prob` can be differentiated by the points, the network and a learnt path; by the numbers of
    `VP`, `Cosine` and `LogVariance` only if `t1` keeps away from 1, where their noise ends like a
    square root.

    As for `CNF`, `flow.log_prob(xs)` and `flow.sample((n,), key=key)` take many points as one state
    if the network acts on each by itself; `jax.vmap` gives each its own steps.

    Args:
        network: called as `network(t, x, args)`, with the time of the path.
        path: a Gaussian path.
        shape: of one sample; a number stands for that many in a row.
        predicts: what the network returns: `"data"`, `"noise"`, `"velocity"` or `"score"`. Said
            once, here: losses, densities and samplers follow.
        variable: of [`ndekit.samplers.ProbabilityFlow`][].
        trace, error_of: as for [`ndekit.models.CNF`][].
        solver, controller, adjoint, costs, max_steps, throw: as for `CNF`. `atol` is in units of
            the variable's state.
        t0, t1: times of the path where a solve begins and ends. They are not learnt. A prediction
            of noise or of data is infinite, as a velocity, at an end of some paths:
            `t1=path.t_of_sigma(0.002)` keeps away.
        dt0: the first step, a length in the variable; `None` lets the controller choose.
        data_std: of the data. At `t0` points are $N(0, a^2 s^2 + m^2)$ with this $s$.

    Raises:
        ValueError: for a `predicts` or `variable` that is none, a network that says otherwise, an
            end at which the equation is infinite, `t0` not below `t1`, and what `CNF` raises.

    Example:
        ```python
        import jax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        network = nk.fields.MLP(2, width=64, depth=2, time="concat", key=jr.key(0))
        flow = nk.models.Flow(network, nk.paths.CondOT(), 2)
        x1 = jnp.array([1.0, -1.0])
        loss = flow.loss(x1, key=jr.key(1))  # one sample; `jax.vmap` for a batch
        score = jax.grad(flow.log_prob)(x1)
        samples = flow.sample((100,), key=jr.key(2), sampler=nk.samplers.ddim(20, "t"))
        ```

    References: Lipman et al. (2023), arXiv 2210.02747; Song et al. (2021), arXiv 2011.13456.
    """

    network: Callable
    path: AbstractGaussianPath
    shape: int | tuple[int, ...] = eqx.field(static=True)
    predicts: Prediction = eqx.field(static=True, default="velocity")
    variable: Variable = eqx.field(static=True, default="t")
    trace: AbstractTrace = Exact()
    error_of: Literal["all", "x"] = eqx.field(static=True, default="all")
    solver: diffrax.AbstractSolver = diffrax.Tsit5()
    controller: diffrax.AbstractStepSizeController = diffrax.PIDController(rtol=1e-5, atol=1e-5)
    adjoint: Any = ReplayAdjoint()
    costs: Mapping[str, Any] = eqx.field(default_factory=dict)
    t0: Time = eqx.field(converter=functools.partial(_unlearnt, "t0"), default=0.0)
    t1: Time = eqx.field(converter=functools.partial(_unlearnt, "t1"), default=1.0)
    dt0: Time | None = None
    data_std: float = eqx.field(static=True, default=1.0)
    max_steps: int = eqx.field(static=True, default=4096)
    throw: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        count("max_steps", self.max_steps)
        positive("data_std", self.data_std)
        ends = (self.t0, self.t1)
        if not any(isinstance(t, Tracer) for t in ends) and not self.t0 < self.t1:
            raise ValueError(
                f"`t0`, of noise, must be below `t1`, of data, got {self.t0:g} and {self.t1:g}. "
                "Diffusion's s is 1 - t."
            )
        for name, t in zip(("t0", "t1"), ends, strict=True):
            self.ode.check_end(name, t)
        _ = self.cnf  # which looks at the rest

    def loss(
        self,
        x1: Float[Array, "*shape"],
        args: Args = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"],
        x0: Float[Array, "*shape"] | None = None,
        t: Time | None = None,
        weight: Callable[[Time], Any] | None = None,
    ) -> Float[Array, ""]:
        """[`ndekit.losses.denoising`][] of one sample by what the network predicts; for velocities
        that is [`ndekit.losses.flow_matching`][].

        Args:
            x1: one sample of the data.
            args: for the network.
            key: draws what is not given.
            x0: its noise.
            t: the time, uniform from `t0` to `t1` if `None`.
            weight: a function of the time.
        """
        if jnp.shape(x1) != self._noise.shape:
            raise ValueError(
                f"`x1` must be one sample, of shape {self._noise.shape}, got {jnp.shape(x1)}. Map "
                "over a batch with `jax.vmap`."
            )
        key, time_key = jr.split(key)
        if t is None:
            t = jr.uniform(time_key, (), x1.dtype, self.t0, self.t1)
        return denoising(
            self.network, self.path, x1, key=key, predicts=self.predicts, x0=x0, t=t,
            weight=weight, args=args,
        )  # fmt: skip

    def log_prob_and_solution(
        self,
        x: Float[Array, "..."],
        args: Args = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"] | None = None,
    ) -> tuple[Float[Array, "*batch"], Solution]:
        """The log density at `x`, and its solve: `costs`, `stats`, `result`."""
        x = checked_points("x", x, self._noise.shape)
        share, log_size = self._share(x.dtype)
        log_prob, sol = self.cnf.log_prob_and_solution(share * x, args, key=key)
        return log_prob + log_size, sol

    def sample(
        self,
        batch: tuple[int, ...] = (),
        args: Args = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"],
        sampler: Sampler | None = None,
    ) -> Float[Array, "..."]:
        """Samples, `(*batch, *shape)`, solved as one state.

        Args:
            batch: how many, as leading axes.
            args: for the network.
            key: draws the noise.
            sampler: how to solve; by default as densities are solved.
        """
        return self.sample_and_solution(batch, args, key=key, sampler=sampler)[0]

    def sample_and_solution(
        self,
        batch: tuple[int, ...] = (),
        args: Args = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"],
        sampler: Sampler | None = None,
    ) -> tuple[Float[Array, "..."], Solution]:
        """Samples and their solve, with its counts of steps and evaluations."""
        noise_key, key = jr.split(key)
        return self.push(self.start(batch, key=noise_key), args, key=key, sampler=sampler)

    def push(
        self,
        x0: Float[Array, "..."],
        args: Args = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"] | None = None,
        sampler: Sampler | None = None,
    ) -> tuple[Float[Array, "..."], Solution]:
        """The samples that given points at `t0` become, and their solve."""
        x0 = checked_points("x0", x0, self._noise.shape)
        sampler = self._sampler if sampler is None else sampler
        return sampler(
            self.ode, x0, self.t0, self.t1, args, key=key, adjoint=self.adjoint, throw=self.throw
        )

    def start(
        self, batch: tuple[int, ...] = (), *, key: Key[Array, ""] | UInt[Array, "2"]
    ) -> Float[Array, "..."]:
        """Points at `t0`, `(*batch, *shape)`."""
        noise = self._noise.sample(batch, key=key)
        return noise * self._spread().astype(noise.dtype)

    def sample_and_log_prob(
        self,
        batch: tuple[int, ...] = (),
        args: Args = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"],
    ) -> tuple[Float[Array, "..."], Float[Array, "*batch"]]:
        """Samples and the log densities there, by one solve."""
        y, log_prob = self.cnf.sample_and_log_prob(batch, args, key=key)
        share, log_size = self._share(y.dtype)
        return y / share, log_prob + log_size

    @property
    def ode(self) -> ProbabilityFlow:
        """The vector field, in the flow's variable."""
        return ProbabilityFlow(self.network, self.path, self.predicts, self.variable)

    @property
    def cnf(self) -> CNF:
        """The same flow as a continuous normalizing flow of the variable's state."""
        ode = self.ode
        spread = self._spread() / ode.kind.scale(self.path, self.t0)
        spread = jnp.broadcast_to(spread, self._noise.shape)
        base = Normal(jnp.zeros_like(spread), jnp.log(spread))
        return CNF(
            ode, base, self.trace, self.error_of, self.solver, self.controller, self.adjoint,
            self.costs, ode.at(self.t0), ode.at(self.t1), self.dt0, self.max_steps, self.throw,
        )  # fmt: skip

    @property
    def _sampler(self) -> Sampler:
        return Sampler(
            self.solver, self.variable, controller=self.controller, dt0=self.dt0,
            max_steps=self.max_steps,
        )  # fmt: skip

    @property
    def _noise(self) -> StandardNormal:
        return StandardNormal(self.shape)

    def _share(self, dtype: jnp.dtype) -> tuple[Array, Array]:
        """What a sample is multiplied by in its state, and the logarithm of that volume."""
        share = self.path.a(self.t1) / self.ode.kind.scale(self.path, self.t1)
        log_size = jnp.sum(jnp.broadcast_to(jnp.log(share), self._noise.shape))
        return share.astype(dtype), log_size.astype(dtype)

    def _spread(self) -> Array:
        """The standard deviation of points at `t0`."""
        a, m = self.path.a(self.t0), self.path.m(self.t0)
        return jnp.sqrt((a * self.data_std) ** 2 + m**2)
