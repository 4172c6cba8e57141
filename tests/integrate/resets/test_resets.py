"""Solves with resets against one solve of diffrax's for each gap: values, derivatives, lanes."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optimistix as optx
import pytest
from support.close import assert_tree_close
from support.marks import slow_but
from support.reset_oracle import by_gaps

import ndekit as nk

pytestmark = pytest.mark.usefixtures("types_unchecked", "x64")
T0, T1, DT0 = 0.0, 2.0, 0.21
TS = (0.0, 0.4, 0.45, 1.3)


def field(t, y, args):
    w, _ = args
    return jnp.tanh(w @ y + jnp.sin(t))


def update(index, t, y, args):
    _, u = args
    return jnp.tanh(u @ y) + jnp.array([0.3, -0.2]) * (1 + index) * (1 + t**2)


def parameters(key=0):
    return tuple(jr.normal(k, (2, 2), jnp.float64) for k in jr.split(jr.key(key)))


Y0 = np.array([0.5, -1.0])
ADAPTIVE = diffrax.PIDController(rtol=1e-6, atol=1e-8)
ODE_SOLVERS = (
    diffrax.Euler(), diffrax.Heun(), diffrax.Tsit5(), diffrax.Dopri8(), diffrax.ReversibleHeun(),
    diffrax.LeapfrogMidpoint(), nk.AsynchronousLeapfrog(), nk.Reversible(diffrax.Heun()),
    diffrax.HalfSolver(diffrax.Midpoint()),
)  # fmt: skip
OFTEN = ODE_SOLVERS[:3:2]
FINDER = optx.Newton(rtol=1e-10, atol=1e-10)
IMPLICIT = (diffrax.Kvaerno3(root_finder=FINDER), diffrax.ImplicitEuler(root_finder=FINDER))


def name(solver):
    inner = getattr(solver, "solver", None)
    return type(solver).__name__ + ("" if inner is None else f"({type(inner).__name__})")


def solve(solver, w, u, y0, ts, t0=T0, t1=T1, **options):
    options.setdefault("dt0", None if "stepsize_controller" in options else DT0)
    dt0 = options.pop("dt0")
    resets = nk.Resets(ts, options.pop("update", update))
    given = (diffrax.ODETerm(field), solver, t0, t1, dt0, y0, (w, u))
    return nk.diffeqsolve(*given, resets=resets, **options)


def weighed(y, before, after):
    """A number that depends on everything."""
    return jnp.sum(jnp.sin(y)) + jnp.sum(before**2 * 0.3) + jnp.sum(jnp.cos(after) * before)


def loss(solver, *given, **options):
    sol = solve(solver, *given, **options)
    return weighed(sol.ys[-1], sol.resets.before, sol.resets.after)


def gap_loss(solver, w, u, y0, ts, t0=T0, t1=T1, **options):
    options.setdefault("dt0", None if "grid" in options else DT0)
    found = by_gaps(diffrax.ODETerm(field), solver, t0, t1, y0, (w, u), update, ts, **options)
    return weighed(*found)


@pytest.mark.parametrize("solver", slow_but(OFTEN, ODE_SOLVERS + IMPLICIT), ids=name)
def test_is_a_solve_for_each_gap(solver):
    """Values, and derivatives by parameters of flow and update, the state, all times."""
    given = (*parameters(), jnp.asarray(Y0), jnp.array(TS), jnp.asarray(T0), jnp.asarray(T1))
    wrt = range(6)
    # By the time of the reset at `t0`, and by `t0`, only together: one of them cannot move alone.
    fold = lambda gs: (*gs[:3], gs[3][1:], gs[3][0] + gs[4], gs[5])
    value, found = eqx.filter_jit(jax.value_and_grad(lambda *a: loss(solver, *a), wrt))(*given)
    expected, wanted = jax.value_and_grad(lambda *a: gap_loss(solver, *a), wrt)(*given)
    np.testing.assert_allclose(value, expected, rtol=1e-9)
    assert_tree_close(fold(found), fold(wanted), rtol=1e-6, atol=1e-7)


def test_adaptive_steps_are_those_of_its_grid():
    """The derivative of an adaptive solve is that of its recorded steps, of which those that end
    on resets move with them.
    """
    solver, (w, u), y0 = diffrax.Tsit5(), parameters(1), jnp.asarray(Y0)
    options = dict(stepsize_controller=ADAPTIVE)
    ts = jnp.array(TS[1:])
    seen = solve(solver, w, u, y0, ts, saveat=diffrax.SaveAt(steps=True), **options)
    grid = [float(t) for t in seen.ts if np.isfinite(t)]
    assert set(TS[1:]) <= set(grid)
    found = jax.grad(lambda *a: loss(solver, *a, **options), (0, 1, 2, 3))(w, u, y0, ts)
    wanted = jax.grad(lambda *a: gap_loss(solver, *a, grid=grid), (0, 1, 2, 3))(w, u, y0, ts)
    assert_tree_close(found, wanted, rtol=1e-9, atol=1e-10)


ADJOINTS = {
    "3 checkpoints": nk.ReplayAdjoint(checkpoints=3),
    "stages": nk.ReplayAdjoint(keep="stages"),
    "differentiable": nk.ReplayAdjoint(step_sizes="differentiable"),
    "2 checkpoints of stages": nk.ReplayAdjoint(checkpoints=2, keep="stages"),
}


@pytest.mark.parametrize("adjoint", slow_but(["3 checkpoints", "stages"], list(ADJOINTS)))
@pytest.mark.parametrize(
    "solver",
    slow_but([ODE_SOLVERS[1], ODE_SOLVERS[2]], [ODE_SOLVERS[2], IMPLICIT[0], ODE_SOLVERS[1]]),
    ids=name,
)
def test_adjoints_agree(solver, adjoint):
    adjoint = ADJOINTS[adjoint]
    (w, u), y0, ts = parameters(2), jnp.asarray(Y0), jnp.array(TS)
    controller = diffrax.ConstantStepSize()
    run = lambda *a, **kw: loss(solver, *a, dt0=DT0, stepsize_controller=controller, **kw)
    of = lambda **kw: jax.grad(lambda *a: run(*a, **kw), (0, 1, 2))(w, u, y0, ts)
    assert_tree_close(of(adjoint=adjoint), of(), rtol=1e-10, atol=1e-12)


def test_differentiable_step_sizes_by_differences():
    """Of the adaptive solve itself, whose steps move with everything."""
    (w, u), y0, ts = parameters(3), jnp.asarray(Y0), jnp.array(TS[1:])
    options = dict(
        adjoint=nk.ReplayAdjoint(step_sizes="differentiable"),
        stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-4), dt0=0.05,
    )  # fmt: skip
    run = eqx.filter_jit(lambda w, u, y0, ts: loss(diffrax.Bosh3(), w, u, y0, ts, **options))
    found = jax.grad(run, (0, 1, 2, 3))(w, u, y0, ts)
    h = 1e-6
    for i, x in enumerate((w, u, y0, ts)):
        for place in np.ndindex(x.shape):
            moved = lambda h, i=i, x=x, place=place: [
                x.at[place].add(h) if j == i else other for j, other in enumerate((w, u, y0, ts))
            ]
            by_difference = (run(*moved(h)) - run(*moved(-h))) / (2 * h)
            np.testing.assert_allclose(found[i][place], by_difference, rtol=2e-5, atol=1e-6)


def test_time_may_run_backwards():
    (w, u), y0, ts = parameters(4), jnp.asarray(Y0), jnp.array([1.7, 0.6, 0.5])
    wrt = (0, 1, 2, 3)
    run = lambda *a: loss(diffrax.Tsit5(), *a, t0=T1, t1=T0, dt0=-DT0)
    gaps = lambda *a: gap_loss(diffrax.Tsit5(), *a, t0=T1, t1=T0, dt0=-DT0)
    assert_tree_close(
        jax.grad(run, wrt)(w, u, y0, ts), jax.grad(gaps, wrt)(w, u, y0, ts), rtol=1e-9
    )


@pytest.mark.parametrize("padding", (np.inf, -np.inf))
@pytest.mark.parametrize("direction", (1, -1))
def test_padding_and_what_lies_beyond_is_not_made(direction, padding):
    (w, u), y0 = parameters(), jnp.asarray(Y0)
    ends = (T0, T1) if direction == 1 else (-T0, -T1)
    ts = jnp.array([0.4, 1.3, 2.5, padding]) * direction
    ts = ts.at[3].set(padding)
    sol = solve(diffrax.Tsit5(), w, u, y0, ts, *ends, dt0=DT0 * direction)
    plain = solve(diffrax.Tsit5(), w, u, y0, ts[:2], *ends, dt0=DT0 * direction)
    assert int(sol.resets.count) == 2
    np.testing.assert_array_equal(sol.ys, plain.ys)
    np.testing.assert_array_equal(sol.resets.before[:2], plain.resets.before)
    assert np.all(np.isinf(sol.resets.after[2:]))


def test_equal_times_come_one_after_the_other_and_ends_count():
    """Three at one time, one at `t0`, one at `t1`; saved values are those before."""
    add = lambda index, t, y, args: 2 * y + index
    zero = lambda t, y, args: jnp.zeros_like(y)
    ts = jnp.array([0.0, 1.0, 1.0, 1.0, 2.0])
    sol = nk.diffeqsolve(
        diffrax.ODETerm(zero), diffrax.Tsit5(), T0, T1, 0.5, jnp.asarray(1.0),
        saveat=diffrax.SaveAt(subs=[
            diffrax.SubSaveAt(t0=True, ts=jnp.array([0.5, 1.0, 1.5, 2.0])),
            diffrax.SubSaveAt(t1=True), diffrax.SubSaveAt(steps=True),
        ]),
        resets=nk.Resets(ts, add),
    )  # fmt: skip
    np.testing.assert_array_equal(sol.resets.before, [1, 2, 5, 12, 27])
    np.testing.assert_array_equal(sol.resets.after, [2, 5, 12, 27, 58])
    np.testing.assert_array_equal(sol.ys[0], [1, 2, 2, 27, 27])
    np.testing.assert_array_equal(sol.ys[1], [58])
    np.testing.assert_array_equal(sol.ys[2][:4], [2, 2, 27, 27])
    value = lambda y: nk.diffeqsolve(
        diffrax.ODETerm(zero), diffrax.Tsit5(), T0, T1, 0.5, y, resets=nk.Resets(ts, add)
    ).ys[-1]
    assert jax.grad(value)(1.0) == 32


def test_over_no_time():
    run = lambda y: nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 1.0, 1.0, 0.5, y,
        resets=nk.Resets(jnp.array([1.0, 2.0]), lambda i, t, y, args: 3 * y * t),
    ).ys[-1]  # fmt: skip
    value, slope = jax.value_and_grad(run)(2.0)
    assert (value, slope) == (6, 3)


def test_dense_output_knows_both_sides():
    (w, u), y0 = parameters(), jnp.asarray(Y0)
    sol = solve(diffrax.Tsit5(), w, u, y0, jnp.array(TS), saveat=diffrax.SaveAt(dense=True))
    for index, t in list(enumerate(TS))[1:]:
        np.testing.assert_allclose(sol.evaluate(t), sol.resets.before[index], atol=1e-12)
        np.testing.assert_allclose(sol.evaluate(t, left=False), sol.resets.after[index], atol=1e-12)


def test_next_step_is_as_long_as_the_one_that_was_cut():
    """Resets that change nothing cost a step each, not the climb back to the former size."""
    ts = jnp.arange(1.0, 20.0) * 0.5
    options = dict(stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5), t1=10.0)
    (w, u), y0 = parameters(), jnp.asarray(Y0)
    same = lambda index, t, y, args: y
    ts = jnp.sort(jnp.concatenate([ts, ts + 1e-5]))
    steps = lambda ts: solve(diffrax.Tsit5(), w, u, y0, ts, update=same, **options).stats[
        "num_steps"
    ]
    assert steps(ts) <= steps(ts[:0]) + len(ts) + 2


def test_steps_to_resets_on_its_grid():
    (w, u), y0 = parameters(), jnp.asarray(Y0)
    grid = jnp.array([0.0, 0.4, 0.45, 0.7, 1.3, 2.0])
    options = dict(stepsize_controller=diffrax.StepTo(grid))
    found = jax.grad(lambda *a: loss(diffrax.Tsit5(), *a, **options), (0, 1, 2))
    gaps = jax.grad(lambda *a: gap_loss(diffrax.Tsit5(), *a, grid=grid.tolist()), (0, 1, 2))
    given = (w, u, y0, jnp.array(TS))
    assert_tree_close(found(*given), gaps(*given), rtol=1e-10)


def test_continues_where_another_solve_ended():
    (w, u), y0, ts = parameters(), jnp.asarray(Y0), jnp.array([0.4, 1.3])
    whole = solve(diffrax.Tsit5(), w, u, y0, ts, dt0=0.1)
    saveat = diffrax.SaveAt(t1=True, solver_state=True, controller_state=True, made_jump=True)
    first = solve(diffrax.Tsit5(), w, u, y0, ts[:1], t1=1.0, dt0=0.1, saveat=saveat)
    state = {n: getattr(first, n) for n in ("solver_state", "controller_state", "made_jump")}
    state["update"] = lambda index, *given: update(index + 1, *given)
    second = solve(diffrax.Tsit5(), w, u, first.ys[-1], ts[1:], t0=1.0, dt0=0.1, **state)
    np.testing.assert_allclose(second.ys, whole.ys, rtol=1e-12)


def test_a_number_of_evaluations_that_is_true():
    """One more for each reset where the first stage is the last of the step before."""
    (w, u), y0 = parameters(), jnp.asarray(Y0)
    for solver, per_step, first in ((diffrax.Tsit5(), 6, 1), (diffrax.Heun(), 2, 0)):
        sol = solve(solver, w, u, y0, jnp.array(TS))
        expected = first + per_step * sol.stats["num_steps"] + first * len(TS)
        assert sol.stats["num_evals"] == expected


def test_steps_anew_are_those_of_a_solve_from_there():
    """The same steps, values and derivatives as one adaptive solve for each gap, each of which
    begins with an attempt at all of it.
    """
    (w, u), y0, ts = parameters(5), jnp.asarray(Y0), jnp.array([0.1, 0.9, 0.95])
    controller = diffrax.PIDController(rtol=1e-4, atol=1e-6, pcoeff=0.3, icoeff=0.4)
    knots = jnp.concatenate([ts, jnp.array([T1])])

    def whole(w, u, y0):
        resets = nk.Resets(ts, update, steps="anew")
        given = (diffrax.ODETerm(field), diffrax.Tsit5(), T0, T1, T1 - T0, y0, (w, u))
        sol = nk.diffeqsolve(*given, resets=resets, stepsize_controller=controller)
        return sol.ys[-1], sol.stats["num_steps"]

    def gaps(w, u, y0):
        y, start, number = y0, T0, 0
        for index, end in enumerate(knots):
            given = (diffrax.ODETerm(field), diffrax.Tsit5(), start, end, end - start, y, (w, u))
            sol = diffrax.diffeqsolve(*given, stepsize_controller=controller)
            y, number = sol.ys[-1], number + sol.stats["num_steps"]
            y = y if index == len(ts) else update(index, end, y, (w, u))
            start = end
        return y, number

    found, expected = whole(w, u, y0), gaps(w, u, y0)
    assert found[1] == expected[1] > len(knots)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-10)
    total = lambda fn: jax.grad(lambda *given: jnp.sum(fn(*given)[0] ** 2), (0, 1, 2))(w, u, y0)
    assert_tree_close(total(whole), total(gaps), rtol=1e-8)
    with pytest.raises(ValueError, match="neither|must be 'continue' or 'anew'"):
        nk.Resets(ts, update, steps="fresh")
    with pytest.raises(ValueError, match="step_sizes='differentiable'"):
        adjoint = nk.ReplayAdjoint(step_sizes="differentiable")
        nk.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), T0, T1, 0.1, y0, (w, u), adjoint=adjoint,
            stepsize_controller=controller, resets=nk.Resets(ts, update, steps="anew"),
        )  # fmt: skip


def test_steps_anew_move_with_the_times_of_resets():
    """As in `test_adaptive_steps_are_those_of_its_grid`; a rejected attempt at the whole way hands
    on a share of it, which moves with the reset.
    """
    solver, (w, u), y0 = diffrax.Tsit5(), parameters(1), jnp.asarray(Y0)
    ts = jnp.array(TS[1:])

    def ours(ts, saveat=None):
        given = (diffrax.ODETerm(field), solver, T0, T1, T1 - T0, y0, (w, u))
        resets = nk.Resets(ts, update, steps="anew")
        options = {} if saveat is None else {"saveat": saveat}
        return nk.diffeqsolve(*given, resets=resets, stepsize_controller=ADAPTIVE, **options)

    seen = ours(ts, diffrax.SaveAt(steps=True))
    grid = [float(t) for t in seen.ts if np.isfinite(t)]
    weigh = lambda sol: weighed(sol.ys[-1], sol.resets.before, sol.resets.after)
    found = jax.grad(lambda ts: weigh(ours(ts)))(ts)
    gaps = lambda ts: gap_loss(solver, w, u, y0, ts, grid=grid, anew=True)
    assert len(grid) > len(ts) + 3
    np.testing.assert_allclose(found, jax.grad(gaps)(ts), rtol=1e-9)
