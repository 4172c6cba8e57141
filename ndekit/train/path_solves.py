"""A velocity field solved along any path between the same two levels of noise."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from ..integrate import AbstractStepCost, InUnits, Solution, Step, diffeqsolve
from ..integrate.control.in_units import divided
from ..integrate.steppers.explicit import explicit_runge_kutta
from ..numbers import count, positive, real
from ..paths import AbstractGaussianPath, LearnedPath, PathUnits, scale_time
from ..regularize import StepCount
from ..samplers import ProbabilityFlow
from ..shapes import Scalar, Time

_CONSTANT = diffrax.ConstantStepSize()


class PathSolve(eqx.Module):
    r"""Solve a field along a path, from noise to data; called as `solve(path, x)` for one point.

    All paths begin and end at the same levels of noise, start from the same points $x / a$, and are
    judged by the error of $x / a$ ([`ndekit.paths.PathUnits`][]). So `stats["num_steps"]`, `costs`
    and the end point `solve.end_of(path, sol)` can be compared from path to path.

    Args:
        path0: the path that the field is known on.
        field: the velocity on it, called as `field(t, y, args)`.
        solver: any diffrax solver.
        tolerance: of the adaptive controller, for $x / a$ in units of `data_std`: one number, or
            the pair `(rtol, atol)`; `None` for fixed steps.
        pinned: `(sigma_min, sigma_max)`, the noise at the end and at the start.
        num_steps: so many equal steps in the time of the path, in place of a tolerance.
        in_sigma: with `num_steps`: the state is $x / a$ and the solver steps in $\sigma$ itself, to
            the levels that the path has at equal times. The path is then a grid and nothing else.
        data_std: the standard deviation of the data, or another size that an absolute tolerance
            is to be understood in; positive.
        first_step: share of the interval that the first attempt takes, above 0 and at most 1.
        max_steps: most attempts of one solve.

    Raises:
        ValueError: if a number is out of range, `path0` lacks a level, both or neither of
            `tolerance` and `num_steps` are given, or a tolerance for a solver without an error
            estimate.

    Example:
        ```python
        import diffrax, jax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        law = nk.models.GaussianMixture(jnp.array([[-1.0], [1.0]]), 0.3)
        path0 = nk.paths.CondOT()
        solve = nk.train.PathSolve(
            path0, law.velocity(path0), diffrax.Tsit5(), 1e-3, (0.01, 20.0)
        )
        x = law.sample((8,), key=jr.key(0)) + 20 * jr.normal(jr.key(1), (8, 1))
        for path in (path0, nk.paths.VP()):
            sol = jax.vmap(lambda x: solve(path, x))(x)
            print(sol.stats["num_steps"].mean())
        ```
    """

    path0: AbstractGaussianPath
    field: Callable
    solver: diffrax.AbstractSolver
    tolerance: tuple[Any, Any] | None
    sigma_min: float = eqx.field(static=True)
    sigma_max: float = eqx.field(static=True)
    num_steps: int | None = eqx.field(static=True)
    in_sigma: bool = eqx.field(static=True)
    data_std: float | Array
    first_step: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def __init__(
        self,
        path0: AbstractGaussianPath,
        field: Callable,
        solver: diffrax.AbstractSolver,
        tolerance: float | Array | tuple[float, float] | None = None,
        pinned: tuple[float, float] = (0.002, 80.0),
        *,
        num_steps: int | None = None,
        in_sigma: bool = False,
        data_std: float | Array = 1.0,
        first_step: float = 0.1,
        max_steps: int = 256,
    ):
        self.path0, self.field, self.solver = path0, field, solver
        self.sigma_min, self.sigma_max = checked_levels(path0, pinned)
        self.num_steps = None if num_steps is None else count("num_steps", num_steps)
        self.tolerance = _checked_tolerance(solver, tolerance, num_steps)
        if in_sigma and num_steps is None:
            raise ValueError("`in_sigma` is for fixed steps: pass `num_steps`, not a tolerance.")
        positive("data_std", data_std)
        real("first_step", first_step, above=0.0, most=1.0)
        self.in_sigma, self.data_std, self.first_step = in_sigma, data_std, float(first_step)
        self.max_steps = count("max_steps", max_steps)

    def __call__(
        self, path: AbstractGaussianPath, x: Float[Array, "*shape"], **more: Any
    ) -> Solution:
        r"""Solve from the point `x`, which is $x / a$ where the noise is `sigma_max`.

        The solution has the costs `steps`, a [`ndekit.StepCount`][], or of fixed steps `error`, the
        sum of the squared local errors of $x / a$, each as a share of the spread that the points
        have where the step begins, $\sqrt{s^2 + \sigma^2}$ with $s$ of `data_std`. `more` is for
        [`ndekit.diffeqsolve`][]; its `costs` come besides.
        """
        if self.in_sigma:
            return self._along_sigma(path, x, more)
        t0, t1 = self.ends(path)
        field = self.field if path is self.path0 else scale_time(self.field, self.path0, path)
        if self.num_steps is not None:
            costs, controller = {"error": LocalError(path, self.data_std)}, _CONSTANT
            dt0, most = (t1 - t0) / self.num_steps, self.num_steps + 1
        else:
            assert self.tolerance is not None
            rtol, atol = self.tolerance
            pid = diffrax.PIDController(rtol=rtol, atol=atol * self.data_std)
            controller = InUnits(pid, PathUnits(path))
            costs, dt0, most = {"steps": StepCount()}, self.first_step * (t1 - t0), self.max_steps
        costs |= more.pop("costs", {})
        return diffeqsolve(
            diffrax.ODETerm(field), self.solver, t0, t1, dt0, x * path.a(t0).astype(x.dtype),
            stepsize_controller=controller, costs=costs, max_steps=most, **more,
        )  # fmt: skip

    def ends(self, path: AbstractGaussianPath) -> tuple[Time, Time]:
        """The times of `sigma_max` and `sigma_min` on a path."""
        own = (self.sigma_min, self.sigma_max)
        if isinstance(path, LearnedPath) and (path.sigma_min, path.sigma_max) == own:
            return 0.0, 1.0
        return path.t_of_sigma(self.sigma_max), path.t_of_sigma(self.sigma_min)

    def end_of(self, path: AbstractGaussianPath, sol: Solution) -> Float[Array, "..."]:
        """$x / a$ at the end of a solution, or of many in lanes."""
        assert sol.ys is not None and sol.ts is not None
        last = jnp.take(sol.ys, -1, axis=sol.ts.ndim - 1)  # lanes come before the times
        return last if self.in_sigma else divided(last, path.a(self.ends(path)[1]))

    def _along_sigma(self, path: AbstractGaussianPath, x: Array, more: dict) -> Solution:
        assert self.num_steps is not None
        t0, t1 = self.ends(path)
        inner = path.sigma(t0 + (t1 - t0) * jnp.linspace(0.0, 1.0, self.num_steps + 1))[1:-1]
        ends = (jnp.full((1,), level, inner.dtype) for level in (self.sigma_max, self.sigma_min))
        first, last = ends
        levels = jnp.concatenate([first, inner, last])
        flow: Callable = ProbabilityFlow(self.field, self.path0, "velocity", "sigma")
        return diffeqsolve(
            diffrax.ODETerm(flow), self.solver,
            self.sigma_max, self.sigma_min, None, x,
            stepsize_controller=diffrax.StepTo(levels),
            costs={"error": LocalError(None, self.data_std)} | more.pop("costs", {}),
            max_steps=self.num_steps + 1, **more,
        )  # fmt: skip


class LocalError(AbstractStepCost):
    """The mean square of a step's error estimate of x / a, as a share of the spread at its start.

    Of Euler's method, which has no estimate, that of Heun's beside it. Along `path`, or without one
    of a step in sigma, which falls as the step's time grows: from minus sigma.
    """

    path: AbstractGaussianPath | None
    data_std: float | Array

    def of_step(self, step: Step) -> Scalar:
        error, path = step.error, self.path
        if error is None:
            if step.rates is None or len(step.rates) != 1:
                step.checked_error()
            assert step.rates is not None
            error = 0.5 * step.h * (step.field(step.t1, step.y1) - step.rates[0])
        sigma = -step.t0 if path is None else path.sigma(step.t0)
        spread = jnp.sqrt(self.data_std**2 + sigma**2)
        unit = spread if path is None else spread * path.a(step.t1)
        return jnp.mean(divided(error, unit) ** 2)


def checked_levels(path0: AbstractGaussianPath, pinned: Any) -> tuple[float, float]:
    """`pinned` as two numbers that `path0` has."""
    if not (isinstance(pinned, tuple) and len(pinned) == 2):
        raise ValueError(f"`pinned` must be the pair (sigma_min, sigma_max), got {pinned!r}.")
    for name, level in zip(("sigma_min", "sigma_max"), pinned, strict=True):
        positive(f"pinned: {name}", level)
    least, most = map(float, pinned)
    if not least < most:
        raise ValueError(
            f"`pinned` must be (sigma_min, sigma_max) in this order, got ({least:g}, {most:g})."
        )
    # Also inside of jit, unless the path's own numbers are traced.
    with jax.ensure_compile_time_eval():
        start, end = path0.sigma(0.0), path0.sigma(1.0)
    known = not (isinstance(start, Tracer) or isinstance(end, Tracer))
    if known and (least < float(end) * (1 - 1e-5) or most > float(start) * (1 + 1e-5)):
        raise ValueError(
            f"`pinned` must lie within the noise of `path0`, which falls from {float(start):.4g} "
            f"to {float(end):.4g}, got ({least:g}, {most:g})."
        )
    return least, most


def _checked_tolerance(solver: Any, tolerance: Any, num_steps: Any) -> tuple[Any, Any] | None:
    if (tolerance is None) == (num_steps is None):
        raise ValueError(
            "Pass a `tolerance` for adaptive steps or `num_steps` for fixed ones, and not both."
        )
    if tolerance is None:
        return None
    pair = tolerance if isinstance(tolerance, tuple) else (tolerance, tolerance)
    if len(pair) != 2:
        raise ValueError(f"`tolerance` must be a number or (rtol, atol), got {tolerance!r}.")
    for part in pair:
        positive("tolerance", part)
    scheme = explicit_runge_kutta(solver)
    if scheme is not None and scheme.b_error is None:
        raise ValueError(
            f"`{type(solver).__name__}` has no error estimate, so a `tolerance` has nothing to "
            "hold. Pass `num_steps`, or a solver with an estimate such as `diffrax.Heun()`."
        )
    return pair[0], pair[1]
