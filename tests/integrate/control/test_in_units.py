"""Controllers in units of their own: the same steps as of what they see, costs in these units."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.close import assert_tree_close

import ndekit as nk

pytestmark = pytest.mark.usefixtures("x64")
PID = diffrax.PIDController(rtol=1e-4, atol=1e-6)
TIMES = diffrax.SaveAt(steps=True)


def field(t, y, args):
    return jnp.stack([y[1], -4 * y[0]]) * (1 + t)


def solve(controller, t0=0.0, t1=2.0, by=nk.diffeqsolve, **options):
    """An oscillator whose state shrinks or grows as `controller` is not told."""
    return by(
        diffrax.ODETerm(field), diffrax.Tsit5(), t0, t1, 0.05, jnp.array([1.0, 0.5]),
        stepsize_controller=controller, saveat=TIMES, max_steps=256, **options,
    )  # fmt: skip


def falling(t):
    return jnp.exp(-2 * t)


def by_hand(sol, unit, rtol, atol):
    """Scaled errors of the accepted steps, by their definition, from the embedded method."""
    tableau = diffrax.Tsit5.tableau
    ts = np.concatenate([[0.0], np.asarray(sol.ts)[np.isfinite(sol.ts)]])
    found = []
    y0 = np.array([1.0, 0.5])
    for t, end in zip(ts[:-1], ts[1:], strict=True):
        h, k = end - t, [np.asarray(field(t, y0, None))]
        for row, c in zip(tableau.a_lower, tableau.c, strict=True):
            stage = y0 + h * sum(a * rate for a, rate in zip(row, k, strict=True))
            k.append(np.asarray(field(t + c * h, stage, None)))
        y1 = y0 + h * sum(b * rate for b, rate in zip(tableau.b_sol, k, strict=True))
        error = h * sum(b * rate for b, rate in zip(tableau.b_error, k, strict=True))
        u0, u1 = unit(t), unit(end)
        ratio = (error / u1) / (atol + rtol * np.maximum(np.abs(y0 / u0), np.abs(y1 / u1)))
        found.append(np.sqrt(np.mean(ratio**2)))
        y0 = y1
    return np.array(found)


def test_costs_are_of_the_error_that_the_controller_sees():
    costs = {"count": nk.EachStep(nk.StepCount()), "squares": nk.StepError(power=2)}
    pid = diffrax.PIDController(rtol=1e-5, atol=1e-4)
    sol = solve(nk.InUnits(pid, falling), costs=costs)
    errors = by_hand(sol, lambda t: np.exp(-2 * t), 1e-5, 1e-4)
    number = int(sol.stats["num_accepted_steps"])
    assert number == len(errors) and np.all(errors < 1)
    # Tsit5's estimate is a difference of nearly equal numbers.
    assert_tree_close(sol.costs["count"][:number], errors**0.2, rtol=1e-6)
    assert_tree_close(sol.costs["squares"], np.sum(errors**2), rtol=1e-5)
    plain = solve(pid)
    assert sol.stats["num_steps"] > plain.stats["num_steps"] + 3


def test_a_constant_unit_is_an_absolute_tolerance():
    """Halving the unit doubles what y / u may be off, in y; `rtol` has no say in it."""
    inside, plain = (
        solve(controller, costs={"steps": nk.StepCount()})
        for controller in (
            nk.InUnits(PID, lambda t: jnp.array(8.0)),
            diffrax.PIDController(rtol=1e-4, atol=8e-6),
        )
    )
    ends = [sol.ts[np.isfinite(sol.ts)] for sol in (inside, plain)]
    assert_tree_close(*ends, rtol=1e-9)
    assert_tree_close(inside.costs, plain.costs, rtol=1e-9)


def test_diffrax_takes_the_same_steps():
    ours, theirs = (
        solve(nk.InUnits(PID, falling), by=by) for by in (nk.diffeqsolve, diffrax.diffeqsolve)
    )
    finite = np.isfinite(theirs.ts)
    assert np.array_equal(finite, np.isfinite(ours.ts))
    assert_tree_close(ours.ts[finite], theirs.ts[finite], rtol=1e-9)


def test_costs_are_the_same_in_diffraxs_loop():
    costs = {"steps": nk.StepCount()}
    ours = solve(nk.InUnits(PID, falling), costs=costs)
    theirs = solve(nk.InUnits(PID, falling), costs=costs, adjoint=diffrax.DirectAdjoint())
    assert_tree_close(ours.costs, theirs.costs, rtol=1e-8)


def test_backwards_the_unit_is_that_of_the_users_time():
    """y(-s) solved forwards, with the unit read at -s."""
    costs = {"steps": nk.StepCount()}
    there = nk.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), 2.0, 0.0, -0.05, jnp.array([1.0, 0.5]),
        stepsize_controller=nk.InUnits(PID, falling), costs=costs,
    )  # fmt: skip
    mirrored = nk.diffeqsolve(
        diffrax.ODETerm(lambda s, y, args: -field(-s, y, args)), diffrax.Tsit5(), -2.0, 0.0, 0.05,
        jnp.array([1.0, 0.5]), stepsize_controller=nk.InUnits(PID, lambda s: falling(-s)),
        costs=costs,
    )  # fmt: skip
    assert there.stats["num_steps"] == mirrored.stats["num_steps"]
    assert_tree_close(there.costs, mirrored.costs, rtol=1e-9)
    assert_tree_close(there.ys, mirrored.ys, rtol=1e-9)


def test_the_first_step_is_that_of_what_is_seen():
    """Hairer's rule, for X = y / u and for X' as a field of its own."""
    term, order = diffrax.ODETerm(field), 5
    args = (0.3, 2.0, jnp.array([1.0, 0.5]), None, None)
    func = lambda terms, t, y, args: field(t, y, args)
    ours, _ = nk.InUnits(PID, falling).init(term, *args, func, order)
    seen = lambda terms, t, x, args: field(t, x * falling(t), args) / falling(t) + 2 * x
    start = jnp.array([1.0, 0.5]) / falling(0.3)
    plain, _ = PID.init(term, 0.3, 2.0, start, None, None, seen, order)
    assert_tree_close(ours, plain, rtol=1e-9)


class Constant(eqx.Module):
    value: jax.Array

    def __call__(self, t):
        return self.value


def test_costs_have_a_derivative_by_the_unit():
    """Without `rtol` an error is as the inverse of the unit: on given steps the count falls as its
    root of order five.
    """
    absolute = diffrax.PIDController(rtol=0.0, atol=1e-5)

    def count(value):
        controller = nk.InUnits(absolute, Constant(value))
        return solve(controller, costs={"steps": nk.StepCount()}).costs["steps"]

    value, slope = jax.value_and_grad(count)(jnp.array(2.0))
    assert_tree_close(slope, -value / (5 * 2.0), rtol=1e-6)


def bent(shift, size=None):
    path = nk.paths.LearnedPath(0.01, 20.0, size=size)
    return eqx.tree_at(lambda p: p.log_scale, path, path.log_scale + shift)


@pytest.mark.parametrize("data_std", [None, 0.8])
@pytest.mark.parametrize("shift", [1.3, np.array([[-2.0, 3.0]])], ids=["scalar", "diagonal"])
def test_paths_that_are_the_same_up_to_scale_make_the_same_steps(data_std, shift):
    """Of a mixture, along a path and along the same one in other units."""
    law = nk.models.GaussianMixture(jnp.array([[1.0, 0.0], [-1.0, 0.5]]), 0.1)
    start, found = jnp.array([13.0, -7.0]), []
    size = None if np.ndim(shift) == 0 else 2
    for path in (bent(0.0, size), bent(shift, size)):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(law.velocity(path)), diffrax.Bosh3(), 0.0, 1.0, 0.1,
            start * path.a(0.0), max_steps=512,
            stepsize_controller=nk.InUnits(PID, nk.paths.PathUnits(path, data_std)),
            costs={"steps": nk.StepCount()},
        )  # fmt: skip
        found.append((sol.ys[-1] / path.a(1.0), sol.costs, sol.stats))
    assert found[0][2]["num_steps"] == found[1][2]["num_steps"] > 20
    assert found[0][2]["num_rejected_steps"] == found[1][2]["num_rejected_steps"]
    assert_tree_close(found[0][:2], found[1][:2], rtol=1e-7)


def test_a_recorded_solve_shows_what_the_controller_saw():
    controller = nk.InUnits(PID, falling)
    table = nk.diagnose.record_steps(
        diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 2.0, 0.05, jnp.array([1.0, 0.5]),
        stepsize_controller=controller,
    )  # fmt: skip
    sol = solve(controller, costs={"squares": nk.StepError(power=2)})
    assert len(table.t0) == sol.stats["num_steps"]
    errors = table.scaled_error[table.accepted]
    assert_tree_close(np.sum(errors**2), np.asarray(sol.costs["squares"]), rtol=1e-4)


@pytest.mark.usefixtures("types_unchecked")
def test_what_cannot_be_is_refused_by_name():
    with pytest.raises(ValueError, match="units of a `diffrax.PIDController`, got a `Const"):
        nk.InUnits(diffrax.ConstantStepSize(), falling)
    with pytest.raises(ValueError, match="`unit` must be a function of time, got 2.0"):
        nk.InUnits(PID, 2.0)
    with pytest.raises(ValueError, match="knows the rule of `diffrax.PIDController` alone"):
        solve(
            nk.InUnits(PID, falling),
            adjoint=nk.ReplayAdjoint(step_sizes="differentiable"),
        )
