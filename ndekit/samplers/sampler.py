"""How a flow is solved from noise to data: a variable, a solver, its steps."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, get_args

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Key, UInt

from ..choices import check_choice
from ..integrate import ReplayAdjoint, Solution, diffeqsolve
from ..numbers import count, real
from ..paths.roots import as_time
from ..shapes import Args, Time
from .grids import Grid
from .probability_flow import ProbabilityFlow
from .reverse_sde import ReverseSDE
from .variables import Variable

_NO_COSTS: Mapping[str, Any] = {}


class Sampler(eqx.Module):
    r"""A recipe for samples, for any network on any path.

    [`ndekit.samplers.ddim`][] and the other functions of this module make those of the literature.

    Args:
        solver: any diffrax solver, or a function of the [`ndekit.samplers.ProbabilityFlow`][] that
            makes one.
        variable: what the flow is solved in; see there.
        steps: a [`ndekit.samplers.Grid`][], or the rising times of the path at which steps end,
            from that of the noise to that of the data; `None` leaves steps to the `controller`.
        controller: a diffrax step size controller, where `steps` is `None`. Its `atol` is in units
            of the variable's state: of the data, $x / a$, in `"sigma"` and `"log_sigma"`.
        dt0: the first step, a length in the variable; `None` lets the controller choose.
        denoise: whether to return the data that the network expects at the last point, for one
            evaluation more. That is the last step, to $\sigma = 0$, of Euler's method. Where a
            grid ends at $\sigma = 0$ in a variable that has none, its last step is this one.
        eta: 0 for the ODE, else the noise of [`ndekit.samplers.ReverseSDE`][].
        gamma: as there.
        max_steps: a solve that needs more is an error.

    Raises:
        ValueError: for a `variable` that is none, `steps` beside a `controller`, or neither.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        path = nk.paths.VP()
        flow = nk.samplers.ProbabilityFlow(
            lambda t, x, args: path.m(t) * x, path, predicts="noise"
        )
        heun = nk.samplers.Sampler(
            diffrax.Heun(), "log_sigma", steps=nk.samplers.Grid(10, "log_sigma")
        )
        x, sol = heun(flow, jnp.ones(2), path.t_of_sigma(80.0), path.t_of_sigma(0.01))
        assert sol.stats["num_evals"] == 20
        ```
    """

    solver: diffrax.AbstractSolver | Callable[[ProbabilityFlow], diffrax.AbstractSolver]
    variable: Variable = eqx.field(static=True, default="t")
    steps: Grid | Float[Array, " times"] | None = None
    controller: diffrax.AbstractStepSizeController | None = None
    dt0: Time | None = None
    denoise: bool = eqx.field(static=True, default=False)
    eta: float = eqx.field(static=True, default=0.0)
    gamma: Callable | None = None
    max_steps: int = eqx.field(static=True, default=4096)

    def __check_init__(self):
        count("max_steps", self.max_steps)
        check_choice("variable", self.variable, get_args(Variable))
        real("eta", self.eta, least=0.0)
        if self.gamma is not None and self.eta == 0:
            raise ValueError("`gamma` is how much noise an SDE draws: give `eta` above 0 with it.")
        if self.dt0 is not None:
            real("dt0", self.dt0, above=0.0)
        if self.steps is not None and not isinstance(self.steps, Grid):
            _check_times(self.steps)
        if (self.steps is None) == (self.controller is None):
            raise ValueError(
                "`steps` must be given, or a `controller` that chooses them: one of the two."
            )
        for_odes = isinstance(self.solver, diffrax.AbstractSolver) and not isinstance(
            self.solver, diffrax.AbstractItoSolver | diffrax.AbstractStratonovichSolver
        )
        if self.eta > 0 and self.steps is None and for_odes:
            raise ValueError(
                f"With `eta` above 0 an SDE is solved, but `{type(self.solver).__name__}` is for "
                "ODEs, and its error estimate too. Give a solver for SDEs with an estimate, such "
                "as `diffrax.Heun()`, or `steps`."
            )

    def __call__(
        self,
        flow: ProbabilityFlow,
        x0: Float[Array, "*shape"],
        t0: Time = 0.0,
        t1: Time = 1.0,
        args: Args = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"] | None = None,
        adjoint: Any = ReplayAdjoint(),
        costs: Mapping[str, Any] = _NO_COSTS,
        throw: bool = True,
    ) -> tuple[Float[Array, "*shape"], Solution]:
        """Samples from noise.

        Args:
            flow: the network and its path. In which variable it is does not matter here.
            x0: the point of the path at `t0`, or many as one state with the same steps, if the
                network acts on each by itself; `jax.vmap` gives each its own.
            t0, t1: times of the path. Of `steps` that are an array these are its ends; where they
                are traced, the ends of the array count.
            args: for the network: a class or condition.
            key: for the noise of an SDE, and for costs that draw.
            adjoint, costs, throw: as for [`ndekit.diffeqsolve`][].

        Returns:
            The samples, $x / a$ at `t1`: data with noise of level `sigma(t1)`, or `denoise`d; and
            the solve, with its counts: for each sample under `jax.vmap`, else for the state as a
            whole.

        Raises:
            ValueError: if something is infinite at an end, the grid runs from data to noise or
                does not end where the solve does, or an SDE has no `key`.
        """
        flow = flow.by(self.variable)
        path_key, cost_key = (None, None) if key is None else jr.split(key)
        t0, t1, how, denoise = self._steps(flow, t0, t1)
        equation, solver = self._equation(flow), self._solver(flow)
        equation.check_end("t0", t0)
        equation.check_end("t1", t1)
        y0 = flow.to_state(t0, x0)
        sol = diffeqsolve(
            _terms(equation, solver, y0, path_key),
            solver,
            y0=y0,
            args=args,
            max_steps=self.max_steps,
            adjoint=adjoint,
            costs=costs,
            key=cost_key,
            throw=throw,
            **how,
        )
        assert sol.ys is not None
        y1 = sol.ys[-1]
        if not denoise:
            return flow.to_point(t1, y1) / flow.path.a(as_time(t1)).astype(y1.dtype), sol
        evals = {name: n + 1 for name, n in sol.stats.items() if name == "num_evals"}
        sol = dataclasses.replace(sol, stats={**sol.stats, **evals})
        return flow.see(how["t1"], y1, args, "data"), sol

    def _equation(self, flow: ProbabilityFlow) -> ProbabilityFlow | ReverseSDE:
        return flow if self.eta == 0 else ReverseSDE(flow, self.eta, self.gamma)

    def _solver(self, flow: ProbabilityFlow) -> diffrax.AbstractSolver:
        solver = self.solver
        return solver if isinstance(solver, diffrax.AbstractSolver) else solver(flow)

    def _steps(
        self, flow: ProbabilityFlow, t0: Time, t1: Time
    ) -> tuple[Time, Time, dict[str, Any], bool]:
        """Where the solve begins and ends, how it steps in the variable, and whether it is denoised
        there.
        """
        if self.steps is None:
            with jax.ensure_compile_time_eval():
                u0, u1 = flow.at(t0), flow.at(t1)
            dt0 = None if self.dt0 is None else self.dt0 * jnp.sign(u1 - u0)
            how = dict(t0=u0, t1=u1, dt0=dt0, stepsize_controller=self.controller)
            return t0, t1, how, self.denoise
        steps = self.steps
        ts = steps(flow.path, t0, t1) if isinstance(steps, Grid) else jnp.asarray(steps)
        denoise = self.denoise
        with jax.ensure_compile_time_eval():
            _check_ends(ts, t0, t1)
            if len(ts) > 2 and flow.is_infinite(t1):
                ts, denoise = ts[:-1], True
            us = flow.at(ts)
            # The grid's own ends: of traced ones nobody knows whether they are `t0` and `t1`.
            t0, t1 = ts[0], ts[-1]
        how = dict(t0=us[0], t1=us[-1], dt0=None, stepsize_controller=diffrax.StepTo(us))
        return t0, t1, how, denoise


def _terms(
    equation: ProbabilityFlow | ReverseSDE, solver: diffrax.AbstractSolver, y0: Array, key: Any
) -> Any:
    if isinstance(equation, ProbabilityFlow):
        field: Callable = equation
        return diffrax.ODETerm(field)
    if key is None:
        raise ValueError("A sampler with `eta` above 0 draws noise: give it a `key`.")
    return equation.terms(y0, solver, key=key)


def _check_times(ts: Any) -> None:
    if isinstance(ts, Tracer):
        return
    are_times = eqx.is_inexact_array_like(ts) and np.ndim(ts) == 1 and len(ts) > 1
    known = np.asarray(ts) if are_times else np.zeros(2)
    if not (np.all(np.diff(known) > 0) and known[0] >= 0 and known[-1] <= 1):
        raise ValueError(
            "`steps` must be a number of steps, a `Grid`, or an array of rising times from noise, "
            f"at 0, to data, at 1, got {ts!r}. Diffusion's s is 1 - t: `1 - s[::-1]`; levels of "
            "noise have their times by `path.t_of_sigma`."
        )


def _check_ends(ts: Array, t0: Time, t1: Time) -> None:
    if isinstance(ts, Tracer):
        return
    ends = [float(x) for x in (t0, t1) if not isinstance(x, Tracer)]
    if len(ends) == 2 and not np.allclose(np.asarray(ts)[[0, -1]], ends, atol=1e-6):
        raise ValueError(
            f"`steps` must run from `t0` to `t1`, {float(t0):g} to {float(t1):g}, but run from "
            f"{float(ts[0]):g} to {float(ts[-1]):g}."
        )
