"""The calls of the catalogue with unusual terms, states, arguments, times and bounds."""

import diffrax
import jax.numpy as jnp
from diffrax import MultiTerm, ODETerm, SaveAt
from support.catalogue_parts import Doubled, control_term, energy, pid, places, relax


def each(names, call):
    """One case a name: `call(solve, name)`."""
    return {name: lambda solve, name=name: call(solve, name) for name in names.split()}


def adaptive(solve, terms, **options):
    return solve(terms, stepsize_controller=pid(), saveat=SaveAt(ts=places()), **options)


TERMS = {
    **each(
        "linear cubic", lambda solve, kind: solve(control_term(kind), saveat=SaveAt(ts=places()))
    ),
    "control-adaptive": lambda solve: adaptive(solve, control_term("cubic")),
    "control-to-ode": lambda solve: adaptive(solve, control_term("cubic").to_ode()),
    "control-function": lambda solve: solve(
        diffrax.ControlTerm(lambda t, y, args: -args * y, lambda t0, t1: t1**2 - t0**2)
    ),
    "multi": lambda solve: adaptive(solve, MultiTerm(ODETerm(relax), control_term("linear"))),
    "multi-backward": lambda solve: solve(
        MultiTerm(ODETerm(relax), control_term("linear")), diffrax.Heun(), 1.0, 0.0, -0.1
    ),
    "own": lambda solve: adaptive(solve, Doubled(ODETerm(relax))),
}


def mixed():
    return {"a": jnp.array([1.0, 2.0], jnp.float32), "b": (jnp.array([0.5, -1.0]),)}


def nowhere(solve, **options):
    return solve(t0=0.3, t1=0.3, **options)


def gap(t, y, args):
    """Not a number from the middle on."""
    return jnp.where(t < 0.5, -y, jnp.nan)


VALUES = {
    "args-none": lambda solve: solve(ODETerm(lambda t, y, args: -y), args=None),
    "args-anything": lambda solve: solve(
        ODETerm(lambda t, y, args: args["sign"] * args["f"](y)), args={"sign": -1, "f": jnp.sin}
    ),
    "args-array-of-numpy": lambda solve: solve(args=places()[2], saveat=SaveAt(t1=True, fn=energy)),
    "field-to-broadcast": lambda solve: solve(ODETerm(lambda t, y, args: -jnp.mean(y))),
    "field-of-integers": lambda solve: solve(ODETerm(lambda t, y, args: 2)),
    "numbers": lambda solve: solve(
        ODETerm(lambda t, y, args: {"x": -y["x"], "n": y["x"]}), y0={"x": 1.5, "n": 2}
    ),
    "scalar": lambda solve: adaptive(solve, ODETerm(relax), y0=jnp.asarray(0.5)),
    "matrix": lambda solve: solve(ODETerm(relax), y0=jnp.arange(1.0, 7.0).reshape(2, 3)),
    "mixed-precision": lambda solve: solve(ODETerm(relax), y0=mixed(), saveat=SaveAt(steps=True)),
    "mixed-precision-float32-times": lambda solve: solve(
        ODETerm(relax), diffrax.Euler(), *jnp.array([0.0, 1.0, 0.1], jnp.float32), y0=mixed()
    ),
    **each("complex complex-dense", lambda solve, name: solve(
        ODETerm(lambda t, y, args: 1j * args * y), y0=jnp.array([1.0 + 0.5j, -0.3j]),
        saveat=SaveAt(ts=places(), dense=name == "complex-dense"),
    )),
    "complex-adaptive": lambda solve: adaptive(
        solve, ODETerm(lambda t, y, args: 1j * args * y), y0=jnp.array([1.0 + 0.5j, -0.3j])
    ),
    "backward": lambda solve: solve(
        t0=1.0, t1=-0.5, dt0=-0.3, stepsize_controller=pid(), saveat=SaveAt(ts=places(1.0, -0.5))
    ),
    "nowhere": lambda solve: nowhere(solve, saveat=SaveAt(t0=True, t1=True, ts=[0.3, 0.3])),
    "nowhere-steps": lambda solve: nowhere(solve, saveat=SaveAt(steps=True, t1=True)),
    "nowhere-adaptive": lambda solve: nowhere(solve, dt0=None, stepsize_controller=pid()),
    "nowhere-dense": lambda solve: nowhere(solve, saveat=SaveAt(dense=True)),
    "integer-times": lambda solve: solve(t0=0, t1=2, dt0=0.25),
    "integer-first-step": lambda solve: solve(t0=0, t1=3, dt0=1, saveat=SaveAt(ts=[1, 2])),
    "long-first-step": lambda solve: solve(dt0=7.0, saveat=SaveAt(steps=True)),
    "no-bound": lambda solve: solve(max_steps=None, stepsize_controller=pid()),
    "default-bound": lambda solve: solve(max_steps=4096, saveat=SaveAt(steps=True)),
    "cut-off": lambda solve: solve(
        max_steps=4, throw=False, saveat=SaveAt(t0=True, ts=places(), t1=True)
    ),
    "cut-off-adaptive": lambda solve: solve(
        max_steps=4, throw=False, stepsize_controller=pid(rtol=1e-7), saveat=SaveAt(steps=True)
    ),
    "not-a-number-adaptive": lambda solve: solve(
        ODETerm(gap), stepsize_controller=pid(), throw=False, max_steps=12
    ),
}  # fmt: skip
