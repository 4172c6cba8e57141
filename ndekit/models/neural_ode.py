"""A vector field with the way it is solved."""

from collections.abc import Callable, Mapping
from typing import Any

import diffrax
import equinox as eqx
from jaxtyping import Array, Key, Real, UInt

from ..integrate import ReplayAdjoint, Solution, diffeqsolve
from ..numbers import count, real
from ..shapes import Args, State, Time


class NeuralODE(eqx.Module):
    r"""$y(t_1)$, or $y$ at `ts`, of $y' = f_\theta(t, y)$, $y(t_0) = y_0$.

    The state is a single sample's. Two ways to solve many:

    * `jax.vmap(ode)(y0s)`: each sample takes steps of its own, so none is solved more accurately
      than it needs and counts are counts per sample. All lanes wait for the slowest: the run time
      is that of the sample with the most steps.
    * `ode(y0s)` with a field that allows leading axes, as [`ndekit.fields.MLP`][] does: the batch
      is one state with one sequence of steps, under the error norm of the whole batch, as in Pal et
      al. (2021). Cheapest by the clock, since each stage is one product of matrices, but a hard
      sample can hide in the mean of the norm, and what one sample gets depends on the others.

    Step counts of the two are not comparable: say which one a table shows.

    Args:
        field: `field(t, y, args)`, the right-hand side; its arrays are the parameters.
        solver: any diffrax solver.
        controller: any diffrax step size controller. Tolerances much below 1e-6 are lost on
            float32: the error estimate is rounding there.
        adjoint: how to differentiate the solve.
        costs: step costs by name, read back as `solution.costs`; nothing is measured by default.
        t0, t1: the interval, in the field's unit of time; `t1 < t0` solves backwards.
        dt0: the first step, with the sign of `t1 - t0`; `None` lets the controller choose.
        max_steps: a solve that needs more is an error. More steps allowed cost more memory.
        throw: whether a failed solve raises; if not, look at `solution.result`.

    Raises:
        ValueError: if `max_steps` is no whole number from 1, or `dt0` not finite; when called, what
            [`ndekit.diffeqsolve`][] raises.

    Example:
        ```python
        import diffrax, jax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        ode = nk.models.NeuralODE(
            nk.fields.MLP(2, width=32, depth=1, key=jr.key(0)), costs={"steps": nk.StepCount()}
        )
        sol = ode(jnp.ones(2), ts=jnp.linspace(0.0, 1.0, 5))
        assert sol.ys.shape == (5, 2)
        own_steps = jax.vmap(ode)(jnp.ones((8, 2)))  # sol.ys is (8, 1, 2)
        shared_steps = ode(jnp.ones((8, 2)))  # sol.ys is (1, 8, 2)
        ```
    """

    field: Callable
    solver: diffrax.AbstractSolver = diffrax.Tsit5()
    controller: diffrax.AbstractStepSizeController = diffrax.PIDController(rtol=1e-3, atol=1e-6)
    adjoint: Any = ReplayAdjoint()
    costs: Mapping[str, Any] = eqx.field(default_factory=dict)
    t0: Time = 0.0
    t1: Time = 1.0
    dt0: Time | None = None
    max_steps: int = eqx.field(static=True, default=4096)
    throw: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if self.max_steps is not None:
            count("max_steps", self.max_steps)
        if self.dt0 is not None:
            real("dt0", self.dt0)

    def __call__(
        self,
        y0: State,
        ts: Real[Array, " times"] | None = None,
        args: Args = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"] | None = None,
    ) -> Solution:
        """Solve from `y0`.

        Args:
            y0: the state at `t0`, or at `ts[0]` if `ts` is given.
            ts: times to save at, increasing (decreasing if `t1 < t0`). The solve then runs from
                `ts[0]` to `ts[-1]` instead of from `t0` to `t1`.
            args: passed on to the field.
            key: for costs that draw.

        Returns:
            A solution whose `ys` have one leading axis: the times, or `t1` alone.
        """
        t0, t1 = (self.t0, self.t1) if ts is None else (ts[0], ts[-1])
        return diffeqsolve(
            diffrax.ODETerm(self.field),  # pyright: ignore[reportArgumentType]
            self.solver,
            t0=t0,
            t1=t1,
            dt0=self.dt0,
            y0=y0,
            args=args,
            saveat=diffrax.SaveAt(t1=True) if ts is None else diffrax.SaveAt(ts=ts),
            stepsize_controller=self.controller,
            adjoint=self.adjoint,
            max_steps=self.max_steps,
            throw=self.throw,
            costs=self.costs,
            key=key,
        )
