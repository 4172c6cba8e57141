"""The calls that fail in diffrax and must fail alike, and those answered otherwise on purpose."""

from collections.abc import Callable
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from diffrax import RESULTS, ControlTerm, Event, MultiTerm, ODETerm, SaveAt
from support.catalogue_parts import (
    chord,
    multiplicative,
    noisy,
    pendulum,
    pid,
    places,
    two_terms,
)

import ndekit as nk

FAILURES = {
    "complex-times": lambda solve: solve(t1=1.0 + 1.0j, dt0=None, stepsize_controller=pid()),
    "complex-ts": lambda solve: solve(saveat=SaveAt(ts=jnp.array([0.5 + 0.5j]))),
    "one-term-for-two": lambda solve: solve(solver=diffrax.SemiImplicitEuler()),
    "two-terms-for-one": lambda solve: solve(two_terms()),
    "no-diffusion": lambda solve: solve(solver=diffrax.ItoMilstein()),
    "no-levy-area": lambda solve: solve(noisy(levy_area=diffrax.BrownianIncrement), diffrax.SRA1()),
    "noise-not-additive": lambda solve: solve(noisy(multiplicative), diffrax.SRA1()),
    "noise-outside-the-tree": lambda solve: solve(noisy(), diffrax.EulerHeun(), t1=1.5),
    "structure-of-the-field": lambda solve: solve(ODETerm(lambda t, y, args: (y, y))),
    "shape-of-the-field": lambda solve: solve(ODETerm(lambda t, y, args: jnp.ones(3))),
    "shape-of-the-field-too-large": lambda solve: solve(
        ODETerm(lambda t, y, args: jnp.ones((2, 2)))
    ),
    "dtype-of-the-field": lambda solve: solve(ODETerm(lambda t, y, args: 1j * y)),
    "no-estimate": lambda solve: solve(solver=diffrax.Euler(), stepsize_controller=pid()),
    "no-first-step": lambda solve: solve(dt0=None),
    "first-step-and-step-to": lambda solve: solve(
        stepsize_controller=diffrax.StepTo(jnp.array([0.0, 1.0]))
    ),
    "step-to-elsewhere": lambda solve: solve(
        dt0=None, stepsize_controller=diffrax.StepTo(jnp.array([0.0, 0.5]))
    ),
    "implicit-without-tolerances": lambda solve: solve(solver=diffrax.Kvaerno3()),
    "dense-without-bound": lambda solve: solve(max_steps=None, saveat=SaveAt(dense=True)),
    "steps-without-bound": lambda solve: solve(max_steps=None, saveat=SaveAt(steps=True)),
    "cut-off": lambda solve: solve(max_steps=4),
    "cut-off-adaptive": lambda solve: solve(max_steps=4, stepsize_controller=pid(rtol=1e-8)),
    "cut-off-jit": lambda solve: jax.jit(lambda y0: solve(y0=y0, max_steps=4).ys)(jnp.ones(2)),
    "cut-off-one-lane": lambda solve: jax.vmap(lambda t1: solve(t1=t1, max_steps=4))(
        jnp.array([0.2, 1.0])
    ),
    "dtmin": lambda solve: solve(
        stepsize_controller=pid(dtmin=0.1, rtol=1e-9, atol=1e-9, force_dtmin=False)
    ),
    "event-of-two-numbers": lambda solve: solve(event=Event(lambda t, y, args, **kwargs: y)),
    "event-of-an-integer": lambda solve: solve(event=Event(lambda t, y, args, **kwargs: 3)),
    "steady-state-without-tolerances": lambda solve: solve(
        event=Event(diffrax.steady_state_event())
    ),
    "event-that-names-no-more": lambda solve: solve(event=Event(lambda t, y, args: y[0])),
    "sde-adaptive-euler": lambda solve: solve(noisy(), diffrax.Euler(), stepsize_controller=pid()),
    "backsolve-steps": lambda solve: solve(
        adjoint=diffrax.BacksolveAdjoint(), saveat=SaveAt(steps=True)
    ),
    "implicit-adjoint-ts": lambda solve: solve(
        adjoint=diffrax.ImplicitAdjoint(), saveat=SaveAt(ts=places())
    ),
}


SLOW_FAILURES = "noise-outside-the-tree cut-off-adaptive cut-off-one-lane dtmin".split()


class Raises(NamedTuple):
    kind: type[Exception]
    message: str


class Difference(NamedTuple):
    """What diffrax gives back and what ndekit does: an exception, or what a test of it says."""

    reason: str
    call: Callable
    theirs: Raises | Callable
    ours: Raises | Callable


def near(number):
    return lambda x: np.isclose(x, number, rtol=1e-9, atol=0.0)


def square(solve, **options):
    """Four steps of Euler's method for `y' = t**2`: with steps h_j at times t_j, sum h_j t_j**2."""
    return solve(ODETerm(lambda t, y, args: t**2), diffrax.Euler(), **options).ys[-1, 0]


def from_start(solve, t0):
    """Two steps of Heun's method for `y' = t**2`, to 0.6 and to 1, none of them judged."""
    controller = pid(rtol=1e9, atol=1e9, factormax=1.0)
    field = ODETerm(lambda t, y, args: jnp.ones_like(y) * t**2)
    return solve(
        field, diffrax.Heun(), t0=t0, dt0=0.5, stepsize_controller=controller
    ).ys[-1, 0]  # fmt: skip


def by_first_step(t0):
    """The derivative by `t0` of its first step, (0.6 - t0) (t0^2 + 0.6^2) / 2."""
    return (0.6 - t0) * t0 - (t0**2 + 0.36) / 2


def early(t, y, args, **around):
    return t < 0.5


def broken():
    return ODETerm(lambda t, y, args: jnp.where(t > 0.5, jnp.nan, -y))


def by_step_ts(solve, place):
    """The same solve with a step that ends at `place`."""
    controller = diffrax.ClipStepSizeController(pid(), step_ts=place[None])
    return solve(dt0=0.3, stepsize_controller=controller).ys[-1, 0]


def counts_by_root_finder(solve):
    """The steps with the default and with the one that both libraries do without a flaw."""
    field = ODETerm(lambda t, y, args: jnp.stack([y[1], 20.0 * (1 - y[0] ** 2) * y[1] - y[0]]))
    solvers = diffrax.Kvaerno3(), diffrax.Kvaerno3(root_finder=chord())
    options = dict(t1=15.0, y0=jnp.array([2.0, 0.0]), stepsize_controller=pid())
    return [int(solve(field, solver, **options).stats["num_steps"]) for solver in solvers]


def reverse_less_forward(solve):
    """Of a solve whose noise remembers nothing: reverse mode less forward mode."""
    path = diffrax.UnsafeBrownianPath((), jr.key(3))
    terms = MultiTerm(ODETerm(pendulum), ControlTerm(multiplicative, path))
    end = lambda args, **how: solve(terms, diffrax.EulerHeun(), args=args, **how).ys[-1, 0]
    forward = jax.jacfwd(lambda args: end(args, adjoint=diffrax.ForwardMode()))
    return jax.grad(end)(jnp.asarray(4.0)) - forward(jnp.asarray(4.0))


def less_forward_mode(solve):
    """Tangents by the default adjoint less those by the one that has nothing else."""
    given = (jnp.array([0.7, -0.2]),), (jnp.array([1.0, -0.5]),)
    along = lambda **how: jax.jvp(lambda y0: solve(y0=y0, **how).ys, *given)[1]
    return along() - along(adjoint=diffrax.ForwardMode())


def past_the_root(solve, rate):
    """A first step that ends where the field is undefined. y = (1 - rate t / 2)**2."""
    field = ODETerm(lambda t, y, args: -args * jnp.sqrt(y))
    controller = pid(rtol=1e-6)
    return solve(
        field, t1=1.5, dt0=1.4, y0=jnp.ones(1), args=rate, stepsize_controller=controller
    ).ys[-1, 0]


def blow_up(solve):
    field = ODETerm(lambda t, y, args: y**2)
    return solve(field, t1=2.0, y0=jnp.ones(1), stepsize_controller=pid(), throw=False)


CONSTANT = "the grid of steps is the controller's, and constant"
AT_ONCE = "what is known to be wrong is said at once"
DELIBERATE = {
    "derivative-by-t0": Difference(
        f"{CONSTANT}: the first step alone sees `t0`, where diffrax moves all of them with it",
        lambda solve: jax.grad(lambda t0: from_start(solve, t0))(0.1),
        theirs=lambda x: not np.isclose(x, by_first_step(0.1), rtol=1e-6),
        ours=lambda x: np.isclose(x, by_first_step(0.1), rtol=1e-9),
    ),
    "gradient-without-bound": Difference(
        "refused by name, before anything runs",
        lambda solve: jax.grad(lambda y0: jnp.sum(solve(y0=y0, max_steps=None).ys))(jnp.ones(2)),
        theirs=Raises(RuntimeError, "Cannot reverse-mode autodifferentiate"),
        ours=Raises(ValueError, "keeps the time of each step, so it needs to know how many"),
    ),
    "derivative-by-step-ts": Difference(
        f"{CONSTANT} but for its ends: diffrax moves what comes behind as well",
        lambda solve: jax.grad(lambda place: by_step_ts(solve, place))(jnp.asarray(0.5)),
        theirs=lambda x: x != 0,
        ours=lambda x: np.isfinite(x) and x != 0,
    ),
    "condition-of-a-solve-backwards": Difference(
        "a condition is told the user's time; diffrax tells it the time that it has turned round",
        lambda solve: solve(t0=1.0, t1=0.0, dt0=-0.1, event=Event(early)).ts[-1],
        theirs=lambda t: t == 1.0,
        ours=lambda t: 0.3 < t < 0.5,
    ),
    "fixed-steps-into-nothing": Difference(
        "a state that is not a number ends the solve, with a result of its own",
        lambda solve: solve(broken(), throw=False).result,
        theirs=lambda result: result == RESULTS.successful,
        ours=lambda result: result == RESULTS.nonfinite,
    ),
    "adaptive-steps-into-nothing": Difference(
        "what is not a number is not a step that is too short",
        lambda solve: solve(broken(), stepsize_controller=pid(), throw=False).result,
        theirs=lambda result: result == RESULTS.max_steps_reached,
        ours=lambda result: result == RESULTS.nonfinite,
    ),
    "forward-mode": Difference(
        "the default adjoint has both modes",
        less_forward_mode,
        theirs=Raises(TypeError, "can't apply forward-mode"),
        ours=lambda x: np.allclose(x, 0.0, atol=1e-9),
    ),
    "a-step-of-nan": Difference(
        AT_ONCE,
        lambda solve: solve(dt0=float("nan")),
        theirs=lambda sol: np.all(np.isnan(sol.ys)),
        ours=Raises(ValueError, "`t0`, `t1` and `dt0` must be numbers"),
    ),
    "default-root-finder": Difference(
        "diffrax.VeryChord of 0.7.2 gives up too early; optimistix.Chord stands in for it",
        counts_by_root_finder,
        theirs=lambda counts: counts[0] > counts[1],
        ours=lambda counts: counts[0] == counts[1],
    ),
    "gradient-through-unsafe-noise": Difference(
        "a replayed step asks for the noise of the same interval again",
        reverse_less_forward,
        theirs=Raises(ValueError, "does not support `UnsafeBrownianPath`"),
        ours=lambda x: np.isclose(x, 0.0, atol=1e-9),
    ),
    "not-a-number-in-a-rejected-step": Difference(
        "a rejected step is not differentiated",
        lambda solve: jax.grad(lambda rate: past_the_root(solve, rate))(1.0),
        theirs=np.isnan,
        ours=lambda x: np.isclose(x, -0.375, rtol=1e-3),
    ),
    "shortest-step-rejected": Difference(
        "a loop always ends",
        lambda solve: blow_up(solve).result,
        theirs=lambda result: result == RESULTS.max_steps_reached,
        ours=lambda result: result == RESULTS.dt_min_reached,
    ),
    "backsolve-with-costs": Difference(
        "`BacksolveAdjoint` never sees the solver's steps; diffrax has no `costs`",
        lambda solve: solve(adjoint=diffrax.BacksolveAdjoint(), costs={"n": nk.StepCount()}),
        theirs=Raises(TypeError, "unexpected keyword argument 'costs'"),
        ours=Raises(ValueError, "`BacksolveAdjoint` cannot carry costs"),
    ),
    "ts-unsorted": Difference(
        AT_ONCE,
        lambda solve: solve(saveat=SaveAt(ts=[0.5, 0.2])),
        theirs=Raises(RuntimeError, "saveat.ts must be increasing or decreasing"),
        ours=Raises(ValueError, "`saveat.ts` must run from `t0` to `t1` in order"),
    ),
    "ts-outside": Difference(
        AT_ONCE,
        lambda solve: solve(saveat=SaveAt(ts=[0.5, 1.2])),
        theirs=Raises(RuntimeError, "saveat.ts must lie between t0 and t1"),
        ours=Raises(ValueError, "`saveat.ts` must lie between `t0` and `t1`"),
    ),
    "ts-unsorted-jit": Difference(
        "the same words as where the times are known",
        lambda solve: jax.jit(lambda ts: solve(saveat=SaveAt(ts=ts)).ys)(jnp.array([0.5, 0.2])),
        theirs=Raises(RuntimeError, "saveat.ts must be increasing or decreasing"),
        ours=Raises(RuntimeError, "`saveat.ts` must run from `t0` to `t1` in order"),
    ),
    "first-step-backwards": Difference(
        AT_ONCE,
        lambda solve: solve(dt0=-0.1),
        theirs=Raises(RuntimeError, "Must have (t1 - t0) * dt0 >= 0"),
        ours=Raises(ValueError, "`dt0` must point from `t0` to `t1`"),
    ),
    "no-steps": Difference(
        AT_ONCE,
        lambda solve: solve(max_steps=0),
        theirs=Raises(ValueError, "Must have at least one checkpoint"),
        ours=Raises(ValueError, "`max_steps` must be an integer of at least 1"),
    ),
}
