"""Hypersolvers: a cheap scheme and a small network that learns what it leaves out."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from diffrax import RESULTS
from jaxtyping import Array, Float, Key, PyTree, UInt

from ..fields import Affine
from ..models import NeuralODE
from ..numbers import counts
from ..shapes import Args, State, Time
from ..train import FitResult, fit
from .fixed_steps import with_fixed_steps


class Correction(eqx.Module):
    r"""$g_\omega(h, y, f(t, y))$ by a perceptron on $(y, f)$, with $h$ entering each layer.

    Args:
        size: length of the state's last axis.
        width: units in a hidden layer.
        depth: number of hidden layers, at least 1.
        key: draws the weights.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, ndekit as nk

        correction = nk.deploy.Correction(2, width=32, key=jr.key(0))
        assert correction(0.1, jnp.ones((8, 2)), jnp.ones((8, 2))).shape == (8, 2)
        ```
    """

    layers: tuple[Affine, ...]

    def __init__(
        self, size: int, *, width: int, depth: int = 1, key: Key[Array, ""] | UInt[Array, "2"]
    ):
        counts(size=size, width=width, depth=depth)
        sizes = [2 * size, *[width] * depth, size]
        keys = jr.split(key, depth + 1)
        self.layers = tuple(
            # Near zero at first: the scheme as it is.
            Affine(
                sizes[i], sizes[i + 1], with_time=True, gain=0.01 if i == depth else 1.0, key=key
            )
            for i, key in enumerate(keys)
        )

    def __call__(
        self, h: Time, y: Float[Array, "*batch size"], rate: Float[Array, "*batch size"]
    ) -> Float[Array, "*batch size"]:
        x = jnp.concatenate([y, rate], axis=-1)
        for layer in self.layers[:-1]:
            x = jnp.tanh(layer(x, h))
        return self.layers[-1](x, h)


class Hypersolver(diffrax.AbstractSolver):
    r"""$y_1 = \Psi_h(y_0) + h^{p+1} g_\omega(h, y_0, f(t_0, y_0))$, a scheme $\Psi$ of order $p$
    with a learnt correction.

    For solves with constant steps of an `ODETerm`; it has no error estimate. Between the ends of
    a step values are interpolated linearly.

    Args:
        solver: a diffrax solver, $\Psi$; one that needs no state from step to step, for example
            `diffrax.Euler()` or `diffrax.Heun()`.
        correction: $g_\omega$, for example a [`ndekit.deploy.Correction`][].

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        solver = nk.deploy.Hypersolver(
            diffrax.Heun(), nk.deploy.Correction(2, width=8, key=jr.key(0))
        )
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), solver, 0.0, 1.0, 0.25, jnp.ones(2)
        )
        ```

    Reference: Poli et al., "Hypersolvers: toward fast continuous-depth models", NeurIPS 2020.
    """

    solver: diffrax.AbstractSolver
    correction: Callable

    term_structure: ClassVar = diffrax.ODETerm
    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation

    def order(self, terms: Any) -> int | None:
        return self.solver.order(terms)

    def func(self, terms: Any, t0: Time, y0: State, args: Args) -> Any:
        return self.solver.func(terms, t0, y0, args)

    def init(self, terms: Any, t0: Time, t1: Time, y0: State, args: Args) -> None:
        return None

    def step(
        self,
        terms: Any,
        t0: Time,
        t1: Time,
        y0: State,
        args: Args,
        solver_state: None,
        made_jump: Any,
    ) -> tuple:
        y1, h = _stepped(self.solver, terms, t0, t1, y0, args), t1 - t0
        rate = terms.vf(t0, y0, args)
        order = self.order(terms)
        assert order is not None
        more = self.correction(h, y0, rate)
        y1 = jax.tree.map(lambda y, g: y + jnp.asarray(h ** (order + 1), y.dtype) * g, y1, more)
        return y1, None, dict(y0=y0, y1=y1), None, RESULTS.successful


def _stepped(
    solver: diffrax.AbstractSolver, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any
) -> PyTree:
    """One step without its correction, made as if it were the first."""
    state = solver.init(terms, t0, t1, y0, args)
    return solver.step(terms, t0, t1, y0, args, state, made_jump=False)[0]


def distill(
    ode: NeuralODE,
    y0: State,
    *,
    solver: diffrax.AbstractSolver = diffrax.Heun(),
    num_steps: int,
    correction: Callable,
    key: Key[Array, ""] | UInt[Array, "2"],
    num_updates: int = 1000,
    optimizer: optax.GradientTransformation | None = None,
    **options: Any,
) -> tuple[NeuralODE, FitResult]:
    r"""Learn the correction of a fixed-step scheme from the accurate trajectories of a trained ODE,
    whose field stays as it is.

    The target at each of the $n$ step starts is the residual
    $[y(t + h) - \Psi_h(y(t))] / h^{p+1}$, the loss its mean squared distance from $g_\omega$.

    Args:
        ode: a trained [`ndekit.models.NeuralODE`][]; its tolerances should be finer than the error
            that is aimed at.
        y0: first states like those of use: one batched state, if the field takes one.
        solver, correction: of the [`ndekit.deploy.Hypersolver`][].
        num_steps: $n$, equal steps from `t0` to `t1`; at least 1.
        key: for the training loop.
        num_updates, optimizer: of the training; by default Adam, rate 1e-3 with cosine decay.
        options: more for [`ndekit.train.fit`][].

    Returns:
        The model with the hypersolver and `num_steps` steps, and the record of its training.

    Raises:
        ValueError: if `num_steps` or `num_updates` is no whole number from 1.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        ode = nk.models.NeuralODE(nk.fields.MLP(2, width=16, depth=1, key=jr.key(0)))
        fast, record = nk.deploy.distill(
            ode, jnp.ones((8, 2)), num_steps=2, num_updates=20, key=jr.key(2), progress=False,
            correction=nk.deploy.Correction(2, width=16, key=jr.key(1)),
        )
        ```
    """
    counts(num_steps=num_steps, num_updates=num_updates)
    starts = _residuals(dataclasses.replace(ode, costs={}), y0, solver, num_steps)
    h = (ode.t1 - ode.t0) / num_steps

    def loss_fn(correction: Any, batch: Any, step: Array, *, key: Array) -> tuple:
        y, rate, residual = batch
        squares = jax.tree.map(
            lambda a, b: jnp.mean((a - b) ** 2), correction(h, y, rate), residual
        )
        return jnp.mean(jnp.stack(jax.tree.leaves(squares))), {}

    if optimizer is None:
        optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, num_updates))
    batch = jax.device_get(starts)
    result = fit(
        correction, loss_fn, lambda step: batch, optimizer=optimizer, num_updates=num_updates,
        key=key, **options,
    )  # fmt: skip
    return with_fixed_steps(ode, Hypersolver(solver, result.model), num_steps), result


@eqx.filter_jit
def _residuals(
    ode: NeuralODE, y0: State, solver: diffrax.AbstractSolver, num_steps: int
) -> tuple[PyTree, PyTree, PyTree]:
    """States, rates and residuals at the start of each step, stacked on a new first axis."""
    term: Any = diffrax.ODETerm(ode.field)  # pyright: ignore[reportArgumentType]
    ts = jnp.linspace(ode.t0, ode.t1, num_steps + 1)
    ys = ode(y0, ts=ts).ys
    order = solver.order(term)
    assert order is not None

    def of_step(t0: Array, t1: Array, start: State, end: State) -> tuple:
        y1 = _stepped(solver, term, t0, t1, start, None)
        power = (t1 - t0) ** (order + 1)
        left = jax.tree.map(lambda a, b: (a - b) / power.astype(a.dtype), end, y1)
        return start, term.vf(t0, start, None), left

    first, last = (jax.tree.map(lambda y, s=s: y[s], ys) for s in (slice(-1), slice(1, None)))
    return jax.vmap(of_step)(ts[:-1], ts[1:], first, last)
