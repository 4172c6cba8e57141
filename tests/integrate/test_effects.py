"""Fields and conditions that print, call the host or speak across lanes, as in diffrax's loop."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from jax.experimental import io_callback
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk

PID = diffrax.PIDController(rtol=1e-4, atol=1e-4)
TRANSFORMS = {
    "plain": lambda f: f(1.0),
    "jit": lambda f: jax.jit(f)(1.0),
    "grad": lambda f: jax.jit(jax.grad(f))(1.0),
    "vmap": lambda f: jax.vmap(f)(jnp.array([1.0, 2.0])),
    "vmap-of-grad": lambda f: jax.vmap(jax.grad(f))(jnp.array([1.0, 2.0])),
}
SEEN = []


def see(t):
    SEEN.append(float(t))


def host_sine(t):
    like = jax.ShapeDtypeStruct(jnp.shape(t), jnp.result_type(t))
    return jax.pure_callback(lambda t: np.sin(np.asarray(t)), like, t)


CALLS = {
    "debug": lambda t: jax.debug.callback(see, t),
    "debug-ordered": lambda t: jax.debug.callback(see, t, ordered=True),
    "io": lambda t: io_callback(see, None, t),
    "io-ordered": lambda t: io_callback(see, None, t, ordered=True),
    "pure": lambda t: host_sine(t),
}
FAST = [("debug", "plain"), ("io-ordered", "grad"), ("pure", "vmap-of-grad")]


def told(library, call, transform):
    """What a solve gives, and what its field's calls were told, or the error's kind."""
    SEEN.clear()

    def field(t, y, args):
        more = CALLS[call](t)
        return -args * y + (0.0 if more is None else more)

    def last(rate):
        return jnp.sum(
            library.diffeqsolve(
                diffrax.ODETerm(field), diffrax.Bosh3(), 0.0, 1.0, 0.25, jnp.ones(2), rate,
                max_steps=8,
            ).ys
        )  # fmt: skip

    try:
        value = TRANSFORMS[transform](last)
    except (NotImplementedError, ValueError) as error:
        return type(error), []
    jax.effects_barrier()
    return value, list(SEEN) if "ordered" in call else sorted(SEEN)


@pytest.mark.parametrize(
    ("call", "transform"),
    [
        pytest.param(c, t, marks=() if (c, t) in FAST else pytest.mark.slow)
        for c in CALLS
        for t in TRANSFORMS
    ],
)
def test_the_host_is_called_as_by_diffrax(call, transform):
    (ours, our_calls), (theirs, their_calls) = (
        told(nk, call, transform),
        told(diffrax, call, transform),
    )
    if isinstance(theirs, type):
        assert ours is theirs
        return
    assert_tree_close(ours, theirs, rtol=1e-5)
    assert call == "pure" or our_calls
    assert_tree_close(np.array(our_calls), np.array(their_calls), rtol=1e-6)


def test_a_saved_value_may_call_the_host():
    fn = lambda t, y, args: y * host_sine(t)
    sol = nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 1.0, None, jnp.ones(2),
        stepsize_controller=PID, saveat=diffrax.SaveAt(ts=jnp.linspace(0, 1, 11), fn=fn),
    )  # fmt: skip
    ts = np.linspace(0, 1, 11)
    exact = np.repeat((np.exp(-ts) * np.sin(ts))[:, None], 2, 1)
    assert_tree_close(sol.ys, exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("solver", slow_but(("Kvaerno3",), ("Kvaerno3", "ImplicitEuler")))
def test_an_implicit_step_may_call_the_host_of_the_time(solver):
    finder = optx.Newton(1e-5, 1e-5)

    def last(library, rate):
        field = diffrax.ODETerm(lambda t, y, args: -args * y + host_sine(t))
        solver_ = getattr(diffrax, solver)(root_finder=finder)
        sol = library.diffeqsolve(field, solver_, 0.0, 1.0, 0.25, jnp.ones(2), rate, max_steps=8)
        return jnp.sum(sol.ys)

    ours, theirs = (jax.grad(lambda r, lib=lib: last(lib, r))(1.0) for lib in (nk, diffrax))
    assert_tree_close(ours, theirs, rtol=1e-4)


def test_checks_of_equinox_stay_in_the_engine():
    # `EachStep` is not known to diffrax's loop, so it would be refused there.
    def last(rate, y0):
        field = lambda t, y, args: -args * eqx.error_if(y, jnp.any(y > 5), "too large")
        sol = nk.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, 0.1, y0, rate, max_steps=16,
            stepsize_controller=PID, costs={"steps": nk.EachStep(nk.StepCount())},
        )  # fmt: skip
        return jnp.sum(sol.ys)

    slopes = jax.jit(jax.vmap(jax.grad(last), (0, None)))(jnp.array([1.0, 2.0]), jnp.ones(2))
    assert_tree_close(slopes, -2 * np.exp([-1.0, -2.0]), rtol=1e-3)
    with pytest.raises(RuntimeError, match="too large"):
        last(1.0, 6 * jnp.ones(2))


# Collectives.


def coupled(t, y, args):
    return -args * y * jax.lax.pmean(jnp.sum(y), "lanes")


def last_of(library, rate, y0, **options):
    return library.diffeqsolve(
        diffrax.ODETerm(coupled), diffrax.Bosh3(), 0.0, 1.0, 0.1, y0, rate, max_steps=64, **options
    )


Y0S = jnp.array([[0.1, 0.2], [0.3, 0.4]])


@pytest.mark.parametrize("adaptive", slow_but((False,), (False, True)))
def test_a_mean_over_lanes_is_that_of_diffrax(adaptive):
    options = dict(stepsize_controller=PID) if adaptive else {}

    def total(library, rate):
        of_lane = lambda y0: jnp.sum(last_of(library, rate, y0, **options).ys)
        return jnp.sum(jax.vmap(of_lane, axis_name="lanes")(Y0S))

    # Values: diffrax's own checkpointed loop does not know the axis.
    ours, theirs = (jax.jit(lambda r, lib=lib: total(lib, r))(1.0) for lib in (nk, diffrax))
    assert_tree_close(ours, theirs, rtol=1e-5)


@pytest.mark.slow
def test_costs_are_read_beside_a_mean_over_lanes():
    costs = {"kinetic": nk.Kinetic()}
    of_lane = lambda y0: last_of(nk, 1.0, y0, stepsize_controller=PID, costs=costs).costs["kinetic"]
    assert np.all(np.asarray(jax.vmap(of_lane, axis_name="lanes")(Y0S)) > 0)


def test_a_mean_over_lanes_is_refused_where_only_the_engine_could():
    solver, adjoint = nk.Reversible(diffrax.Bosh3()), nk.ReversibleAdjoint()
    of_lane = lambda y0: (
        nk.diffeqsolve(diffrax.ODETerm(coupled), solver, 0.0, 1.0, 0.1, y0, 1.0, adjoint=adjoint).ys
    )
    with pytest.raises(ValueError, match="named axis lanes"):
        jax.vmap(of_lane, axis_name="lanes")(Y0S)


@pytest.mark.slow
def test_a_mean_over_devices_is_that_of_diffrax():
    mesh = jax.make_mesh((1,), ("lanes",))
    spec = jax.sharding.PartitionSpec("lanes")

    def last(library):
        of_device = lambda y0: last_of(library, 1.0, y0).ys[-1]
        mapped = jax.shard_map(
            of_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
        )  # fmt: skip
        return jax.jit(mapped)(Y0S[0])

    assert_tree_close(last(nk), last(diffrax), rtol=1e-5)
