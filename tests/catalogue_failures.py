"""The calls that fail in diffrax and must fail alike, and those answered otherwise on purpose."""

from collections.abc import Callable
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from catalogue_parts import (
    at_half,
    multiplicative,
    noisy,
    pendulum,
    pid,
    places,
    relax,
    two_terms,
)
from diffrax import Event, ODETerm, SaveAt

FAILURES = {
    "complex-times": lambda solve: solve(t1=1.0 + 1.0j),
    "complex-ts": lambda solve: solve(saveat=SaveAt(ts=jnp.array([0.5 + 0.5j]))),
    "one-term-for-two": lambda solve: solve(solver=diffrax.SemiImplicitEuler()),
    "two-terms-for-one": lambda solve: solve(two_terms()),
    "no-diffusion": lambda solve: solve(solver=diffrax.ItoMilstein()),
    "no-levy-area": lambda solve: solve(
        noisy(levy_area=diffrax.BrownianIncrement), diffrax.SRA1()
    ),
    "noise-not-additive": lambda solve: solve(noisy(multiplicative), diffrax.SRA1()),
    "noise-outside-the-tree": lambda solve: solve(noisy(), diffrax.EulerHeun(), t1=1.5),
    "structure-of-the-field": lambda solve: solve(ODETerm(lambda t, y, args: (y, y))),
    "shape-of-the-field": lambda solve: solve(ODETerm(lambda t, y, args: jnp.ones(3))),
    "shape-of-the-field-too-large": lambda solve: solve(ODETerm(lambda t, y, args: jnp.ones((2, 2)))),
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
    "ts-unsorted-jit": lambda solve: jax.jit(lambda ts: solve(saveat=SaveAt(ts=ts)).ys)(
        jnp.array([0.5, 0.2])
    ),
    "event-of-two-numbers": lambda solve: solve(
        event=Event(lambda t, y, args, **kwargs: y)
    ),
    "event-of-an-integer": lambda solve: solve(event=Event(lambda t, y, args, **kwargs: 3)),
    "steady-state-without-tolerances": lambda solve: solve(
        event=Event(diffrax.steady_state_event())
    ),
    "event-that-names-no-more": lambda solve: solve(event=Event(lambda t, y, args: y[0])),
    "sde-adaptive-euler": lambda solve: solve(
        noisy(), diffrax.Euler(), stepsize_controller=pid()
    ),
    "backsolve-steps": lambda solve: solve(
        adjoint=diffrax.BacksolveAdjoint(), saveat=SaveAt(steps=True)
    ),
    "implicit-adjoint-ts": lambda solve: solve(
        adjoint=diffrax.ImplicitAdjoint(), saveat=SaveAt(ts=places())
    ),
    "gradient-without-bound": lambda solve: jax.grad(
        lambda y0: jnp.sum(solve(y0=y0, max_steps=None).ys)
    )(jnp.ones(2)),
    "unknown-option": lambda solve: solve(colour="red"),
}
