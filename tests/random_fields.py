"""Fields that hypothesis makes up, compiled solves of them, and what truth allows."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
import scipy.linalg
from jax import lax

import ndekit as nk

MAX_STEPS = 2000
DTYPES = {"float32": np.float32, "float64": np.float64}
SOLVERS = {"Tsit5": diffrax.Tsit5(), "Dopri5": diffrax.Dopri5(), "Bosh3": diffrax.Bosh3()}
# The tightest tolerance that stays clear of rounding, and of `MAX_STEPS`.
TIGHTEST = {"Tsit5": -10.0, "Dopri5": -10.0, "Bosh3": -6.0}
COSTS = {"error": nk.EveryStep(nk.StepError(), "max")}


class Setting(NamedTuple):
    """Which compiled solve, and its tolerance between 1e-2 (`tightness` 0) and the tightest."""

    solver: str
    dtype: str
    tightness: float

    @property
    def rtol(self):
        lowest = -5.0 if self.dtype == "float32" else TIGHTEST[self.solver]
        return 10 ** (-2 + self.tightness * (lowest + 2))

    @property
    def eps(self):
        return float(np.finfo(self.dtype).eps)


def polynomial(t, y, args):
    """rate * (A y + B y y + C y y y)."""
    squares = jnp.einsum("ijk,j,k->i", args["b"], y, y)
    return args["rate"] * (args["a"] @ y + squares + jnp.einsum("ijkl,j,k,l", args["c"], y, y, y))


class Ending(NamedTuple):
    """A scalar field whose solution ends, by a pole or because the field is defined no further.

    y(t) from y(0) = y0 and the time at which it ends, in NumPy. `field` takes its module.
    """

    field: Callable
    exact: Callable
    end: Callable
    autonomous: bool = True


ENDING = {
    # Arrives at 0, below which there is no root.
    "root": Ending(
        lambda np, t, y: -np.sqrt(y), lambda t, y0: (np.sqrt(y0) - t / 2) ** 2,
        lambda y0: 2 * np.sqrt(y0),
    ),
    "square": Ending(
        lambda np, t, y: y**2, lambda t, y0: y0 / (1 - y0 * t), lambda y0: 1 / y0
    ),
    "cube": Ending(
        lambda np, t, y: y**3, lambda t, y0: y0 / np.sqrt(1 - 2 * y0**2 * t),
        lambda y0: 0.5 / y0**2,
    ),
    "exponential": Ending(
        lambda np, t, y: np.exp(y), lambda t, y0: -np.log(np.exp(-y0) - t),
        lambda y0: np.exp(-y0),
    ),
    # A pole that only the time knows.
    "pole": Ending(
        lambda np, t, y: 1 / (1 - t) ** 2, lambda t, y0: y0 + t / (1 - t), lambda y0: 1.0,
        False,
    ),
    # Finite until t = 1, with an infinite slope there.
    "logarithm": Ending(
        lambda np, t, y: -np.log(1 - t), lambda t, y0: y0 + (1 - t) * np.log(1 - t) + t,
        lambda y0: 1.0, False,
    ),
}  # fmt: skip


def ending(t, y, index):
    branches = [functools.partial(field.field, jnp) for field in ENDING.values()]
    return lax.switch(index, branches, t, y)


def burning(t, y, args):
    """g y + p y^2 - q sqrt(y): grows for ever, or burns down, or neither for a while."""
    return args["g"] * y + args["p"] * y**2 - args["q"] * jnp.sqrt(y)


class Solved(NamedTuple):
    """A solve and the gradient of the sum of its last state, in NumPy."""

    sol: Any
    gradient: Any

    @property
    def successful(self):
        return bool(np.all(np.asarray(self.sol.result == diffrax.RESULTS.successful)))

    @property
    def y1(self):
        return np.asarray(self.sol.ys[-1], np.float64)


@functools.cache
def _compiled(field, solver, dtype, batched):
    costs = None if field is polynomial else COSTS

    def run(t0, t1, ts, y0, args, rtol):
        def total(y0):
            sol = nk.diffeqsolve(
                diffrax.ODETerm(field), SOLVERS[solver], t0, t1, None, y0, args, throw=False,
                stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol), costs=costs,
                saveat=diffrax.SaveAt(t1=True, ts=ts), max_steps=MAX_STEPS,
            )  # fmt: skip
            return jnp.sum(sol.ys[-1]), sol

        gradient, sol = jax.grad(total, has_aux=True)(y0)
        return sol, gradient

    return jax.jit(jax.vmap(run, in_axes=(0, 0, 0, 0, 0, None)) if batched else run)


def solve(field, setting, t0, t1, y0, args, *, places=(0.25, 0.5, 0.9), batched=False):
    """Solve in the setting's dtype; `ts` stand at `places` of the span."""
    typed = lambda x: jnp.asarray(x, DTYPES[setting.dtype] if np.asarray(x).dtype != int else int)
    t0, t1 = (np.asarray(t, setting.dtype) for t in (t0, t1))
    ts = t0[..., None] + (t1 - t0)[..., None] * np.asarray(places, setting.dtype)
    run = _compiled(field, setting.solver, setting.dtype, batched)
    operands = jax.tree.map(typed, (t0, t1, ts, y0, args, setting.rtol))
    sol, gradient = run(*operands)
    return Solved(sol, np.asarray(gradient, np.float64))


class Truth(NamedTuple):
    """Where a solve ends, and how far an error of one tolerance in any one step is carried."""

    y1: np.ndarray
    gradient: np.ndarray
    spread: float
    gradient_spread: float
    largest: float


def ending_truth(name, t1, y0):
    field, exact, _, autonomous = ENDING[name]
    ts = np.linspace(0, t1, 33)
    states = exact(ts, y0)
    # Of an autonomous scalar field dy(t1) / dy(t) is the quotient of its rates.
    rates = field(np, ts, states) if autonomous else np.ones(33)
    carries, scales = rates[-1] / rates, 1 + np.abs(states)
    return Truth(states[-1], carries[0], np.max(carries * scales), carries[0], np.max(scales))


def _truth(states, flows, carries):
    """From states and their derivatives by y0 at some times, and those of the end by them."""
    norm = lambda m: np.linalg.norm(m, 2)
    scales = np.sqrt(3) * (1 + np.max(np.abs(states), axis=1))
    return Truth(
        y1=states[-1],
        gradient=flows[-1].T @ np.ones(3),
        spread=max(norm(c) * scale for c, scale in zip(carries, scales, strict=True)),
        gradient_spread=max(norm(c) * norm(f) for c, f in zip(carries, flows, strict=True)),
        largest=float(np.max(np.abs(states))),
    )


def linear_truth(a, span, y0):
    flows = [scipy.linalg.expm(a * s) for s in np.linspace(0, span, 33)]
    return _truth(np.stack([flow @ y0 for flow in flows]), flows, flows[::-1])


def polynomial_truth(args, span, y0, top=1e6):
    """The truth, or the time at which y outgrows `top`."""
    a, b, c = args["a"], args["b"], args["c"]
    quadratic = b + b.transpose(0, 2, 1)
    cubic = c + c.transpose(0, 2, 1, 3) + c.transpose(0, 3, 2, 1)

    def rates(s, state):
        y, flow = state[:3], state[3:].reshape(3, 3)
        twice = np.einsum("ijk,j,k->i", b, y, y) + np.einsum("ijkl,j,k,l->i", c, y, y, y)
        slope = a + quadratic @ y + cubic @ y @ y
        return span * np.concatenate([a @ y + twice, (slope @ flow).ravel()])

    escape = lambda s, state: np.max(np.abs(state[:3])) - top
    escape.terminal = True
    start = np.concatenate([y0, np.eye(3).ravel()])
    sol = scipy.integrate.solve_ivp(
        rates, (0.0, 1.0), start, "DOP853", np.linspace(0, 1, 33), events=escape, rtol=1e-11,
        atol=1e-13,
    )  # fmt: skip
    assert sol.success, sol.message
    if sol.status == 1:
        return float(sol.t_events[0][0])
    flows = sol.y[3:].T.reshape(-1, 3, 3)
    carries = [np.linalg.solve(flow.T, flows[-1].T).T for flow in flows]
    return _truth(sol.y[:3].T, flows, carries)
