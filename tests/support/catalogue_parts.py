"""What the calls of the catalogue are made of: fields, terms, and a user's own classes."""

from typing import ClassVar

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optimistix as optx
from diffrax import ControlTerm, MultiTerm, ODETerm

MAX_STEPS = 256


def pendulum(t, y, args):
    return jnp.stack([y[1], -args * jnp.sin(y[0]) + 0.3 * jnp.cos(2 * t)])


def relax(t, y, args):
    """For any PyTree of leaves of shape [2], each in its own precision."""
    return jax.tree.map(lambda x: -args.astype(x.dtype) * x, y)


def caller(diffeqsolve, push=None, args=4.0):
    """`diffeqsolve` with a default for every argument; `push` is added to each leaf of `y0`."""

    def solve(terms=None, solver=None, t0=0.0, t1=1.0, dt0=0.1, y0=None, args=args, **options):
        terms = ODETerm(pendulum) if terms is None else terms
        solver = diffrax.Tsit5() if solver is None else solver
        y0 = jnp.array([0.7, -0.2]) if y0 is None else y0
        if push is not None:
            y0 = jax.tree.map(lambda x: x + push.astype(x.dtype), y0)
        args = jnp.asarray(args) if isinstance(args, float) else args
        options = {"max_steps": MAX_STEPS} | options
        return diffeqsolve(terms, solver, t0, t1, dt0, y0, args, **options)

    return solve


# Loose enough that every error estimate stands well above rounding.


def pid(**options):
    return diffrax.PIDController(**({"rtol": 1e-4, "atol": 1e-6} | options))


def chord():
    return diffrax.with_stepsize_controller_tols(optx.Chord)()


def newton():
    return optx.Newton(1e-9, 1e-9)


def places(start=0.0, end=1.0):
    return start + (end - start) * np.array([0.0, 0.03, 0.2, 0.2, 0.55, 0.9, 1.0])


# Terms.


def two_terms():
    """One for each half of a state `(place, speed)`."""
    place = ODETerm(lambda t, speed, args: speed)
    return place, ODETerm(lambda t, place, args: -args * jnp.sin(place) + 0.1 * t)


def halves():
    return jnp.array([0.7, 0.1]), jnp.array([-0.2, 0.3])


def slow_and_fast():
    """The explicit part and the implicit part for an IMEX solver."""
    swing = ODETerm(lambda t, y, args: jnp.stack([y[1], -args * jnp.sin(y[0])]))
    return MultiTerm(swing, ODETerm(lambda t, y, args: -5.0 * y))


def control(kind):
    times = jnp.array([0.0, 0.3, 0.5, 1.0])
    values = jnp.array([[0.0, 0.0], [0.4, -0.1], [0.3, 0.5], [0.9, 0.2]])
    if kind == "linear":
        return diffrax.LinearInterpolation(times, values)
    return diffrax.CubicInterpolation(times, diffrax.backward_hermite_coefficients(times, values))


def control_term(kind):
    matrix = lambda t, y, args: jnp.stack([jnp.stack([y[0], args]), jnp.stack([-args, y[1]])])
    return ControlTerm(matrix, control(kind))


class Doubled(diffrax.AbstractTerm):
    """A user's own term: the same field as an `ODETerm`, in a time twice as fast."""

    field: ODETerm

    def vf(self, t, y, args):
        return self.field.vf(t, y, args)

    def contr(self, t0, t1, **kwargs):
        return 2 * (t1 - t0)

    def prod(self, vf, control):
        return jax.tree.map(lambda x: control * x, vf)


def noisy(diffusion=None, levy_area=diffrax.SpaceTimeLevyArea, dims=()):
    path = diffrax.VirtualBrownianTree(0.0, 1.0, 0.05, dims, jr.key(3), levy_area)
    diffusion = additive if diffusion is None else diffusion
    return MultiTerm(ODETerm(pendulum), ControlTerm(diffusion, path))


def matrix_noise():
    return noisy(lambda t, y, args: jnp.outer(y, jnp.cos(y)), diffrax.BrownianIncrement, (2,))


def langevin():
    path = diffrax.VirtualBrownianTree(0.0, 1.0, 0.05, (2,), jr.key(3), diffrax.SpaceTimeLevyArea)
    friction, mass = jnp.array(0.7), jnp.array(1.3)
    drift = diffrax.UnderdampedLangevinDriftTerm(friction, mass, lambda x, args: 2 * x)
    return MultiTerm(drift, diffrax.UnderdampedLangevinDiffusionTerm(friction, mass, path))


def additive(t, y, args):
    return jnp.array([0.1, 0.3])


def multiplicative(t, y, args):
    return 0.3 * y


# A user's own solver and controller.


class Extrapolated(diffrax.AbstractAdaptiveSolver):
    """Euler's step once and in two halves, extrapolated; counts its steps in the solver state."""

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation

    def order(self, terms):
        return 2

    def init(self, terms, t0, t1, y0, args):
        return jnp.array(0)

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        def euler(start, end, y):
            change = terms.vf_prod(start, y, args, terms.contr(start, end))
            return jax.tree.map(jnp.add, y, change)

        half = t0 + 0.5 * (t1 - t0)
        whole, twice = euler(t0, t1, y0), euler(half, t1, euler(t0, half, y0))
        y_error = jax.tree.map(jnp.subtract, twice, whole)
        y1 = jax.tree.map(jnp.add, twice, y_error)
        return y1, y_error, dict(y0=y0, y1=y1), solver_state + 1, diffrax.RESULTS.successful


class Kutta3(diffrax.AbstractERK):
    """A user's own tableau: Kutta's method of third order, with the midpoint rule embedded."""

    tableau: ClassVar = diffrax.ButcherTableau(
        a_lower=(np.array([0.5]), np.array([-1.0, 2.0])),
        b_sol=np.array([1 / 6, 2 / 3, 1 / 6]),
        b_error=np.array([1 / 6, -1 / 3, 1 / 6]),
        c=np.array([0.5, 1.0]),
    )
    interpolation_cls: ClassVar = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

    def order(self, terms):
        return 3


class Growing(diffrax.AbstractStepSizeController):
    """Steps that grow by a factor, and are rejected and halved where they are too long."""

    factor: float = 1.4
    longest: float = 0.2

    def wrap(self, direction):
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        return t0 + dt0, dt0

    def adapt_step_size(self, t0, t1, y0, y1, args, y_error, error_order, controller_state):
        keep = t1 - t0 <= self.longest
        start = jnp.where(keep, t1, t0)
        length = (t1 - t0) * jnp.where(keep, self.factor, 0.5)
        return keep, start, start + length, False, length, diffrax.RESULTS.successful


def largest(y):
    """A norm of one's own."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(y)]))


# Functions for `SaveAt` and `Event`.


def energy(t, y, args):
    return {"energy": 0.5 * y[1] ** 2 - args * jnp.cos(y[0]), "phase": (t * y[0],)}


def at_half(t, y, args, **kwargs):
    return y[0] - 0.5


def speed_below(t, y, args, **kwargs):
    return y[1] < -0.9


def far_away(t, y, args, **kwargs):
    return y[0] - 50.0


# Calls with more to them.


def clip(controller, **options):
    options = {k: jnp.asarray(v) if isinstance(v, list) else v for k, v in options.items()}
    return diffrax.ClipStepSizeController(controller, **options)


def jumping(solve, controller, **options):
    """The field jumps, the solver keeps its last stage (first same as last), and says so."""
    field = lambda t, y, args: jnp.where(t < 0.5, -args * y, args * jnp.cos(t) + 0.5 * y)
    saveat = diffrax.SaveAt(steps=True, solver_state=True, controller_state=True, made_jump=True)
    options = {"dt0": 0.3} | options
    return solve(ODETerm(field), stepsize_controller=controller, saveat=saveat, **options)


def stationary(solve, **options):
    """Comes to rest where `y**3 == args`."""
    field = ODETerm(lambda t, y, args: args - y**3)
    return solve(field, t1=60.0, stepsize_controller=pid(), **options)


def two_parts(solve, **options):
    """The second part goes on with the states of the first."""
    keep = dict(solver_state=True, controller_state=True, made_jump=True)
    saveat = diffrax.SaveAt(t1=True, **keep)
    first = solve(t1=0.5, saveat=saveat, **options)
    states = {name: getattr(first, name) for name in keep}
    return first, solve(t0=0.5, dt0=0.15, y0=first.ys[-1], saveat=saveat, **states, **options)


def finite(x):
    return jnp.where(jnp.isfinite(x), x, 0.0)


def loss_of(sol):
    """A number that feels everything saved, times of events and dense output included."""
    saved = (sol.ts, sol.ys)
    if sol.interpolation is not None:
        saved = (sol.evaluate(0.37), sol.derivative(0.61))
    leaves = [finite(x).ravel() for x in jax.tree.leaves(saved)]
    return sum(jnp.sum(x * jnp.cos(jnp.arange(x.size))) for x in leaves)
