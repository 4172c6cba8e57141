"""The recorder inside diffrax's loop, and everything of diffrax that the engine hands to it."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from support.close import assert_tree_close
from support.marks import slow_but
from support.problems import PROBLEMS, SOLVERS, costs_for

import ndekit as nk

PROBLEM = PROBLEMS["lotka_volterra"]
RTOL, ATOL = 1e-3, 1e-4
COSTS = {"count": nk.StepCount(), "error": nk.EveryStep(nk.StepError(), "mean")}


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def controller():
    return diffrax.PIDController(rtol=RTOL, atol=ATOL)


def by_recorder(solver, costs, y0, args, adjoint=None, field=PROBLEM.field, t1=2.0, **options):
    recorder = nk.Recorder(solver, costs, rtol=RTOL, atol=ATOL)
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(field), recorder, 0.0, t1, 0.3, y0, args, max_steps=256,
        stepsize_controller=controller(), saveat=diffrax.SaveAt(t1=True, solver_state=True),
        adjoint=diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint, **options,
    )  # fmt: skip
    return recorder.costs_of(sol)


def by_door(solver, costs, y0, args, adjoint=None, field=PROBLEM.field, t1=2.0, **options):
    return nk.diffeqsolve(
        diffrax.ODETerm(field), solver, 0.0, t1, 0.3, y0, args, max_steps=256,
        stepsize_controller=controller(), costs=costs,
        adjoint=nk.ReplayAdjoint() if adjoint is None else adjoint, **options,
    ).costs  # fmt: skip


def value_and_gradients(solve, solver, costs):
    """Every cost, and its derivative by start and parameters."""

    def weighed(y0, args, weights):
        found = solve(solver, costs, y0, args)
        vector = jnp.stack([found[name] for name in sorted(costs)])
        return vector @ weights, vector

    gradient = jax.jit(jax.grad(weighed, argnums=(0, 1), has_aux=True))
    rows = [gradient(PROBLEM.state(), PROBLEM.parameters(), row) for row in jnp.eye(len(costs))]
    return rows[0][1], jax.tree.map(lambda *leaves: jnp.stack(leaves), *[row[0] for row in rows])


@functools.cache
def both_ways(solver_name):
    costs = costs_for(solver_name)
    with jax.enable_x64(True):
        ways = (by_door, by_recorder)
        return [value_and_gradients(way, SOLVERS[solver_name], costs) for way in ways]


SOLVER_NAMES = slow_but(("Tsit5",), [name for name in SOLVERS if name != "Euler"])


@pytest.mark.parametrize("name", SOLVER_NAMES)
def test_engine_and_recorder_agree_in_every_cost(name):
    (engine, _), (recorder, _) = both_ways(name)
    assert_tree_close(engine, recorder, rtol=1e-8)


@pytest.mark.parametrize("name", SOLVER_NAMES)
def test_engine_and_recorder_agree_in_every_gradient(name):
    (_, engine), (_, recorder) = both_ways(name)
    scale = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(recorder))
    assert_tree_close(engine, recorder, rtol=1e-7, atol=1e-9 * scale)


def kvaerno3():
    root_finder = diffrax.with_stepsize_controller_tols(optx.Chord)()
    return diffrax.Kvaerno3(root_finder=root_finder)


WRAPPED = {
    "half_solver": lambda: diffrax.HalfSolver(diffrax.Heun()),
    "kvaerno3": kvaerno3,
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_recorded_solver_steps_as_the_bare_one(name):
    solver = WRAPPED[name]()
    given = (0.0, 1.0, 0.1, PROBLEM.state(), PROBLEM.parameters())
    options = dict(stepsize_controller=controller())
    plain = diffrax.diffeqsolve(diffrax.ODETerm(PROBLEM.field), solver, *given, **options)
    ours = nk.diffeqsolve(diffrax.ODETerm(PROBLEM.field), solver, *given, costs=COSTS, **options)
    assert int(ours.stats["num_steps"]) == int(plain.stats["num_steps"])
    assert_tree_close(ours.ys, plain.ys, rtol=1e-12)
    assert 0 < float(ours.costs["count"]) <= int(plain.stats["num_accepted_steps"])


class One(nk.AbstractStepCost):
    def of_step(self, step):
        return jnp.ones_like(step.h)


@pytest.mark.parametrize("name", WRAPPED)
def test_a_recorded_solver_counts_accepted_steps_only(name):
    sol = nk.diffeqsolve(
        diffrax.ODETerm(PROBLEM.field), WRAPPED[name](), 0.0, 1.0, 0.9, PROBLEM.state(),
        PROBLEM.parameters(), stepsize_controller=controller(), costs={"one": One()},
    )  # fmt: skip
    assert int(sol.stats["num_rejected_steps"]) > 0
    assert float(sol.costs["one"]) == int(sol.stats["num_accepted_steps"])


ADJOINTS = {
    "direct": diffrax.DirectAdjoint(),
    "forward": diffrax.ForwardMode(),
}


@pytest.mark.parametrize("name", ADJOINTS)
def test_costs_through_the_door_have_the_same_gradient_under_diffrax_adjoints(name):
    adjoint = ADJOINTS[name]
    differentiate = jax.jacfwd if name == "forward" else jax.grad
    count = lambda adjoint: (
        lambda y0: by_door(SOLVERS["Bosh3"], COSTS, y0, PROBLEM.parameters(), adjoint, t1=0.7)[
            "count"
        ]
    )
    ours = jax.jit(differentiate(count(adjoint)))(PROBLEM.state())
    engine = jax.jit(jax.grad(count(None)))(PROBLEM.state())
    assert_tree_close(ours, engine, rtol=1e-8)


def test_a_wrapped_wrapper_is_differentiable_under_direct_adjoint():
    # diffrax's own HalfSolver dies here for want of `scan_kind`; the recorder passes it on.
    value = lambda y0: by_door(
        SOLVERS["Heun"], COSTS, y0, PROBLEM.parameters(), diffrax.DirectAdjoint(), t1=0.7
    )["error"]
    assert np.all(np.isfinite(jax.grad(value)(PROBLEM.state())))


def test_costs_without_a_solver_state_are_refused():
    recorder = nk.Recorder(SOLVERS["Tsit5"], COSTS, rtol=RTOL, atol=ATOL)
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(PROBLEM.field), recorder, 0.0, 1.0, 0.1, PROBLEM.state(),
        PROBLEM.parameters(), stepsize_controller=controller(),
    )  # fmt: skip
    with pytest.raises(ValueError, match="solver_state=True"):
        recorder.costs_of(sol)


# What the engine does not do itself comes back as diffrax gives it.

SAVES = {
    "steps": lambda: diffrax.SaveAt(steps=True),
    "every_second_step": lambda: diffrax.SaveAt(steps=2),
    "fn": lambda: diffrax.SaveAt(ts=jnp.linspace(0, 1, 4), fn=lambda t, y, args: y[0] * t),
    "subs": lambda: diffrax.SaveAt(
        subs={
            "end": diffrax.SubSaveAt(t1=True),
            "path": diffrax.SubSaveAt(ts=jnp.array([0.2, 0.7])),
        }
    ),
}


def plain_and_ours(saveat, field=PROBLEM.field, y0=None, args=None, costs=None, **options):
    y0 = PROBLEM.state() if y0 is None else y0
    args = PROBLEM.parameters() if args is None else args
    given = (diffrax.ODETerm(field), SOLVERS["Tsit5"], 0.0, 1.0, 0.1, y0, args)
    options |= dict(saveat=saveat, stepsize_controller=controller(), max_steps=32)
    return diffrax.diffeqsolve(*given, **options), nk.diffeqsolve(*given, costs=costs, **options)


@pytest.mark.parametrize("costs", [None, COSTS], ids=["plain", "with_costs"])
@pytest.mark.parametrize("name", SAVES)
def test_other_ways_to_save_are_diffrax_own(name, costs):
    plain, ours = plain_and_ours(SAVES[name](), costs=costs)
    assert_tree_close((ours.ts, ours.ys), (plain.ts, plain.ys), rtol=1e-9)


def test_dense_output_is_diffrax_own():
    plain, ours = plain_and_ours(diffrax.SaveAt(dense=True), costs=COSTS)
    for t in (0.05, 0.5, 0.93):
        assert_tree_close(ours.evaluate(t), plain.evaluate(t), rtol=1e-9)


def test_the_fallback_gives_the_costs_of_the_engine():
    _, ours = plain_and_ours(diffrax.SaveAt(steps=True), costs=COSTS)
    _, engine = plain_and_ours(diffrax.SaveAt(t1=True), costs=COSTS)
    assert_tree_close(ours.costs, engine.costs, rtol=1e-8)


def test_an_event_ends_the_solve_where_diffrax_does():
    event = diffrax.Event(lambda t, y, args, **_: y[0] - 1.5, optx.Newton(1e-8, 1e-8))
    plain, ours = plain_and_ours(diffrax.SaveAt(t1=True), costs=COSTS, event=event)
    assert float(plain.ts[-1]) < 0.99
    assert_tree_close((ours.ts, ours.ys), (plain.ts, plain.ys), rtol=1e-10)
    assert bool(ours.event_mask) is True


@pytest.mark.filterwarnings("ignore:Complex dtype support")
def test_a_complex_state_turns_as_it_should():
    field = lambda t, y, args: 2j * y
    sol = nk.diffeqsolve(
        diffrax.ODETerm(field), SOLVERS["Tsit5"], 0.0, 1.0, 0.05, jnp.array([1.0 + 1.0j]),
        stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-9), costs=COSTS,
    )  # fmt: skip
    assert_tree_close(sol.ys[-1], np.array([(1 + 1j) * np.exp(2j)]), rtol=1e-7)
    assert float(sol.costs["count"]) > 5


def test_solver_state_is_diffrax_own_and_not_the_recorders():
    plain, ours = plain_and_ours(diffrax.SaveAt(t1=True, solver_state=True), costs=COSTS)
    assert_tree_close(ours.solver_state, plain.solver_state, rtol=1e-9)


def test_a_controlled_term_goes_through_diffrax():
    control = diffrax.LinearInterpolation(jnp.array([0.0, 1.0]), jnp.array([0.0, 2.0]))
    term = diffrax.ControlTerm(lambda t, y, args: -y, control).to_ode()
    multi = diffrax.MultiTerm(term, diffrax.ODETerm(lambda t, y, args: y))
    sol = nk.diffeqsolve(
        multi, SOLVERS["Tsit5"], 0.0, 1.0, 0.05, jnp.asarray(3.0), costs={"one": One()}
    )
    assert_tree_close(sol.ys[-1], 3 * np.exp(-1), rtol=1e-7)
    assert float(sol.costs["one"]) == int(sol.stats["num_steps"]) == 20
