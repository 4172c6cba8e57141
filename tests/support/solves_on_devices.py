"""The solves of `on_devices.py`, and in what ways they meet many devices."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import lineax as lx
import numpy as np
import optimistix as optx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from support.on_devices import collectives

import ndekit as nk

PID = diffrax.PIDController(rtol=1e-3, atol=1e-3)
FIXED = diffrax.ConstantStepSize()
TS = np.linspace(0, 2, 5)
MESH = jax.make_mesh((8,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
WEIGHT = np.array([[0.3, -1.2], [0.9, 0.4]])
# Two lanes for each device, which do not take the same number of steps.
Y0S = np.random.default_rng(0).normal(size=(16, 2)) * np.linspace(0.5, 4, 16)[:, None]
SHARED, LANES = P(), P("devices")


def field(t, y, weight):
    return jnp.tanh(weight @ y) - y


def solved(
    weight, y0, solver=None, dt0=None, terms=None, save=None, control=PID, **options
):  # fmt: skip
    sol = nk.diffeqsolve(
        diffrax.ODETerm(field) if terms is None else terms, solver or diffrax.Tsit5(), 0.0, 2.0,
        dt0, y0, weight, stepsize_controller=control, max_steps=64,
        saveat=diffrax.SaveAt(ts=TS) if save is None else save, **options,
    )  # fmt: skip
    return sol, sum(sol.costs.values(), jnp.zeros(()))


def of_values(weight, y0, key, **options):
    sol, cost = solved(weight, y0, **options)
    return jnp.sum(jnp.where(jnp.isfinite(sol.ys), sol.ys, 0) ** 2) + cost, sol.stats["num_steps"]


def with_costs(weight, y0, key):
    # No step is so short that its error is nothing but rounding, of which costs take a root.
    costs = {"n": nk.StepCount(), "error": nk.StepError()}
    return of_values(weight, y0, key, solver=diffrax.Bosh3(), dt0=0.2, costs=costs)


def of_fixed_steps(weight, y0, key):
    closed = diffrax.ODETerm(lambda t, y, args: jnp.tanh(weight @ y) - y)
    return of_values(None, y0, key, solver=diffrax.Euler(), dt0=0.1, terms=closed, control=FIXED)


def implicit(weight, y0, key):
    return of_values(weight, y0, key, solver=diffrax.Kvaerno3())


def of_every_step(weight, y0, key):
    return of_values(weight, y0, key, save=diffrax.SaveAt(steps=True))


def dense(weight, y0, key):
    sol, _ = solved(weight, y0, save=diffrax.SaveAt(dense=True))
    return jnp.sum(sol.evaluate(0.7) ** 2) + jnp.sum(sol.evaluate(1.3)), sol.stats["num_steps"]


def noisy(weight, y0, key):
    path = nk.BrownianMotion((2,), key)
    diffusion = lambda t, y, args: lx.DiagonalLinearOperator(0.1 * jnp.sin(args @ y))
    terms = diffrax.MultiTerm(diffrax.ODETerm(field), diffrax.ControlTerm(diffusion, path))
    return of_values(
        weight, y0, key, solver=diffrax.Heun(), dt0=0.1, terms=terms, control=FIXED
    )  # fmt: skip


def controlled(weight, y0, key):
    path = diffrax.LinearInterpolation(TS, jnp.sin(TS[:, None] * y0))
    term = diffrax.ControlTerm(lambda t, y, args: jnp.tanh(args * y), path)
    return of_values(weight, y0, key, solver=diffrax.Heun(), dt0=0.1, terms=term, control=FIXED)


def of_closures(weight, y0, key):
    """A field that closes over its lane, in a loop and in functions with their own derivative."""

    def inner(t, y, args):
        turn = lambda i, z: jnp.tanh(args @ z) * jax.nn.relu(y0)
        return jax.lax.fori_loop(0, 2, turn, jax.nn.softplus(y0) + y) - y

    return of_values(weight, jnp.ones(2), key, terms=diffrax.ODETerm(inner))


def by_adjoints(weight, y0, key):
    """By diffrax's adjoint, with step sizes that are differentiated, and with stages kept."""
    adjoints = (
        diffrax.RecursiveCheckpointAdjoint(), nk.ReplayAdjoint(step_sizes="differentiable"),
        nk.ReplayAdjoint(keep="stages"),
    )  # fmt: skip
    found = [of_values(weight, y0, key, adjoint=adjoint) for adjoint in adjoints]
    return sum(value for value, _ in found), found[0][1]


def with_event(weight, y0, key):
    event = diffrax.Event(lambda t, y, args, **_: t - 1.3 + 0.1 * y[0], optx.Newton(1e-8, 1e-8))
    return of_values(weight, y0, key, event=event, save=diffrax.SaveAt(t1=True))


CASES = dict(
    costs=with_costs, fixed=of_fixed_steps, implicit=implicit, steps=of_every_step, dense=dense,
    noise=noisy, control=controlled, closures=of_closures, adjoints=by_adjoints, event=with_event,
)  # fmt: skip


def lanes_of(case):
    """Values, numbers of steps and gradients of each lane."""
    if case == "forward":
        return pushed_forward
    graded = jax.value_and_grad(CASES[case], argnums=(0, 1), has_aux=True)

    def of_lanes(weight, y0s, keys):
        (values, steps), (shared, own) = jax.vmap(graded, (None, 0, 0))(weight, y0s, keys)
        return values, steps, shared, own

    return of_lanes


def pushed_forward(weight, y0s, keys):
    """Derivatives in forward mode, along the weight and along each lane's start."""

    def of_lane(weight, y0, key):
        def value(weight, y0):
            return of_values(weight, y0, key, adjoint=diffrax.ForwardMode())

        zeros = jnp.zeros_like
        values, shared, steps = jax.jvp(value, (weight, y0), (weight, zeros(y0)), has_aux=True)
        _, own, _ = jax.jvp(value, (weight, y0), (zeros(weight), y0), has_aux=True)
        return values, steps, shared, own

    return jax.vmap(of_lane, (None, 0, 0))(weight, y0s, keys)


def with_gradients(total):
    """Values and steps of a sum, and its gradients by what is shared and by each lane's own."""

    def graded(weight, y0s, keys):
        found = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(weight, y0s, keys)
        (_, (values, steps)), (shared, own) = found
        return values, steps, shared, own

    return graded


def together(case):
    """The same, with the gradient of what all lanes share summed over them."""

    def total(weight, y0s, keys):
        values, steps = jax.vmap(CASES[case], (None, 0, 0))(weight, y0s, keys)
        return jnp.sum(values), (values, steps)

    return with_gradients(total)


def apart(case):
    """Gradients of each lane by its own copy of what is shared."""

    def of_lanes(weight, y0s, keys):
        weight = jax.lax.pcast(weight, "devices", to="varying")
        return lanes_of(case)(weight, y0s, keys)

    return mapped(of_lanes, (LANES, LANES, LANES, LANES))


def mapped(fn, out_specs):
    return jax.shard_map(fn, mesh=MESH, in_specs=(SHARED, LANES, LANES), out_specs=out_specs)


def around(case):
    """Differentiated from outside of `jax.shard_map`."""

    def total(weight, y0s, keys):
        of_lanes = lambda *args: jax.vmap(CASES[case], (None, 0, 0))(*args)
        values, steps = mapped(of_lanes, (LANES, LANES))(weight, y0s, keys)
        return jnp.sum(values), (values, steps)

    return with_gradients(total)


KINDS = {
    "inside": lambda case: mapped(together(case), (LANES, LANES, SHARED, LANES)),
    "around": around,
    "lanes": apart,
    "sharded": together,  # `jax.jit` alone, its arguments sharded
}


def outcome() -> dict:
    """What a solve says that has too few steps on the devices whose lanes begin far out."""

    def of_lanes(throw):
        def of_lane(weight, y0, key):
            options = dict(terms=diffrax.ODETerm(lambda t, y, args: -(y**3)), throw=throw)
            sol, _ = solved(weight, y0, save=diffrax.SaveAt(t1=True), **options)
            return sol.result != diffrax.RESULTS.successful

        lanes = jax.vmap(of_lane, (None, 0, 0))
        return jax.jit(mapped(lanes, LANES))

    keys = jr.split(jr.key(0), 8)
    args = WEIGHT, np.where(np.arange(8)[:, None] < 4, 1.0, 1e8) * np.ones(2), keys
    failed, thrown = of_lanes(False)(*args).tolist(), ""
    try:
        jax.block_until_ready(of_lanes(True)(*args))
    except Exception as error:
        thrown = str(error)
    return dict(failed=failed, thrown=thrown)


def report(case: str, kind: str) -> dict:
    """By how much each output differs, relative to its largest entry, and what is communicated."""
    if case == "outcome":
        return outcome()
    keys = jr.split(jr.key(0), len(Y0S))
    place = lambda x, spec: jax.device_put(x, NamedSharding(MESH, spec))
    args = place(WEIGHT, SHARED), place(Y0S, LANES), place(keys, LANES)
    compiled = jax.jit(KINDS[kind](case)).lower(*args).compile()
    inside, outside = collectives(compiled.as_text())
    names = "values", "steps", "shared", "own"
    found = zip(names, compiled(*args), on_one_device(case, keys, kind), strict=True)
    differs = {name: _difference(a, b) for name, a, b in found}
    return dict(differs=differs, inside=inside, outside=outside)


def on_one_device(case: str, keys, kind: str) -> list:
    """The lanes of each device one after the other, by a program without devices."""
    alone = jax.jit(lanes_of(case))
    parts = [alone(WEIGHT, Y0S[i : i + 2], keys[i : i + 2]) for i in range(0, len(Y0S), 2)]
    values, steps, shared, own = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert len(set(steps)) > 1 or case in ("fixed", "noise", "control")
    return [values, steps, shared if kind == "lanes" else shared.sum(0), own]


def _difference(ours, wanted) -> float:
    ours, wanted = np.asarray(ours), np.asarray(wanted)
    assert ours.shape == wanted.shape and np.all(np.isfinite(wanted)) and np.any(wanted != 0)
    return float(np.max(np.abs(ours - wanted)) / np.max(np.abs(wanted)))
