"""Fields that hypothesis makes up: compiled solves of them, and what their solutions are."""

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
SOLVERS = {
    "Tsit5": diffrax.Tsit5(),
    "Dopri5": diffrax.Dopri5(),
    "Bosh3": diffrax.Bosh3(),
    "Heun": diffrax.Heun(),
}
# The tightest tolerance, as a power of ten, that stays clear of `MAX_STEPS`.
TIGHTEST = {"Tsit5": -10.0, "Dopri5": -10.0, "Bosh3": -6.0}
PLACES = (0.1, 0.2, 0.3)
COSTS = {"error": nk.EveryStep(nk.StepError(), "max")}


class Setting(NamedTuple):
    """Which compiled solve, and its tolerance: from 1e-2 (`tightness` 0) to the tightest (1)."""

    solver: str
    dtype: str
    tightness: float

    @property
    def rtol(self):
        tightest = -5.0 if self.dtype == "float32" else TIGHTEST[self.solver]
        return 10 ** (-2 + self.tightness * (tightest + 2))

    @property
    def tolerance(self):
        """With the rounding of one step, which counts in float32."""
        return self.rtol + 4 * float(np.finfo(self.dtype).eps)

    def rounded(self, tree):
        """The numbers that the solve sees, in float64."""
        return jax.tree.map(lambda x: np.asarray(x, self.dtype).astype(np.float64)[()], tree)


# The fields.


def cubic(t, y, args):
    """rate (A y + B y y + C y y y)."""
    squares = jnp.einsum("ijk,j,k->i", args["b"], y, y)
    cubes = jnp.einsum("ijkl,j,k,l->i", args["c"], y, y, y)
    return args["rate"] * (args["a"] @ y + squares + cubes)


def lane_field(t, y, args):
    """a y + b y^2 - c sqrt(y): grows for ever, or burns down to where the root is NaN."""
    return args["a"] * y + args["b"] * y**2 - args["c"] * jnp.sqrt(y)


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
        lambda np, t, y: 1 / (1 - t) ** 2, lambda t, y0: y0 + t / (1 - t), lambda y0: 1.0, False
    ),
    # Finite until t = 1, with an infinite slope there.
    "logarithm": Ending(
        lambda np, t, y: -np.log(1 - t), lambda t, y0: y0 + (1 - t) * np.log(1 - t) + t,
        lambda y0: 1.0, False,
    ),
}  # fmt: skip
ENDINGS = list(ENDING)
GROWTH = len(ENDING)  # y' = y


def scalar(t, y, args):
    """The ending field `index`, or growth, with `span` as the unit of time."""
    branches = [functools.partial(ending.field, jnp) for ending in ENDING.values()]
    branches.append(lambda t, y: y)
    return args["span"] * lax.switch(args["index"], branches, args["span"] * t, y)


# Solves.


class Solved(NamedTuple):
    """A solve, and the gradient of the sum of its last row by y0."""

    sol: Any
    gradient: np.ndarray
    successful: bool  # in all lanes

    @property
    def y1(self):
        return np.asarray(self.sol.ys[-1], np.float64)

    @property
    def num_steps(self):
        return int(self.sol.stats["num_steps"])

    @property
    def num_accepted(self):
        return int(self.sol.stats["num_accepted_steps"])

    @property
    def rows(self):
        """Times and values up to where the solve came."""
        ts, ys = np.asarray(self.sol.ts, np.float64), np.asarray(self.sol.ys, np.float64)
        reached = np.isfinite(ts)
        return ts[reached], ys[reached]


@functools.cache
def _compiled(field, solver, dtype, batched, unit):
    """One program for all numbers. `dtype` is part of the key: x64 is on or off while it runs."""

    # Made here, so that nothing about times is traced: a check of them at run time is a callback,
    # and keeps the program out of the compile cache.
    saveat = diffrax.SaveAt(t1=True, ts=np.asarray(PLACES, dtype) if unit else None)

    def run(times, y0, args, rtol):
        t0, t1 = (0.0, 1.0) if unit else times

        def total(y0):
            sol = nk.diffeqsolve(
                diffrax.ODETerm(field), SOLVERS[solver], t0, t1, None, y0, args, throw=False,
                stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol), saveat=saveat,
                max_steps=MAX_STEPS, costs=None if field is cubic else COSTS,
            )  # fmt: skip
            return jnp.sum(sol.ys[-1]), sol

        gradient, sol = jax.grad(total, has_aux=True)(y0)
        return sol, gradient

    return jax.jit(jax.vmap(run, in_axes=(None, 0, 0, None)) if batched else run)


def solve(field, setting, y0, args, times=None, *, rtol=None, batched=False):
    """Solve in the setting's dtype, from 0 to 1 with rows at `PLACES`, or between two `times`."""
    unit = times is None
    rtol = setting.rtol if rtol is None else rtol
    with jax.enable_x64(setting.dtype == "float64"):
        run = _compiled(field, setting.solver, setting.dtype, batched, unit)
        typed = lambda x: jnp.asarray(x) if isinstance(x, int) else jnp.asarray(x, setting.dtype)
        sol, gradient = run(*jax.tree.map(typed, (times, y0, args, rtol)))
        successful = bool(jnp.all(sol.result == diffrax.RESULTS.successful))
        return Solved(sol, np.asarray(gradient, np.float64), successful)


# Solutions.


class Truth(NamedTuple):
    """Where a solve ends, and how far an error of one tolerance in any one step is carried."""

    y1: np.ndarray
    gradient: np.ndarray
    spread: float
    stiffness: float = 0.0  # the field's slope times the span: an explicit solver's least work


def _truth(states, flows):
    """From the states at some times, and the derivative of each by the one before."""
    flow, spread = np.eye(3), 0.0
    for state, last in zip(states[::-1], [*flows[::-1], None], strict=True):
        scale = np.sqrt(3) * (1 + np.max(np.abs(state)))
        spread = max(spread, np.linalg.norm(flow, 2) * scale)
        flow = flow if last is None else flow @ last
    return Truth(states[-1], flow.T @ np.ones(3), spread)


def linear_truth(a, span, y0, number=32):
    flow = scipy.linalg.expm(a * span / number)
    states = [scipy.linalg.expm(a * s) @ y0 for s in np.linspace(0, span, number + 1)]
    return _truth(states, [flow] * number)


def cubic_truth(args, span, y0, number=16, top=1e6):
    """For `rate` 1: the truth, or the time at which y outgrows `top`."""
    a, b, c = args["a"], args["b"], args["c"]

    def slope(y):
        cy, twice = c @ y, np.swapaxes(c, 1, 2) @ y
        quadratic = b @ y + np.swapaxes(b, 1, 2) @ y
        return a + quadratic + cy @ y + twice @ y + np.swapaxes(cy, 1, 2) @ y

    def rates(t, state):
        y, flow = state[:3], state[3:].reshape(3, 3)
        return np.concatenate([(a + b @ y + c @ y @ y) @ y, (slope(y) @ flow).ravel()])

    escape = lambda t, state: np.max(np.abs(state[:3])) - top
    escape.terminal = True
    states, flows, ts = [y0], [], np.linspace(0, span, number + 1)
    for t0, t1 in zip(ts[:-1], ts[1:], strict=True):
        start = np.concatenate([states[-1], np.eye(3).ravel()])
        sol = scipy.integrate.solve_ivp(
            rates, (t0, t1), start, "DOP853", events=escape, rtol=1e-11, atol=1e-13
        )
        assert sol.success, sol.message
        if sol.status == 1:
            return float(sol.t[-1])
        states.append(sol.y[:3, -1])
        flows.append(sol.y[3:, -1].reshape(3, 3))
    stiffness = span * max(np.linalg.norm(slope(y), 2) for y in states)
    return _truth(states, flows)._replace(stiffness=stiffness)


def ending_truth(name, t1, y0):
    field, exact, _, autonomous = ENDING[name]
    ts = np.linspace(0, t1, 33)
    states = exact(ts, y0)
    # Of an autonomous scalar field dy(t1) / dy(t) is the quotient of its rates.
    rates = field(np, ts, states) if autonomous else np.ones(33)
    carried = rates[-1] / rates
    return Truth(states[-1], carried[0], np.max(carried * (1 + np.abs(states))))
