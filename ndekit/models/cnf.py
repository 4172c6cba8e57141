"""The continuous normalizing flow: a density carried from noise to data by a vector field."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import diffrax
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, UInt

from ..integrate import ReplayAdjoint, Solution, diffeqsolve
from ..numbers import count, real
from ..probes import AbstractTrace, Exact
from ..shapes import Args, Time
from .abstract_flow import AbstractFlow, checked_points
from .carried import Carried, CarriedField, costs_of_points, looking_at_points
from .densities import AbstractDensity
from .neural_ode import NeuralODE


class CNF(AbstractFlow):
    r"""The law of $x(t_1)$ for $x' = f_\theta(t, x)$ with $x(t_0)$ from a base law.

    $$\log p(x) = \log p_0(x(t_0)) - \int_{t_0}^{t_1} \mathrm{tr}\,
    \frac{\partial f_\theta}{\partial x}(t, x(t))\, dt.$$

    Noise is at `t0`, data are at `t1`. A log density is one solve from `t1` to `t0` of the points
    and of what they carry, by the solver's own stages; it can be differentiated by the points and
    by everything that is learnt, with every adjoint.

    As for [`ndekit.models.NeuralODE`][], many points are solved in one of two ways:
    `jax.vmap(flow.log_prob)(xs)` gives each its own steps; `flow.log_prob(xs)` takes them as one
    state with one sequence of steps, cheapest by the clock, if the field acts on each sample by
    itself for any leading axes, as [`ndekit.fields.MLP`][] does. A field that mixes samples gives
    wrong densities.

    Costs see the points alone, as if there were no log density: they are what the papers measure.
    Only the scaled error is that of the controller, so that a count of steps is one.

    Args:
        field: `field(t, x, args)`; its arrays are the parameters.
        base: the law at `t0`.
        trace: how the trace is found: [`ndekit.probes.Exact`][] for a few numbers a sample,
            [`ndekit.probes.Hutchinson`][] or [`ndekit.probes.HutchPP`][] for many. Drawn once for
            each solve.
        error_of: whose error the steps are chosen by. `"all"`: the points' and the log density's,
            so that the number that comes out is held to the tolerances too. `"x"`: the points'
            alone, for fewer steps in training; the log density is then as good as it happens to
            be.
        solver: any diffrax solver.
        controller: any diffrax step size controller.
        adjoint: how to differentiate the solve.
        costs: step costs by name, of the solve of a log density.
        t0, t1: where noise and data are, in the field's unit of time. An array is learnt.
        dt0: the first step, a length; `None` lets the controller choose.
        max_steps: a solve that needs more is an error. More steps allowed cost more memory.
        throw: whether a failed solve raises; if not, look at `solution.result`.

    Raises:
        ValueError: for another `error_of`, a `max_steps` that is no whole number from 1, a `dt0`
            that is not positive; when called, for points of another shape than the base's, and what
            the trace and [`ndekit.diffeqsolve`][] raise.

    Example:
        ```python
        import jax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        field = nk.fields.MLP(2, width=32, depth=2, time="concat", key=jr.key(0))
        flow = nk.models.CNF(field, nk.models.StandardNormal(2))
        xs = jnp.array([[0.0, 0.0], [1.0, -1.0]])
        assert flow.log_prob(xs).shape == (2,)  # one state, the same steps
        by_x = jax.grad(flow.log_prob)(xs[0])  # the score
        samples = flow.sample((100,), key=jr.key(1))
        ```

    Reference: Chen et al. (2018), "Neural ordinary differential equations", theorem 1; Grathwohl
    et al. (2019), "FFJORD", arXiv 1810.01367.
    """

    field: Callable
    base: AbstractDensity
    trace: AbstractTrace = Exact()
    error_of: Literal["all", "x"] = eqx.field(static=True, default="all")
    solver: diffrax.AbstractSolver = diffrax.Tsit5()
    controller: diffrax.AbstractStepSizeController = diffrax.PIDController(rtol=1e-5, atol=1e-5)
    adjoint: Any = ReplayAdjoint()
    costs: Mapping[str, Any] = eqx.field(default_factory=dict)
    t0: Time = 0.0
    t1: Time = 1.0
    dt0: Time | None = None
    max_steps: int = eqx.field(static=True, default=4096)
    throw: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if self.error_of not in ("all", "x"):
            raise ValueError(f"`error_of` must be 'all' or 'x', but got {self.error_of!r}.")
        if self.max_steps is not None:
            count("max_steps", self.max_steps)
        if self.dt0 is not None:
            real("dt0", self.dt0, above=0.0)

    def log_prob_and_solution(
        self,
        x: Float[Array, "..."],
        args: Args = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"] | None = None,
    ) -> tuple[Float[Array, "*batch"], Solution]:
        """The log density at `x`, and its solve: `costs`, `stats`, `result`.

        The solution's `ys` are the points at `t0`, `ys.x[-1]`, and what they have carried there.
        """
        x = checked_points("x", x, self.base.shape)
        trace_key, cost_key = (None, None) if key is None else jr.split(key)
        sol = self._carry(x, self.t1, self.t0, args, trace_key, key=cost_key)
        assert isinstance(sol.ys, Carried)
        # From t1 to t0: the integral comes with the other sign.
        return self.base.log_prob(sol.ys.x[-1]) + sol.ys.trace[-1], sol

    def sample(
        self,
        batch: tuple[int, ...] = (),
        args: Args = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"],
    ) -> Float[Array, "..."]:
        """Samples, `(*batch, *shape)`, solved as one state, without their densities."""
        sol = self.ode(self.base.sample(batch, key=key), args=args)
        assert sol.ys is not None
        return sol.ys[-1]

    def sample_and_log_prob(
        self,
        batch: tuple[int, ...] = (),
        args: Args = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"],
    ) -> tuple[Float[Array, "..."], Float[Array, "*batch"]]:
        """Samples and the log densities there, by one solve."""
        noise_key, trace_key = jr.split(key)
        noise = self.base.sample(batch, key=noise_key)
        sol = self._carry(noise, self.t0, self.t1, args, trace_key, costs={})
        assert isinstance(sol.ys, Carried)
        return sol.ys.x[-1], self.base.log_prob(noise) - sol.ys.trace[-1]

    @property
    def ode(self) -> NeuralODE:
        """The flow of points from noise to data, without densities and costs."""
        return NeuralODE(
            self.field, solver=self.solver, controller=self.controller, adjoint=self.adjoint,
            t0=self.t0, t1=self.t1, dt0=self._first_step(self.t0, self.t1),
            max_steps=self.max_steps, throw=self.throw,
        )  # fmt: skip

    def _carry(
        self, x: Array, start: Time, end: Time, args: Args, trace_key: Any, **options: Any
    ) -> Solution:
        ndim = len(self.base.shape)
        at_start = lambda x: self.field(start, x, args)
        directions = self.trace.directions(at_start, x, ndim, key=trace_key)
        field: Any = CarriedField(self.field, directions, ndim)
        seen_by = looking_at_points if self.error_of == "x" else lambda controller: controller
        return diffeqsolve(
            diffrax.ODETerm(field),
            self.solver,
            t0=start,
            t1=end,
            dt0=self._first_step(start, end),
            y0=Carried(x, jnp.zeros(x.shape[: x.ndim - ndim], x.dtype)),
            args=args,
            stepsize_controller=seen_by(self.controller),
            adjoint=self.adjoint,
            max_steps=self.max_steps,
            throw=self.throw,
            **{"costs": costs_of_points(self.costs), **options},
        )

    def _first_step(self, start: Time, end: Time) -> Time | None:
        if self.dt0 is None:
            return None
        return self.dt0 * jnp.sign(jnp.asarray(end - start))
