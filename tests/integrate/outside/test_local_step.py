"""A step made once more beside the solve: under every adjoint, with every option."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax import lax
from jaxtyping import TypeCheckError
from support.close import assert_tree_close
from support.problems import StepEnd

import ndekit as nk

WEIGHTS = 1.5 * np.random.default_rng(0).standard_normal((3, 3))
Y0 = np.array([1.0, -0.5, 0.3])
KEY = 3
CONTROLLER = diffrax.PIDController(rtol=1e-6, atol=1e-6)
ADJOINTS = {
    "replay": nk.ReplayAdjoint(),
    "recursive": diffrax.RecursiveCheckpointAdjoint(),
    "backsolve": diffrax.BacksolveAdjoint(),
}


def field(t, y, weights):
    return jnp.tanh(weights @ y) + jnp.sin(3 * t)


def solve(weights, costs, *, ends=(0.0, 1.0), solver=diffrax.Tsit5(), **options):
    return nk.diffeqsolve(
        diffrax.ODETerm(field), solver, *ends, None, jnp.asarray(Y0), weights,
        stepsize_controller=CONTROLLER, costs=costs, key=jr.key(KEY), **options,
    )  # fmt: skip


def value_and_gradient(cost, **options):
    weights = jnp.asarray(WEIGHTS)
    return jax.value_and_grad(lambda w: solve(w, {"c": cost}, **options).costs["c"])(weights)


@pytest.mark.parametrize(
    ("sample", "ends"),
    [
        pytest.param("time", (1.0, 0.2), marks=pytest.mark.slow),
        ("step", (0.0, 1.0)),
        pytest.param("time", (0.0, 1.0), marks=pytest.mark.slow),
        pytest.param("step", (1.0, 0.2), marks=pytest.mark.slow),
    ],
)
def test_a_step_made_again_is_the_step_of_the_solve(x64, sample, ends):
    read = value_and_gradient(nk.OneStep(nk.StepError(), sample), ends=ends)
    again = nk.OneStep(nk.StepError(), sample)
    made = value_and_gradient(again, ends=ends, adjoint=ADJOINTS["backsolve"])
    # A backsolve is as good as its tolerance.
    assert_tree_close(
        made, read, rtol=1e-4, atol=1e-9
    )  # the backsolve's state is as good as its tolerance
    constant = nk.OneStep(nk.StepError(), sample, through_state=False)
    value, gradient = value_and_gradient(constant, ends=ends)
    assert_tree_close(value, read[0], rtol=1e-5)
    assert not np.allclose(gradient, read[1], rtol=1e-3, atol=0)


def published_by_hand(weights, t, frozen, through_state):
    """diffrax's own solve to the drawn time and its own step from there."""
    term, solver = diffrax.ODETerm(field), diffrax.Tsit5()
    sol = diffrax.diffeqsolve(
        term, solver, 0.0, 1.0, None, jnp.asarray(Y0), weights, stepsize_controller=CONTROLLER,
        saveat=diffrax.SaveAt(ts=[t]),
    )  # fmt: skip
    assert sol.ys is not None
    y = sol.ys[0] if through_state else lax.stop_gradient(sol.ys[0])
    t1, _ = CONTROLLER.init(term, t, 1.0, y, None, weights, solver.func, 5)  # pyright: ignore
    t1 = jnp.minimum(lax.stop_gradient(t1), 1.0)
    rate = field(t, y, weights)
    state = (jnp.array(False), lax.stop_gradient(rate) if frozen else rate)
    y1, error, _, _, _ = solver.step(term, t, t1, y, weights, state, False)
    scale = 1e-6 + 1e-6 * jnp.maximum(jnp.abs(y), jnp.abs(y1))
    return jnp.sqrt(jnp.mean((error / scale) ** 2)) * (t1 - t)


@pytest.mark.parametrize(
    ("first_stage", "through_state"),
    [pytest.param("recompute", True, marks=pytest.mark.slow), ("frozen", False)],
)
def test_the_published_scheme_by_hand(x64, first_stage, through_state):
    class Beginning(nk.AbstractStepCost):
        def of_step(self, step):
            return step.t0

    sol = solve(jnp.asarray(WEIGHTS), {"t": nk.OneStep(Beginning(), step_size="initial")})
    drawn = float(sol.costs["t"])
    assert 0 < drawn < 1
    cost = nk.OneStep(nk.StepError(), "time", "initial", first_stage, through_state)
    ours = value_and_gradient(cost)
    by_hand = jax.value_and_grad(published_by_hand)(
        jnp.asarray(WEIGHTS), drawn, first_stage == "frozen", through_state
    )
    assert_tree_close(ours, by_hand, rtol=1e-5)
    backsolve = value_and_gradient(cost, adjoint=ADJOINTS["backsolve"])
    assert_tree_close(backsolve, by_hand, rtol=1e-4)


def test_a_frozen_first_stage_makes_the_gradient_many_times_too_long(x64):
    right, frozen = (
        value_and_gradient(nk.OneStep(nk.StepError(), first_stage=stage, through_state=False))[1]
        for stage in ("recompute", "frozen")
    )
    assert jnp.linalg.norm(frozen) > 100 * jnp.linalg.norm(right)


@pytest.mark.parametrize(
    ("adjoint", "step_size"),
    [
        ("replay", "initial"),
        ("recursive", "solver"),
        ("backsolve", "initial"),
        ("backsolve", "solver"),
    ],
)
def test_what_was_asked_for_is_saved_as_without_it(x64, adjoint, step_size):
    saveat = diffrax.SaveAt(t0=True, ts=jnp.array([0.1, 0.45, 0.9]), t1=True)
    options = dict(saveat=saveat, adjoint=ADJOINTS[adjoint])
    cost = nk.OneStep(nk.StepError(), step_size=step_size, through_state=False)
    weights = jnp.asarray(WEIGHTS)
    plain, looked = (solve(weights, costs, **options) for costs in ({}, {"c": cost}))
    assert_tree_close((looked.ts, looked.ys), (plain.ts, plain.ys), rtol=1e-12)
    assert looked.stats["num_steps"] == plain.stats["num_steps"]


def test_several_kinds_in_one_solve(x64):
    costs = {
        "steps": nk.StepCount(),
        "local": nk.OneStep(nk.StepError()),
        "initial": nk.OneStep(nk.StepStiffness(), "step", "initial"),
        "published": nk.OneStep(nk.StepError(), "time", "initial", "frozen", False),
        "bent": nk.TrajectoryPolynomial(),
    }
    weights = jnp.asarray(WEIGHTS)
    together = solve(weights, costs).costs
    assert list(together) == list(costs)
    alone = {name: solve(weights, {name: cost}).costs[name] for name, cost in costs.items()}
    assert_tree_close(together, alone, rtol=1e-5)


@pytest.mark.slow
def test_each_lane_has_a_draw_of_its_own(x64):
    costs = {"local": nk.OneStep(nk.StepError(), "step", "initial"), "steps": nk.StepCount()}
    weights = jnp.asarray(WEIGHTS)
    keys = jr.split(jr.key(0), 3)
    one = lambda key: nk.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, None, jnp.asarray(Y0), weights,
        stepsize_controller=CONTROLLER, costs=costs, key=key,
    ).costs  # fmt: skip
    lanes = jax.vmap(one)(keys)
    for i in range(3):
        assert_tree_close(jax.tree.map(lambda x, i=i: x[i], lanes), one(keys[i]), rtol=1e-5)


def noisy(weights, cost, adjoint, solver, y0, key):
    path = diffrax.VirtualBrownianTree(
        0.0, 1.0, 1e-4, (3,), jr.key(1), levy_area=diffrax.SpaceTimeLevyArea
    )
    noise = diffrax.ControlTerm(lambda t, y, w: jnp.diag(0.1 + 0.1 * jnp.tanh(w @ y)), path)
    return nk.diffeqsolve(
        diffrax.MultiTerm(diffrax.ODETerm(field), noise), solver, 0.0, 1.0, 0.05, y0, weights,
        stepsize_controller=diffrax.PIDController(rtol=1e-2, atol=1e-2, dtmin=1e-3),
        adjoint=adjoint, costs={"c": cost}, key=key,
    ).costs["c"]  # fmt: skip


@pytest.mark.parametrize(
    ("solver", "adjoint"),
    [
        pytest.param(diffrax.Heun(), "backsolve", marks=pytest.mark.slow),
        (diffrax.Heun(), "replay"),
        pytest.param(diffrax.SPaRK(), "replay", marks=pytest.mark.slow),
    ],
    ids=["heun by backsolve", "heun", "spark"],
)
def test_stochastic_steps_are_made_again_with_their_own_noise(x64, solver, adjoint):
    given = (solver, jnp.asarray(Y0), jr.key(KEY))
    weights = jnp.asarray(WEIGHTS) / 3
    read = nk.OneStep(nk.StepError(), "step")
    again = nk.OneStep(nk.StepError(), "step", through_state=False)
    value = noisy(weights, read, ADJOINTS["replay"], *given)
    assert value > 0
    assert_tree_close(noisy(weights, again, ADJOINTS[adjoint], *given), value, rtol=1e-8)
    fresh = nk.OneStep(nk.StepError(), step_size="initial")
    gradient = jax.grad(noisy)(weights, fresh, ADJOINTS[adjoint], *given)
    assert jnp.all(jnp.isfinite(gradient)) and jnp.any(gradient != 0)


def test_an_implicit_step_is_made_again(x64):
    value = lambda cost: solve(jnp.asarray(WEIGHTS), {"c": cost}, solver=diffrax.Kvaerno5()).costs
    read = nk.OneStep(nk.StepError(), "step")
    made = nk.OneStep(nk.StepError(), "step", through_state=False)
    assert_tree_close(value(made), value(read), rtol=1e-3)


@pytest.mark.slow
def test_an_implicit_step_made_again_has_its_gradient(x64):
    cost, solver = nk.OneStep(nk.StepError(), "step"), diffrax.Kvaerno5()
    read = value_and_gradient(cost, solver=solver)
    made = value_and_gradient(cost, solver=solver, adjoint=ADJOINTS["backsolve"])
    assert_tree_close(made, read, rtol=1e-3)


@pytest.mark.parametrize("cost", [nk.StepError(), nk.StepCount(), nk.StepStiffness()])
def test_local_costs_are_global_ones_on_average(x64, cost):
    class PerTime(nk.AbstractStepCost):
        """Divided by h, so that the average along time is the sum over the steps."""

        def of_step(self, step):
            return cost.of_step(step) / step.h

    weights = jnp.asarray(WEIGHTS)
    whole = solve(weights, {"sum": cost, "mean": nk.EveryStep(cost, "mean")}).costs
    costs = {"sum": nk.OneStep(PerTime(), "time"), "mean": nk.OneStep(cost, "step")}
    one = lambda key: nk.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, None, jnp.asarray(Y0), weights,
        stepsize_controller=CONTROLLER, costs=costs, key=key,
    ).costs  # fmt: skip
    number = 2000
    drawn = jax.jit(jax.vmap(one))(jr.split(jr.key(7), number))
    for name, values in drawn.items():
        standard_error = jnp.std(values) / number**0.5
        assert abs(jnp.mean(values) - whole[name]) < 4 * standard_error


@pytest.mark.slow
def test_a_time_that_the_solve_never_reaches_costs_nothing():
    costs = {
        "c": nk.OneStep(nk.StepError(), step_size="initial"),
        "bent": nk.TrajectoryPolynomial(),
    }

    def loss(weights):
        return nk.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, 1e-3, jnp.asarray(Y0, jnp.float32),
            weights, stepsize_controller=CONTROLLER, costs=costs, key=jr.key(KEY),
            event=diffrax.Event(lambda t, y, args, **kwargs: t > 1e-4),
        ).costs  # fmt: skip

    weights = jnp.asarray(WEIGHTS, jnp.float32)
    assert loss(weights) == {"c": 0, "bent": 0}
    assert jnp.all(jax.grad(lambda w: sum(loss(w).values()))(weights) == 0)


def test_bad_input_is_refused():
    initial = nk.OneStep(nk.StepError(), step_size="initial")
    frozen = nk.OneStep(nk.StepError(), first_stage="frozen")
    weights = jnp.asarray(WEIGHTS)
    with pytest.raises(ValueError, match="does not choose"):
        nk.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, 0.1, jnp.asarray(Y0), weights,
            costs={"c": initial}, key=jr.key(0),
        )  # fmt: skip
    with pytest.raises(ValueError, match="explicit Runge-Kutta"):
        solve(weights, {"c": frozen}, solver=diffrax.Kvaerno5())
    with pytest.raises(ValueError, match="beside the solve"):
        nk.Recorder(diffrax.Tsit5(), {"c": frozen}, key=jr.key(0))
    for cost in (initial, nk.TrajectoryPolynomial()):
        with pytest.raises(ValueError, match="needs a key"):
            nk.diffeqsolve(
                diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, None, jnp.asarray(Y0), weights,
                stepsize_controller=CONTROLLER, costs={"c": cost},
            )  # fmt: skip
    with pytest.raises((ValueError, TypeCheckError), match="step_size"):
        nk.OneStep(nk.StepError(), step_size="large")  # pyright: ignore[reportArgumentType]


def ends_of(cost):
    return solve(jnp.asarray(WEIGHTS), {"c": cost}).costs["c"]


def test_the_drawn_step_is_the_same_for_all(x64):
    read, made = (
        ends_of(nk.OneStep(StepEnd(), "step", through_state=through)) for through in (True, False)
    )
    assert_tree_close(made, read, rtol=1e-12)
