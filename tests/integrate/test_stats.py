"""What a solve reports and what it takes: evaluations, compilations, memory, operations."""

import collections
import math

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core as jex_core
from support.problems import PROBLEMS, SOLVERS

import ndekit as nk


def counted_field(calls):
    """y' = -8 tanh(5 y), evaluated by Python, which counts."""

    def evaluate(y):
        calls.append(1)
        return -8 * np.tanh(5 * np.asarray(y))

    def field(t, y, args):
        # With a rule for `jax.vmap`, or diffrax's loop would evaluate the field.
        like = jax.ShapeDtypeStruct(y.shape, y.dtype)
        return jax.pure_callback(evaluate, like, y, vmap_method="sequential")

    return field


CONTROLLED = {
    # (controller, dt0, whether steps get rejected)
    "automatic_start": (diffrax.PIDController(rtol=1e-4, atol=1e-5), None, False),
    "rejections": (diffrax.PIDController(rtol=1e-4, atol=1e-5), 0.9, True),
    "fixed": (diffrax.ConstantStepSize(), 0.1, False),
}
EVALUATED = [
    (solver, control)
    for solver in ("Euler", "Heun", "Bosh3", "Tsit5", "Dopri8")
    for control in CONTROLLED
    if solver != "Euler" or control == "fixed"
]


@pytest.mark.parametrize(("solver", "control"), EVALUATED)
def test_num_evals_is_the_number_of_evaluations(solver, control):
    controller, dt0, rejects = CONTROLLED[control]
    calls = []
    sol = nk.diffeqsolve(
        diffrax.ODETerm(counted_field(calls)), SOLVERS[solver], 0.0, 1.0, dt0, 3 * jnp.ones(2),
        stepsize_controller=controller,
    )  # fmt: skip
    jax.block_until_ready(sol)
    assert not rejects or int(sol.stats["num_rejected_steps"]) > 0
    assert int(sol.stats["num_evals"]) == len(calls)


def test_costs_and_saved_times_add_no_evaluation():
    evals = []
    for options in (
        {},
        dict(
            costs={"count": nk.StepCount(), "rho": nk.StepStiffness()},
            saveat=diffrax.SaveAt(ts=jnp.linspace(0, 1, 30)),
        ),
    ):
        calls = []
        sol = nk.diffeqsolve(
            diffrax.ODETerm(counted_field(calls)), SOLVERS["Tsit5"], 0.0, 1.0, 0.9, 3 * jnp.ones(2),
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-5), **options,
        )  # fmt: skip
        jax.block_until_ready(sol)
        evals.append(len(calls))
    assert evals[0] == evals[1]


def test_num_evals_is_the_same_through_diffrax_loop():
    given = (diffrax.ODETerm(PROBLEMS["lotka_volterra"].field), SOLVERS["Bosh3"], 0.0, 1.0, 0.5)
    state = (PROBLEMS["lotka_volterra"].state(), PROBLEMS["lotka_volterra"].parameters())
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-4)
    engine, loop = [
        nk.diffeqsolve(*given, *state, stepsize_controller=controller, saveat=saveat)
        for saveat in (diffrax.SaveAt(t1=True), diffrax.SaveAt(steps=True))
    ]
    assert int(engine.stats["num_evals"]) == int(loop.stats["num_evals"])


def test_each_lane_has_its_own_stats():
    def stats(rate):
        return nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -args * y), SOLVERS["Bosh3"], 0.0, 1.0, 0.1,
            jnp.ones(1), rate, stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-4),
        ).stats  # fmt: skip

    rates = jnp.array([0.5, 60.0])
    together = jax.vmap(lambda rate: {k: v for k, v in stats(rate).items() if k != "max_steps"})(
        rates
    )
    for lane, rate in enumerate(rates):
        alone = stats(rate)
        assert {k: int(v[lane]) for k, v in together.items()} == {
            k: int(alone[k]) for k in together
        }


@pytest.mark.parametrize("differentiate", [False, True], ids=["forward", "gradient"])
def test_new_values_need_no_new_trace(differentiate):
    traces = []

    def field(t, y, args):
        traces.append(1)
        return -args * y

    term = diffrax.ODETerm(field)

    def total(y0, args, t1, ts):
        sol = nk.diffeqsolve(
            term, SOLVERS["Bosh3"], 0.0, t1, None, y0, args, saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-4),
            costs={"count": nk.StepCount()},
        )  # fmt: skip
        return jnp.sum(sol.ys) + sol.costs["count"]

    run = jax.grad(total, argnums=(0, 1)) if differentiate else total
    run = jax.jit(run)
    ts = jnp.linspace(0.1, 0.9, 3)
    run(jnp.ones(2), jnp.asarray(1.0), jnp.asarray(1.0), ts)
    after_first = len(traces)
    run(jnp.zeros(2), jnp.asarray(2.0), jnp.asarray(5.0), 2 * ts)
    assert after_first > 0
    assert len(traces) == after_first


def test_a_solve_outside_of_jit_is_compiled_once():
    traces = []

    def field(t, y, args):
        traces.append(1)
        return -args * y

    term = diffrax.ODETerm(field)
    for value in (1.0, 2.0, 3.0):
        nk.diffeqsolve(
            term, SOLVERS["Heun"], 0.0, 1.0, 0.1, jnp.full(2, value), jnp.asarray(value),
            saveat=diffrax.SaveAt(ts=value * jnp.linspace(0.1, 0.3, 3)),
        )  # fmt: skip
        if value == 1.0:
            after_first = len(traces)
    assert len(traces) == after_first


@pytest.mark.parametrize("max_steps", [256, 4096])
def test_memory_of_the_gradient_is_a_few_states_more_than_two_roots(max_steps):
    size, itemsize = 200, 4

    def total(y0, rates):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -args * jnp.tanh(y)), SOLVERS["Tsit5"], 0.0, 1.0,
            None, y0, rates, stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-6),
            costs={"count": nk.StepCount()}, max_steps=max_steps,
        )  # fmt: skip
        return jnp.sum(sol.ys) + sol.costs["count"]

    like = jax.ShapeDtypeStruct((size,), jnp.float32)
    compiled = jax.jit(jax.grad(total, argnums=(0, 1))).lower(like, like).compile()
    used = compiled.memory_analysis().temp_size_in_bytes
    times = (max_steps + 1) * itemsize
    assert used - times <= (2 * math.sqrt(max_steps) + 40) * size * itemsize


def additions_in(jaxpr):
    """How many additions a program writes, loops counted once."""
    number = collections.Counter(eqn.primitive.name for eqn in jaxpr.eqns)
    total = number["add"] + number["add_any"] + number["sub"]
    for eqn in jaxpr.eqns:
        total += sum(additions_in(inner) for inner in jex_core.jaxprs_in_params(eqn.params))
        total += additions_of(eqn.params.get("program"))
    return total


def additions_of(program):
    """Of an operation of the engine's own, mapped or not."""
    program = getattr(program, "inner", program)
    traced = getattr(program, "traced", None)
    return 0 if traced is None else additions_in(traced.jaxpr)


@pytest.mark.parametrize("lanes", [None, 8], ids=["single", "vmap"])
def test_the_compiler_does_not_repeat_the_additions_of_a_cheap_field(lanes):
    problem = PROBLEMS["lorenz"]

    def total(y0, args):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(problem.field), SOLVERS["Tsit5"], 0.0, 1.0, 0.01, y0, args,
            stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-6),
        )  # fmt: skip
        return jnp.sum(sol.ys)

    gradient = jax.grad(total, argnums=(0, 1))
    given = problem.state(), problem.parameters()
    if lanes is not None:
        gradient = jax.vmap(gradient)
        given = jax.tree.map(lambda x: jnp.broadcast_to(x, (lanes, *x.shape)), given)
    traced = jax.jit(gradient).trace(*given)
    hlo = traced.lower().compile().as_text()
    written = additions_in(traced.jaxpr.jaxpr)
    compiled = hlo.count(" add(") + hlo.count(" subtract(")
    # Lowering alone adds some: indices, loop counters, slices that stand for one sum each.
    assert 0 < compiled <= 3 * written
