"""The same solve under each of JAX's transforms: each is a function of `solve`."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from diffrax import Event, SaveAt
from support.catalogue_parts import (
    at_half,
    chord,
    clip,
    newton,
    pid,
    places,
    stationary,
)

# Arguments that lanes share or not; the steps of one lane must not touch those of another.


def span():
    return jnp.array([0.0, 0.2, 0.45])


def starts():
    return jnp.array([[0.7, -0.2], [0.1, 2.0], [-1.5, 0.0]])


def lanes(name, values, **options):
    """`jax.vmap` over one argument."""
    options = {"dt0": lambda: 0.3, "stepsize_controller": pid} | options

    def run(solve):
        given = {key: make() for key, make in options.items() if key != name}
        return jax.vmap(lambda value: solve(**{name: value}, **given))(values())

    return run


def lanes_of_ts(solve):
    ts = jnp.stack([jnp.asarray(places()), jnp.asarray(places(0.5, 0.7))])
    return jax.vmap(lambda ts: solve(stepsize_controller=pid(), saveat=SaveAt(ts=ts)))(ts)


def grid_of_lanes(solve):
    call = lambda y0, args: solve(y0=y0, args=args, stepsize_controller=pid())
    return jax.vmap(jax.vmap(call, (0, None)), (None, 0))(starts(), jnp.array([1.0, 4.0]))


def one_after_the_other(solve):
    def body(y, start):
        sol = solve(t0=start, t1=start + 0.25, y0=y, stepsize_controller=pid())
        return sol.ys[-1], (sol.ys, sol.stats["num_steps"])

    return jax.lax.scan(body, starts()[0], span())


def total(solve, **options):
    """A function of `(y0, args)`."""
    options = {"stepsize_controller": pid(), "saveat": SaveAt(ts=places())} | options
    return lambda given: jnp.sum(solve(y0=given[0], args=given[1], **options).ys ** 2)


def given():
    return starts()[0], jnp.asarray(4.0)


def ones():
    return jnp.array([1.0, -0.5]), jnp.asarray(2.0)


def gradient_by(adjoint, **options):
    return lambda solve: jax.grad(total(solve, adjoint=adjoint(), **options))(given())


def tangent(solve, **options):
    return jax.jvp(total(solve, adjoint=diffrax.ForwardMode(), **options), (given(),), (ones(),))


def jacobian(solve):
    ends = lambda y0: solve(y0=y0, stepsize_controller=pid(), adjoint=diffrax.ForwardMode()).ys[-1]
    return jax.jacfwd(ends)(starts()[0])


def times_loss(solve, **options):
    saveat = lambda ts: SaveAt(ts=ts, t1=True)
    return lambda t1, ts: jnp.sum(solve(t1=t1, saveat=saveat(ts), **options).ys ** 2)


def gradient_through_jit_and_lanes(solve):
    call = lambda y0, args: solve(y0=y0, args=args, stepsize_controller=pid()).ys
    loss = lambda args: jnp.sum(jax.jit(jax.vmap(call, (0, None)))(starts(), args) ** 2)
    return jax.value_and_grad(loss)(jnp.asarray(4.0))


def gradient_of_scan(solve):
    def body(y, start):
        return solve(t0=start, t1=start + 0.25, y0=y).ys[-1], None

    return jax.grad(lambda y0: jnp.sum(jax.lax.scan(body, y0, span())[0] ** 2))(starts()[0])


def gradient_of_gradient(solve):
    slope = jax.grad(total(solve, adjoint=diffrax.DirectAdjoint(), max_steps=16))
    return jax.grad(lambda given: jnp.sum(slope(given)[0] ** 2))(given())


TRANSFORMS = {
    "jit": lambda solve: jax.jit(lambda y0, args, t1: solve(y0=y0, args=args, t1=t1))(
        *given(), jnp.asarray(0.8)
    ),
    "jit-everything": lambda solve: jax.jit(
        lambda t0, dt0, ts: solve(
            t0=t0, dt0=dt0, stepsize_controller=pid(rtol=dt0 / 1e3), saveat=SaveAt(ts=ts)
        )
    )(0.0, 0.1, places()),
    "filter-jit": lambda solve: eqx.filter_jit(solve)(saveat=SaveAt(dense=True)),
    "vmap-y0": lanes("y0", starts),
    "vmap-y0-steps": lanes("y0", starts, saveat=lambda: SaveAt(steps=True)),
    "vmap-y0-fixed": lanes("y0", starts, stepsize_controller=diffrax.ConstantStepSize),
    "vmap-t0": lanes("t0", span, saveat=lambda: SaveAt(t0=True, t1=True)),
    "vmap-t1": lanes("t1", lambda: 0.5 + span(), saveat=lambda: SaveAt(steps=2)),
    "vmap-t1-both-ways": lanes(
        "t1", lambda: span() - 0.2, dt0=lambda: None, saveat=lambda: SaveAt(t1=True)
    ),
    "vmap-args": lanes("args", lambda: 4.0 + span(), saveat=lambda: SaveAt(ts=places())),
    "vmap-dt0": lanes("dt0", lambda: 0.1 + span()),
    "vmap-ts": lanes_of_ts,
    "vmap-vmap": grid_of_lanes,
    "vmap-event": lanes("y0", starts, event=lambda: Event(at_half, newton())),
    "vmap-implicit": lanes("y0", starts, solver=lambda: diffrax.Kvaerno3(root_finder=chord())),
    "vmap-clip": lanes("t1", lambda: 0.5 + span(), stepsize_controller=lambda: clip(
        pid(), step_ts=[0.31], jump_ts=[0.62]
    )),
    "filter-vmap": lambda solve: eqx.filter_vmap(
        lambda y0, controller: solve(y0=y0, stepsize_controller=controller), in_axes=(0, None)
    )(starts(), pid()),
    "map": lambda solve: jax.lax.map(lambda y0: solve(y0=y0).ys, starts()),
    "scan": one_after_the_other,
    "filter-grad": lambda solve: eqx.filter_grad(total(solve))(given()),
    "checkpoint": lambda solve: jax.grad(jax.checkpoint(total(solve)))(given()),
    "grad-jit-vmap": gradient_through_jit_and_lanes,
    "grad-scan": gradient_of_scan,
    "grad-grad-direct": gradient_of_gradient,
    "recursive": gradient_by(diffrax.RecursiveCheckpointAdjoint),
    "recursive-5": gradient_by(lambda: diffrax.RecursiveCheckpointAdjoint(checkpoints=5)),
    "direct": gradient_by(diffrax.DirectAdjoint),
    "backsolve": gradient_by(diffrax.BacksolveAdjoint),
    # `ImplicitAdjoint` itself multiplies an integer by a time.
    "implicit-adjoint": jax.numpy_dtype_promotion("standard")(lambda solve: jax.grad(
        lambda args: jnp.sum(
            stationary(
                solve, args=args, adjoint=diffrax.ImplicitAdjoint(),
                event=Event(diffrax.steady_state_event(rtol=1e-3)),
            ).ys ** 2
        )
    )(jnp.asarray(4.0))),
    "grad-times": lambda solve: jax.grad(times_loss(solve, stepsize_controller=pid()), (0, 1))(
        jnp.asarray(0.9), jnp.array([0.1, 0.4, 0.4])
    ),
    "jvp": tangent,
    "jvp-event": lambda solve: tangent(solve, event=Event(at_half, newton())),
    "jacfwd": jacobian,
}  # fmt: skip

SLOW_TRANSFORMS = """
    vmap-y0-steps vmap-y0-fixed vmap-t1-both-ways vmap-dt0 vmap-implicit vmap-clip filter-vmap map
    recursive-5 filter-grad grad-scan grad-grad-direct jvp-event jacfwd
""".split()
