"""The problems that are timed, in float32 unless they are stiff."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import lineax as lx
import numpy as np
import optimistix as optx
from jax import lax
from targets import LARGE

import ndekit as nk

MAX_STEPS = 4096


class Case(NamedTuple):
    """One solve, or `lanes` of them under `vmap`; the gradient is that by `parameters`."""

    name: str
    field: Callable | None  # `None` where a floor of field evaluations says nothing
    start: Callable[[Any, Any], tuple[Any, Any]]  # (parameters, given) -> (terms, y0)
    given: Any  # what each lane has of its own
    parameters: Any
    t1: float
    tolerance: float
    rounds: int
    atol: float | None = None
    lanes: int | None = None
    parameters_per_lane: bool = False
    num_saves: int | None = None
    dt0: float | None = 0.01
    solver: diffrax.AbstractSolver = diffrax.Tsit5()
    grid: Any = None  # steps go along it, or are adaptive
    num_steps: int | None = None  # of one size, or adaptive
    for_diffrax: Callable = lambda terms: terms  # what diffrax is given instead
    # (parameters, given) -> y(t1), as a user would write it: a scan that knows its length
    by_hand: Callable | None = None

    @property
    def dtype(self) -> Any:
        return jax.tree.leaves(self.given)[0].dtype

    def over_lanes(self, one: Callable) -> Callable:
        """`one(parameters, given)` in every lane."""
        if self.lanes is None:
            return one
        return jax.vmap(one, in_axes=(0 if self.parameters_per_lane else None, 0))

    @property
    def controller(self) -> diffrax.AbstractStepSizeController:
        if self.grid is not None:
            return diffrax.StepTo(self.grid)
        if self.num_steps is not None:
            return diffrax.ConstantStepSize()
        atol = self.tolerance if self.atol is None else self.atol
        return diffrax.PIDController(rtol=self.tolerance, atol=atol)

    @property
    def saveat(self) -> diffrax.SaveAt:
        if self.num_saves is None:
            return diffrax.SaveAt(t1=True)
        return diffrax.SaveAt(ts=jnp.linspace(0.0, self.t1, self.num_saves))

    @property
    def state_bytes(self) -> int:
        """Of the states of all lanes."""
        y0 = jax.eval_shape(self.over_lanes(lambda *given: self.start(*given)[1]), *self.arguments)
        return sum(y.size * y.dtype.itemsize for y in jax.tree.leaves(y0))

    @property
    def arguments(self) -> tuple[Any, Any]:
        return self.parameters, self.given

    @property
    def record_of_times_bytes(self) -> int:
        """What the time of every step takes, in all lanes."""
        return MAX_STEPS * (self.lanes or 1) * self.dtype.itemsize


def from_field(field: Callable) -> dict[str, Any]:
    """An ODE whose lanes differ by their initial value."""
    term = lambda: diffrax.ODETerm(lambda t, y, args: field(t, y, args))
    return dict(field=field, start=lambda parameters, y0: (term(), y0))


def lorenz(t, y, parameters):
    rho = parameters[0]
    return jnp.stack(
        [10.0 * (y[1] - y[0]), rho * y[0] - y[1] - y[0] * y[2], y[0] * y[1] - 8 / 3 * y[2]]
    )


def van_der_pol(t, y, parameters):
    return jnp.stack([y[1], parameters * (1 - y[0] ** 2) * y[1] - y[0]])


def robertson(t, y, parameters):
    first, second, third = parameters
    decay, growth = -first * y[0] + third * y[1] * y[2], second * y[1] ** 2
    return jnp.stack([decay, -decay - growth, growth])


def mlp(t, y, parameters):
    *hidden, (weights, bias) = parameters
    for inner_weights, inner_bias in hidden:
        y = jnp.tanh(y @ inner_weights + inner_bias)
    return y @ weights + bias


def layers(*sizes):
    keys = jr.split(jr.key(0), len(sizes) - 1)
    return [
        (jr.normal(key, (inputs, outputs)) / np.sqrt(inputs), jnp.zeros(outputs))
        for key, (inputs, outputs) in zip(keys, itertools.pairwise(sizes), strict=True)
    ]


def lorenz_case(name: str, lanes: int | None, rounds: int) -> Case:
    shape = () if lanes is None else (lanes,)
    rho = jnp.array(28.0) if lanes is None else jnp.linspace(20.0, 30.0, lanes)
    y0 = jnp.broadcast_to(jnp.array([1.0, 0.0, 0.0]), (*shape, 3))
    return Case(
        name, given=jnp.array(y0), parameters=rho[..., None], t1=1.0, tolerance=1e-6,
        rounds=rounds, lanes=lanes, parameters_per_lane=lanes is not None,
        **from_field(lorenz),
    )  # fmt: skip


def small_mlp_case(name: str, lanes: int | None, num_saves: int | None = None) -> Case:
    y0 = jnp.array([1.0, 0.5]) if lanes is None else jr.normal(jr.key(1), (lanes, 2))
    return Case(
        name, given=y0, parameters=layers(2, 64, 64, 2), t1=20.0 if lanes is None else 10.0,
        tolerance=1e-6, rounds=30, lanes=lanes, num_saves=num_saves,
        **from_field(mlp),
    )  # fmt: skip


def large_mlp_case(name: str) -> Case:
    return Case(
        name, given=jr.normal(jr.key(1), (512, 784)), parameters=layers(784, 100, 784), t1=1.0,
        tolerance=1e-4, rounds=15, **from_field(mlp),
    )  # fmt: skip


# diffrax 0.7.2's own default for these solvers takes hundreds of times more steps.
KVAERNO = diffrax.Kvaerno5(root_finder=diffrax.with_stepsize_controller_tols(optx.Chord)())


def stiff_case(name: str, field: Callable, y0: Any, parameters: Any, t1: float) -> Case:
    """In float64: a float32 number near t = 800 cannot tell two times of van der Pol's layers."""
    return Case(
        name, given=jnp.array(y0), parameters=jnp.array(parameters), t1=t1, tolerance=1e-6,
        atol=1e-9, rounds=20, dt0=1e-4, solver=KVAERNO, **from_field(field),
    )  # fmt: skip


# Sizes of the network as in diffrax's own example of a neural CDE.
OBSERVATIONS, CHANNELS, HIDDEN, WIDTH = 100, 3, 8, 128


def cde_case(name: str, on_grid: bool) -> Case:
    """A neural CDE along 32 smooth paths, a Hermite spline through 100 observations of each. Along
    rough ones the number of adaptive steps is chaotic, and two correct programs differ by tenths.
    """
    ts = jnp.linspace(0.0, 1.0, OBSERVATIONS)
    amplitude = jr.normal(jr.key(2), (32, 1, CHANNELS - 1))
    phase = jr.uniform(jr.key(3), (32, 1, 1))
    frequency = jnp.arange(1.0, CHANNELS)
    waves = amplitude * jnp.sin(2 * jnp.pi * (frequency * ts[:, None] + phase))
    xs = jnp.concatenate([jnp.broadcast_to(ts[:, None], (32, OBSERVATIONS, 1)), waves], axis=-1)
    coeffs = jax.vmap(lambda x: diffrax.backward_hermite_coefficients(ts, x))(xs)

    def start(parameters, coeffs):
        path = diffrax.CubicInterpolation(ts, coeffs)
        matrix = lambda t, z, args: jnp.tanh(mlp(t, z, parameters)).reshape(HIDDEN, CHANNELS)
        term = diffrax.ControlTerm(matrix, path)
        return term if on_grid else term.to_ode(), jnp.full(HIDDEN, 0.1)

    def by_hand(parameters, coeffs):
        path = diffrax.CubicInterpolation(ts, coeffs)
        rate = lambda z: jnp.tanh(mlp(0.0, z, parameters)).reshape(HIDDEN, CHANNELS)

        def step(z, dx):
            first = rate(z) @ dx
            return z + 0.5 * (first + rate(z + first) @ dx), None

        increments = jax.vmap(path.evaluate)(ts[:-1], ts[1:])
        return lax.scan(step, jnp.full(HIDDEN, 0.1), increments)[0]

    parameters = layers(HIDDEN, WIDTH, HIDDEN * CHANNELS)
    return Case(
        name, field=None, start=start, given=coeffs, parameters=parameters, t1=1.0,
        tolerance=1e-3, atol=1e-6, rounds=20, lanes=32, dt0=None,
        solver=diffrax.Heun() if on_grid else diffrax.Tsit5(), grid=ts if on_grid else None,
        by_hand=by_hand if on_grid else None,
    )  # fmt: skip


SDE_SIZE = 16


def sde_case(
    name: str,
    num_steps: int | None = None,
    solver: diffrax.AbstractSolver = diffrax.Euler(),
    area: Any = diffrax.BrownianIncrement,
    num_saves: int | None = None,
    saved: str = "ends",
) -> Case:
    """64 paths of a neural SDE with 16 numbers and diagonal noise; drift and diffusion 16-64-16."""
    h = 0.1 if num_steps is None else 1 / num_steps
    drift = lambda y, parameters: mlp(0.0, y, parameters[0])
    noise = lambda y, parameters: 0.1 * jax.nn.sigmoid(mlp(0.0, y, parameters[1]))

    def start(parameters, given):
        y0, key = given
        path = nk.BrownianMotion((SDE_SIZE,), key, area, saved=saved)
        operator = lambda t, y, args: lx.DiagonalLinearOperator(noise(y, parameters))
        drift_term = diffrax.ODETerm(lambda t, y, args: drift(y, parameters))
        return diffrax.MultiTerm(drift_term, diffrax.ControlTerm(operator, path)), y0

    def for_diffrax(terms):
        """diffrax's tree, as finely as its documentation says: half a step, or half the least."""
        resolution = h / 2 if num_steps is not None else 2.0**-12
        motion = terms.terms[1].control
        tree = diffrax.VirtualBrownianTree(0.0, 1.0, resolution, (SDE_SIZE,), motion.key, area)
        return eqx.tree_at(lambda terms: terms.terms[1].control, terms, tree)

    def by_hand(parameters, given):
        y0, key = given

        def step(y, n):
            dw = jnp.sqrt(h) * jr.normal(jr.fold_in(key, n), (SDE_SIZE,))
            return y + h * drift(y, parameters) + noise(y, parameters) * dw, None

        return lax.scan(step, y0, jnp.arange(num_steps))[0]

    y0 = jr.normal(jr.key(2), (64, SDE_SIZE))
    parameters = (layers(SDE_SIZE, 64, SDE_SIZE), layers(SDE_SIZE, 64, SDE_SIZE))
    return Case(
        name, field=None, start=start, given=(y0, jr.split(jr.key(3), 64)), parameters=parameters,
        t1=1.0, tolerance=1e-2, rounds=20 if num_steps != 1000 else 8, lanes=64, dt0=h,
        num_saves=num_saves, solver=solver, num_steps=num_steps, for_diffrax=for_diffrax,
        by_hand=None if num_steps is None else by_hand,
    )  # fmt: skip


# Made when asked for: nothing runs at import.
CASES: dict[str, Callable[[str], Case]] = {
    "lorenz, 4096 lanes": lambda name: lorenz_case(name, 4096, rounds=20),
    "lorenz, 256 lanes": lambda name: lorenz_case(name, 256, rounds=30),
    "lorenz, single": lambda name: lorenz_case(name, None, rounds=30),
    "mlp 2-64-64-2, single": lambda name: small_mlp_case(name, None),
    "mlp 2-64-64-2, 256 lanes": lambda name: small_mlp_case(name, 256),
    "mlp 2-64-64-2, single, 100 saves": lambda name: small_mlp_case(name, None, num_saves=100),
    LARGE: large_mlp_case,
    "robertson, Kvaerno5": lambda name: stiff_case(
        name, robertson, [1.0, 0.0, 0.0], [0.04, 3e7, 1e4], 100.0
    ),
    "van der pol 1000, Kvaerno5": lambda name: stiff_case(
        name, van_der_pol, [2.0, 0.0], 1000.0, 2000.0
    ),
    "neural cde, Heun on the grid": lambda name: cde_case(name, on_grid=True),
    "neural cde, Tsit5 adaptive": lambda name: cde_case(name, on_grid=False),
    "sde, Euler, 50 steps": lambda name: sde_case(name, 50),
    "sde, Euler, 1000 steps": lambda name: sde_case(name, 1000),
    "sde, Heun adaptive": lambda name: sde_case(name, solver=diffrax.Heun()),
    "sde, Heun adaptive, 100 saves": lambda name: sde_case(
        name, solver=diffrax.Heun(), num_saves=100
    ),
    "sde, Heun adaptive, 100 saves on the bridge": lambda name: sde_case(
        name, solver=diffrax.Heun(), num_saves=100, saved="bridge"
    ),
    "sde, SPaRK adaptive": lambda name: sde_case(
        name, solver=diffrax.SPaRK(), area=diffrax.SpaceTimeLevyArea
    ),
}
