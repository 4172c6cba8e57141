"""`ReplayAdjoint(keep="stages")`: the same gradient, and nothing is run again."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from support.close import assert_tree_close
from support.marks import slow_but
from support.problems import SOLVERS
from test_second_derivatives import ALL_COSTS, PID, at_five_times, controlled

import ndekit as nk

KEPT = nk.ReplayAdjoint(keep="stages")


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def field(t, y, args):
    return jnp.tanh(args @ jnp.sin((1 + t) * y)) - args[0] * y


def loss(adjoint, solver, controller=PID, *, terms=None, costs=None, saveat=None, **options):
    def of(y0, args, t1):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(field) if terms is None else terms, solver, 0.0, t1, 0.1, y0, args,
            stepsize_controller=controller, costs=costs, adjoint=adjoint, max_steps=256,
            saveat=diffrax.SaveAt(t1=True) if saveat is None else saveat, **options,
        )  # fmt: skip
        ys = jax.tree.leaves(sol.ys)
        saved = sum(jnp.sum(jnp.sin(jnp.where(jnp.isfinite(y), y, 0.0))) for y in ys)
        return saved + sum(jnp.sum(cost) for cost in sol.costs.values())

    return of


def assert_same_gradient(options, kept=KEPT, states=None, lanes=None, rtol=1e-9):
    y0, args = jnp.linspace(0.3, 1.2, 3), jnp.sin(jnp.arange(9.0)).reshape(3, 3)
    found = []
    for adjoint in (kept, nk.ReplayAdjoint() if states is None else states):
        of = loss(adjoint, **options)
        if lanes is not None:
            one, many = of, jnp.outer(jnp.linspace(0.5, 3.0, lanes), y0)
            of = lambda y0, args, t1, one=one, many=many: jnp.sum(
                jax.vmap(one, in_axes=(0, None, None))(many + y0[None], args, t1)
            )
        found.append(jax.jit(jax.grad(of, argnums=(0, 1, 2)))(y0, args, 1.0))
    assert_tree_close(*found, rtol=rtol, atol=rtol)


def chord():
    return diffrax.VeryChord(rtol=1e-12, atol=1e-12, norm=optx.max_norm)


def two_terms():
    fast = lambda t, y, args: -20 * y
    return diffrax.MultiTerm(diffrax.ODETerm(field), diffrax.ODETerm(fast))


ADAPTIVE = {name: solver for name, solver in SOLVERS.items() if name != "Euler"}
STEPS = diffrax.ConstantStepSize()
CASES = {
    **{name: lambda solver=solver: dict(solver=solver) for name, solver in ADAPTIVE.items()},
    "Euler": lambda: dict(solver=diffrax.Euler(), controller=STEPS),
    "costs": lambda: dict(solver=diffrax.Tsit5(), costs=ALL_COSTS),
    "ts": lambda: dict(solver=diffrax.Dopri5(), saveat=at_five_times()),
    "steps": lambda: dict(solver=diffrax.Bosh3(), saveat=diffrax.SaveAt(steps=True)),
    "control": lambda: dict(solver=diffrax.Heun(), terms=controlled(), controller=STEPS),
    "control, ts": lambda: dict(solver=diffrax.Tsit5(), terms=controlled(), saveat=at_five_times()),
    "LeapfrogMidpoint": lambda: dict(solver=diffrax.LeapfrogMidpoint(), controller=STEPS),
    "ReversibleHeun": lambda: dict(solver=diffrax.ReversibleHeun()),
    "ImplicitEuler": lambda: dict(
        solver=diffrax.ImplicitEuler(root_finder=chord()), controller=STEPS
    ),
    "KenCarp3": lambda: dict(solver=diffrax.KenCarp3(root_finder=chord()), terms=two_terms()),
    "Kvaerno3": lambda: dict(solver=diffrax.Kvaerno3(root_finder=chord())),
    "HalfSolver": lambda: dict(solver=diffrax.HalfSolver(diffrax.Heun())),
}


@pytest.mark.parametrize("name", slow_but(("control, ts",), CASES))
def test_the_gradient_is_that_of_kept_states(name):
    assert_same_gradient(CASES[name]())


@pytest.mark.parametrize("lanes", [pytest.param(None, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("checkpoints", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_where_the_record_thins_out_steps_are_run_again(checkpoints, lanes):
    kept = nk.ReplayAdjoint(checkpoints, keep="stages")
    assert_same_gradient(dict(solver=diffrax.Tsit5(), costs=ALL_COSTS), kept, lanes=lanes)


@pytest.mark.parametrize("step_sizes", slow_but(("frozen",), ("frozen", "differentiable")))
def test_attempts_out_of_bounds_leave_nothing_behind(step_sizes):
    """The first attempts overflow: their values are noted as well."""

    def overflows(t, y, args):
        return -50 * jnp.sinh(y) + jnp.tanh(args @ y)

    both = [nk.ReplayAdjoint(step_sizes=step_sizes, keep=keep) for keep in ("stages", "states")]
    options = dict(solver=diffrax.Bosh3(), terms=diffrax.ODETerm(overflows))
    assert_same_gradient(options, *both, lanes=4)


@pytest.mark.slow
def test_second_derivatives():
    y0, args = jnp.linspace(0.3, 1.2, 3), jnp.sin(jnp.arange(9.0)).reshape(3, 3)
    found = []
    for adjoint in (KEPT, nk.ReplayAdjoint()):
        of = loss(adjoint, diffrax.Bosh3(), costs=dict(error=nk.StepError()))
        found.append(jax.jit(jax.hessian(lambda y0, of=of: of(y0, args, 1.0)))(y0))
    assert_tree_close(*found, rtol=1e-9)


def counted(calls):
    """A field that notes each evaluation, with a derivative that evaluates nothing."""

    def note(y):
        calls.append(1)
        return np.sin(y)

    @jax.custom_jvp
    def sine(y):
        out = jax.ShapeDtypeStruct(y.shape, y.dtype)
        return jax.pure_callback(note, out, y, vmap_method="sequential")

    @sine.defjvp
    def _(primals, tangents):
        out = sine(*primals)
        return out, tangents[0] * jnp.sqrt(1 - out**2)

    return lambda t, y, args: sine(y) * args


def test_the_reverse_pass_evaluates_nothing():
    calls = []
    term, y0 = diffrax.ODETerm(counted(calls)), jnp.array([0.3], jnp.float32)
    times = jnp.array([0.0, 1.0, 0.1], jnp.float32)

    def of(args, adjoint):
        sol = nk.diffeqsolve(
            term, diffrax.Tsit5(), *times, y0, args,
            stepsize_controller=STEPS, adjoint=adjoint,
        )  # fmt: skip
        return sol.ys[0, 0], sol.stats["num_evals"]

    made, args = {}, jnp.array(0.7, jnp.float32)
    for keep in ("stages", "states"):
        gradient = jax.jit(jax.grad(of, has_aux=True), static_argnums=1)
        adjoint = nk.ReplayAdjoint(keep=keep)
        gradient(args, adjoint)[0].block_until_ready()
        calls.clear()
        gradient, evals = gradient(args, adjoint)
        gradient.block_until_ready()
        made[keep] = len(calls) - int(evals)
    assert made["stages"] == 0
    assert made["states"] > 0


def test_a_controller_that_jumps_is_refused():
    controller = diffrax.ClipStepSizeController(PID, jump_ts=jnp.array([0.5]))
    of = loss(KEPT, diffrax.Tsit5(), controller)
    with pytest.raises(ValueError, match="steps that begin after a jump"):
        jax.grad(of)(jnp.ones(3), jnp.eye(3), 1.0)


def test_attempts_given_up_are_not_in_the_gradient_of_a_lane():
    """A root of the state, negative in stages of steps that are too long for some lane."""
    steep = diffrax.ODETerm(lambda t, y, args: -args * jnp.sqrt(y))

    def last(y0, rate, adjoint):
        sol = nk.diffeqsolve(
            steep, diffrax.Tsit5(), 0.0, 1.0, 2.0 / y0[0], y0, rate, adjoint=adjoint, max_steps=64,
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-6),
        )  # fmt: skip
        return jnp.sum(sol.ys), sol.stats["num_rejected_steps"]

    y0s = jnp.array([[1.1], [1.5], [4.0], [9.0]])
    of_lane = jax.grad(lambda y0, rate: last(y0, rate, KEPT)[0], argnums=(0, 1))
    by_y0, by_rate = jax.jit(jax.vmap(of_lane, in_axes=(0, None)))(y0s, 2.0)
    rejected = jax.vmap(lambda y0: last(y0, 2.0, KEPT)[1])(y0s)
    assert int(jnp.max(rejected)) > 0 and len(set(rejected.tolist())) > 1
    # The root goes down by half the rate in a unit of time.
    roots = jnp.sqrt(y0s) - 1
    assert_tree_close(by_y0, roots / jnp.sqrt(y0s), rtol=1e-3)
    assert_tree_close(by_rate, -roots[:, 0], rtol=1e-3)
