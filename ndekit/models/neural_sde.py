"""A drift and a diffusion with the way they are solved."""

from collections.abc import Callable, Mapping
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import lineax as lx
from jaxtyping import Array, Float, Key, Real, UInt

from ..integrate import BrownianMotion, ReplayAdjoint, Solution, diffeqsolve
from ..integrate.noise.brownian import levy_area_for
from ..numbers import count, real
from ..shapes import Args, Time

NOISES = ("diagonal", "scalar", "general")


class NeuralSDE(eqx.Module):
    r"""$y(t_1)$, or $y$ at `ts`, of $dy = f_\theta(t, y)\, dt + g_\theta(t, y)\, dW$, in the sense
    of Ito or Stratonovich as the solver has it.

    The state is an array. Many samples, each with noise of its own, are solved by
    `jax.vmap(sde)(y0s, key=keys)`, with steps of their own, or as one state `(..., size)` by fields
    that allow leading axes, with the same steps.

    Args:
        drift: `drift(t, y, args)`, of the shape of the state.
        diffusion: `diffusion(t, y, args)`: of the shape of the state for diagonal and scalar noise,
            `(..., size, noise_size)` for general noise.
        noise: `"diagonal"`: one motion for each number of the state; `"scalar"`: one for all
            numbers of a sample; `"general"`: `noise_size` of them for each sample.
        solver: any diffrax solver for SDEs, or [`ndekit.SOSRI`][].
        controller: constant steps of `dt0` by default; an adaptive one needs a solver with an error
            estimate.
        adjoint: how to differentiate the solve.
        costs: step costs by name, read back as `solution.costs`.
        t0, t1, dt0: the interval and the (first) step.
        noise_size: for general noise.
        max_steps: a solve that needs more is an error.
        throw: whether a failed solve raises; if not, look at `solution.result`.

    Raises:
        ValueError: for another `noise`, or general noise without `noise_size`; when called without
            a key, or if the diffusion has another shape than its `noise` says.

    Example:
        ```python
        import jax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        drift_key, diffusion_key, path_key = jr.split(jr.key(0), 3)
        sde = nk.models.NeuralSDE(
            nk.fields.MLP(2, width=32, depth=1, key=drift_key),
            nk.fields.MLP(2, width=8, depth=1, final="sigmoid", key=diffusion_key),
            dt0=0.05,
        )
        sol = sde(jnp.ones(2), ts=jnp.linspace(0.0, 1.0, 5), key=path_key)
        assert sol.ys.shape == (5, 2)
        keys = jr.split(path_key, 8)
        many = jax.vmap(lambda y0, key: sde(y0, key=key).ys)(jnp.ones((8, 2)), keys)
        ```
    """

    drift: Callable
    diffusion: Callable
    noise: str = eqx.field(static=True, default="diagonal")
    solver: diffrax.AbstractSolver = diffrax.Euler()
    controller: diffrax.AbstractStepSizeController = diffrax.ConstantStepSize()
    adjoint: Any = ReplayAdjoint()
    costs: Mapping[str, Any] = eqx.field(default_factory=dict)
    t0: Time = 0.0
    t1: Time = 1.0
    dt0: Time | None = 0.05
    noise_size: int | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=4096)
    throw: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if self.noise not in NOISES:
            names = ", ".join(map(repr, NOISES))
            raise ValueError(f"`noise` must be one of {names}, but got {self.noise!r}.")
        if (self.noise == "general") != (self.noise_size is not None):
            raise ValueError("`noise_size` is for general noise, which needs it.")
        if self.noise_size is not None:
            count("noise_size", self.noise_size)
        if self.max_steps is not None:
            count("max_steps", self.max_steps)
        if self.dt0 is not None:
            real("dt0", self.dt0)

    def __call__(
        self,
        y0: Float[Array, "*batch size"],
        ts: Real[Array, " times"] | None = None,
        args: Args = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"] | None = None,
    ) -> Solution:
        """Solve from `y0`.

        Args:
            y0: the state at `t0`, or at `ts[0]` if `ts` is given.
            ts: times to save at. The solve then runs from `ts[0]` to `ts[-1]`.
            args: passed on to drift and diffusion.
            key: for the path, and for costs that draw.

        Returns:
            A solution whose `ys` have one leading axis: the times, or `t1` alone.
        """
        if key is None:
            raise ValueError(
                "A `NeuralSDE` draws its noise: call it with `key=jax.random.key(...)`."
            )
        path_key, cost_key = jr.split(key)
        t0, t1 = (self.t0, self.t1) if ts is None else (ts[0], ts[-1])
        return diffeqsolve(
            self.terms(y0, path_key), self.solver, t0, t1, self.dt0, y0, args,
            saveat=diffrax.SaveAt(t1=True) if ts is None else diffrax.SaveAt(ts=ts),
            stepsize_controller=self.controller, adjoint=self.adjoint, max_steps=self.max_steps,
            throw=self.throw, costs=self.costs, key=cost_key,
        )  # fmt: skip

    def terms(
        self, y0: Float[Array, "*batch size"], key: Key[Array, ""] | UInt[Array, "2"]
    ) -> diffrax.MultiTerm:
        """Drift and noise as diffrax's terms, along one path."""
        batch = y0.shape[:-1]
        per_sample = bool(batch) and self.noise != "diagonal"
        scalar = (*batch, 1) if per_sample else ()
        shapes = {"diagonal": y0.shape, "scalar": scalar, "general": (*batch, self.noise_size)}
        shape = jax.ShapeDtypeStruct(shapes[self.noise], y0.dtype)
        path = BrownianMotion(shape, key, levy_area_for(self.solver))
        wanted = y0.shape if self.noise_size is None else (*y0.shape, self.noise_size)

        def diffusion(t: Time, y: Array, args: Args) -> Any:
            g = jnp.asarray(self.diffusion(t, y, args))
            if g.shape != wanted:
                raise ValueError(
                    f"With `noise={self.noise!r}` and a state of shape {y0.shape} the diffusion "
                    f"must have shape {wanted}, but has {g.shape}."
                )
            if self.noise == "diagonal":
                return lx.DiagonalLinearOperator(g)
            return g[..., None] if per_sample and self.noise == "scalar" else g

        drift: Any = self.drift
        noise_term = SampleTerm if per_sample else diffrax.ControlTerm
        return diffrax.MultiTerm(diffrax.ODETerm(drift), noise_term(diffusion, path))


class SampleTerm(diffrax.ControlTerm):
    """A control `(*batch, inputs)` for the samples of a state `(*batch, size)`, each with a matrix
    of its own: the vector field gives `(*batch, size, inputs)`.
    """

    def prod(self, vf: Array, control: Array) -> Array:
        return jnp.einsum("...ij,...j->...i", vf, control)
