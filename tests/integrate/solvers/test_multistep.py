"""Multistep and exponential solvers: orders on any grid, gradients, error estimates, counts."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.integrate
import scipy.special
from jaxtyping import TypeCheckError
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk
from ndekit.integrate.solvers.adams import moments

PID = diffrax.PIDController(rtol=1e-6, atol=1e-8)
# With the order that is expected, and the least error of a smooth solve by 80 steps.
SOLVERS = {
    "AB1": (nk.VariableAB(1), 1),
    "AB2": (nk.VariableAB(2), 2),
    "AB2 by Euler": (nk.VariableAB(2, "euler"), 2),
    "AB3": (nk.VariableAB(3), 3),
    "AB4": (nk.VariableAB(4), 4),
    "exponential 1": (nk.ExponentialAB(1), 1),
    "exponential 2": (nk.ExponentialAB(2), 2),
    "exponential 3": (nk.ExponentialAB(3), 3),
    "2M": (nk.UniPC(2, corrector=False), 2),
    "UniPC 1": (nk.UniPC(1), 2),
    "UniPC 2": (nk.UniPC(2), 3),
    "UniPC 3": (nk.UniPC(3, start="runge_kutta"), 4),
    "DPM 2": (nk.DPMSolver(2), 2),
    "DPM 3": (nk.DPMSolver(3), 3),
}
ADAPTIVE = [name for name in SOLVERS if name not in ("AB1", "AB2 by Euler", "exponential 1", "2M")]


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def field(t, y, args):
    return jnp.stack([y[1], -args * y[0]]) + 0.2 * jnp.cos(3 * t) * y**2


def solve(solver, grid, rate=2.0, **options):
    return nk.diffeqsolve(
        diffrax.ODETerm(field), solver, grid[0], grid[-1], None, jnp.array([1.0, 0.5]), rate,
        stepsize_controller=diffrax.StepTo(grid), max_steps=1024, **options,
    )  # fmt: skip


def by_scipy(t0, t1, rate=2.0):
    given = dict(rtol=1e-12, atol=1e-13, method="DOP853")
    return scipy.integrate.solve_ivp(
        lambda t, y: np.asarray(field(t, y, rate)), (t0, t1), [1.0, 0.5], **given
    ).y[:, -1]


def grids(kind, number):
    """From 0.5 to 2.5: equal steps, of logarithms, or of random lengths."""
    if kind == "equal":
        return jnp.linspace(0.5, 2.5, number + 1)
    if kind == "logarithms":
        return jnp.geomspace(0.5, 2.5, number + 1)
    rng = np.random.default_rng(3)
    lengths = np.repeat(rng.uniform(0.4, 1.6, 20), number // 20)  # refined, of one shape
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return jnp.asarray(0.5 + 2.0 * ends / ends[-1])


@pytest.mark.parametrize("kind", slow_but(("random",), ["equal", "logarithms", "random"]))
@pytest.mark.parametrize("name", slow_but(("AB4", "UniPC 2"), SOLVERS))
def test_order_on_any_grid(name, kind):
    solver, order = SOLVERS[name]
    exact = by_scipy(0.5, 2.5)
    error = lambda n: np.linalg.norm(solve(solver, grids(kind, n)).ys[-1] - exact)
    coarse, fine = error(80), error(160)
    # The first steps of low order and a length of its own for each step leave slopes their room.
    assert order - 0.35 < np.log2(coarse / fine) < order + 0.9
    assert solver.order(None) == order


@pytest.mark.parametrize(
    ("order", "weights"),
    [
        pytest.param(2, (3, -1, 2), marks=pytest.mark.slow),
        pytest.param(3, (23, -16, 5, 12), marks=pytest.mark.slow),
        (4, (55, -59, 37, -9, 24)),
    ],
)
def test_weights_on_equal_steps_are_the_known_ones(order, weights):
    *weights, over = weights
    f = lambda t: jnp.cos(2 * t)
    grid = jnp.linspace(0.0, 1.0, 11)
    sol = nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: f(t)), nk.VariableAB(order, "euler"), 0.0, 1.0, None,
        jnp.array(0.0), stepsize_controller=diffrax.StepTo(grid), saveat=diffrax.SaveAt(steps=True),
    )  # fmt: skip
    expected = 0.1 * sum(w * f(1.0 - 0.1 * (i + 1)) for i, w in enumerate(weights)) / over
    np.testing.assert_allclose(sol.ys[9] - sol.ys[8], expected, rtol=1e-12)


def test_the_third_order_weights_where_a_published_program_errs():
    """AB3 with steps 1, 2, 1 behind one another (the last first): the last weight is 0.222."""
    ts = jnp.array([0.0, 1.0, 3.0, 4.0])  # three steps, of which the last is by three rates
    near = lambda t, y, i: jnp.where(jnp.abs(t - ts[i]) < 1e-9, 1.0, 0.0).astype(y.dtype)
    of = jax.jit(
        lambda i: nk.diffeqsolve(
            diffrax.ODETerm(near), nk.VariableAB(3, "euler"), 0.0, 4.0, None, jnp.array(0.0), i,
            stepsize_controller=diffrax.StepTo(ts), saveat=diffrax.SaveAt(steps=True),
        ).ys
    )  # fmt: skip
    weights = [of(i)[2] - of(i)[1] for i in range(3)]
    lagrange = [np.poly1d([1.0]) for _ in range(3)]
    for i in range(3):
        for j in range(3):
            if i != j:
                lagrange[i] *= np.poly1d([1.0, -ts[j]]) / float(ts[i] - ts[j])
    exact = [p.integ()(4.0) - p.integ()(3.0) for p in lagrange]
    np.testing.assert_allclose(weights, exact, rtol=1e-12)


@pytest.mark.parametrize("end", [1.0001, 1.5, 2.9, 30.0, 0.999, 0.3, 0.01])
@pytest.mark.parametrize("start", [1.0, -2.0])
def test_moments_of_logarithms(start, end):
    found = moments(jnp.array(start), jnp.array(start * end), 5, True)
    for k, value in enumerate(found):
        exact, _ = scipy.integrate.quad(
            lambda v, k=k: v**k * np.exp(v) * start, 0, np.log(end), epsabs=1e-16, epsrel=1e-13
        )
        np.testing.assert_allclose(value, exact, rtol=1e-9)


def mixture_noise(sigma, x, args):
    """The noise in x at this scale, of data at -1 (3 of 10) and 2, with deviation 0.1."""
    centres, weights = jnp.array([-1.0, 2.0]), jnp.log(jnp.array([0.3, 0.7]))
    variance = sigma**2 + 0.01
    share = jax.nn.softmax(weights - (x - centres) ** 2 / (2 * variance))
    return sigma * jnp.sum(share * (x - centres)) / variance


def sampled(solver, grid, form="noise"):
    """By `d x / d sigma` from noise to data; or by `d y / d rho`, y = x / sigma, rho = 1/sigma."""
    grid, x = jnp.asarray(grid), jnp.asarray(X)
    if form == "noise":
        term, times, start = diffrax.ODETerm(mixture_noise), grid, x
    else:
        data = lambda rho, y, args: y / rho - mixture_noise(1 / rho, y / rho, None) / rho
        term, times, start = diffrax.ODETerm(data), 1 / grid, x / grid[0]
    sol = nk.diffeqsolve(
        term, solver, times[0], times[-1], None, start, stepsize_controller=diffrax.StepTo(times)
    )
    return sol.ys[-1] * (1 if form == "noise" else grid[-1])


GRID = np.array([10.0, 5.0, 3.0, 1.2, 0.7, 0.3, 0.1])
X = 5.0


def test_order_one_is_ddim_in_either_form():
    x = jnp.asarray(X)
    for start, end in zip(GRID[:-1], GRID[1:], strict=True):
        x = x + (end - start) * mixture_noise(start, x, None)
    one = nk.ExponentialAB(1, "euler")
    for form in ("noise", "data"):
        np.testing.assert_allclose(sampled(one, GRID, form=form), x, rtol=1e-12)
    np.testing.assert_allclose(sampled(nk.UniPC(1, False), GRID, form="data"), x, rtol=1e-12)


def by_hand_2m(grid, x):
    """DPM-Solver++(2M) as published, in its own variables, for a path with a = 1."""
    data = lambda sigma, x: x - sigma * mixture_noise(sigma, x, None)
    before, previous = None, None
    for start, end in zip(grid[:-1], grid[1:], strict=True):
        h, now = jnp.log(start / end), data(start, x)
        guess = now if before is None else now + h / (2 * previous) * (now - before)
        x = end / start * x - jnp.expm1(-h) * guess
        before, previous = now, h
    return x


def test_the_predictor_of_order_two_is_dpm_solver_2m():
    solver = nk.UniPC(2, corrector=False)
    found = sampled(solver, GRID, form="data")
    np.testing.assert_allclose(found, by_hand_2m(jnp.asarray(GRID), jnp.asarray(X)), rtol=1e-12)


def by_hand_unic1(grid, x):
    """UniPC of order 1: Euler predicts, a trapezoid in rho corrects, nothing is evaluated twice."""
    rho, y = 1 / grid, x / grid[0]
    data = lambda rho, y: y / rho - mixture_noise(1 / rho, y / rho, None) / rho
    now = data(rho[0], y)
    for start, end in zip(rho[:-1], rho[1:], strict=True):
        ahead = data(end, y + (end - start) * now)
        y, now = y + (end - start) * (now + ahead) / 2, ahead
    return y * grid[-1]


def test_the_first_corrector_is_a_trapezoid():
    found = sampled(nk.UniPC(1), GRID, form="data")
    np.testing.assert_allclose(found, by_hand_unic1(jnp.asarray(GRID), jnp.asarray(X)), rtol=1e-12)


@pytest.mark.parametrize("name", slow_but(("UniPC 2",), ["exponential 3", "UniPC 2", "2M"]))
def test_a_last_step_to_no_noise_is_one_of_eulers(name):
    to_zero = np.append(GRID, 0.0)
    before = sampled(SOLVERS[name][0], GRID)
    after = sampled(SOLVERS[name][0], to_zero)
    expected = before - GRID[-1] * mixture_noise(GRID[-1], before, None)
    tolerance = 1e-12 if name != "UniPC 2" else 0.05  # which goes on with the rate it predicted at
    np.testing.assert_allclose(after, expected, rtol=tolerance)


@pytest.mark.parametrize("name", slow_but(("exponential 3",), SOLVERS))
def test_gradient_is_a_finite_difference(name):
    solver, grid = SOLVERS[name][0], grids("random", 20)
    loss = lambda rate: jnp.sum(jnp.sin(solve(solver, grid, rate).ys[-1]))
    h = 1e-5
    slope = (loss(2.0 + h) - loss(2.0 - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(loss)(2.0), slope, rtol=1e-7)


@pytest.mark.parametrize("name", slow_but(("UniPC 2",), SOLVERS))
def test_values_inside_of_steps_are_of_the_same_order(name):
    solver, order = SOLVERS[name]
    ts = jnp.linspace(1.0, 2.5, 17)
    exact = np.stack([by_scipy(0.5, float(t)) for t in ts[::4]])

    def error(number):
        sol = solve(solver, grids("random", number), saveat=diffrax.SaveAt(ts=ts))
        end = solve(solver, grids("random", number)).ys[-1]
        np.testing.assert_allclose(sol.ys[-1], end, rtol=1e-12)
        return np.max(np.abs(sol.ys[::4] - exact))

    assert np.log2(error(40) / error(160)) / 2 > order - 0.5


@pytest.mark.parametrize("name", slow_but(("AB3",), ADAPTIVE))
def test_adaptive_steps_keep_to_their_tolerance(name, getkey):
    def end(y0, controller=PID):
        return nk.diffeqsolve(
            diffrax.ODETerm(field), SOLVERS[name][0], 0.5, 2.5, 0.05, y0, 2.0, max_steps=16384,
            stepsize_controller=controller, costs={"error": nk.StepError()},
        )  # fmt: skip

    sol = end(jnp.array([1.0, 0.5]))
    np.testing.assert_allclose(sol.ys[-1], by_scipy(0.5, 2.5), atol=2e-4)
    assert sol.stats["num_rejected_steps"] > 0 or name == "exponential 2"
    assert sol.costs["error"] > 0
    theirs = diffrax.diffeqsolve(
        diffrax.ODETerm(field), SOLVERS[name][0], 0.5, 2.5, 0.05, jnp.array([1.0, 0.5]), 2.0,
        max_steps=16384, stepsize_controller=PID,
    )  # fmt: skip
    assert_tree_close(sol.ys, theirs.ys, rtol=1e-9)
    assert sol.stats["num_steps"] == theirs.stats["num_steps"]
    lanes = jr.normal(getkey(), (3, 2))
    together = jax.vmap(lambda y0: end(y0).ys[-1])(lanes)
    np.testing.assert_allclose(together, [end(y0).ys[-1] for y0 in lanes], rtol=1e-9)


@pytest.mark.parametrize("name", ["AB2 by Euler", "2M"])
def test_without_estimates_no_adaptive_steps(name):
    with pytest.raises(RuntimeError, match="error estimate"):
        nk.diffeqsolve(
            diffrax.ODETerm(field), SOLVERS[name][0], 0.5, 2.5, 0.05, jnp.ones(2), 2.0,
            stepsize_controller=PID,
        )  # fmt: skip


@pytest.mark.parametrize("name", slow_but(("AB3",), [*SOLVERS, "PNDM 4"]))
def test_evaluations_are_those_that_were_made(name):
    solver = nk.PNDM(4) if name == "PNDM 4" else SOLVERS[name][0]
    calls, grid = [], grids("equal", 20)

    def watched(t, y, args):
        jax.debug.callback(lambda: calls.append(None))
        return field(t, y, args)

    for_diffrax = dict(stepsize_controller=diffrax.StepTo(grid), max_steps=64)
    diffrax.diffeqsolve(
        diffrax.ODETerm(watched), solver, grid[0], grid[-1], None, jnp.array([1.0, 0.5]), 2.0,
        **for_diffrax,
    )  # fmt: skip
    jax.effects_barrier()
    assert solve(solver, grid).stats["num_evals"] == len(calls)


def test_after_a_jump_nothing_is_remembered():
    """The field turns at 1.5: a rate from before it would be off by ten times the one behind it."""
    turning = diffrax.ODETerm(lambda t, y, args: jnp.where(t < 1.5, t**2, -7 * t**2))
    errors = {}
    for name in ("AB3", "UniPC 2"):
        controller = diffrax.ClipStepSizeController(
            diffrax.PIDController(rtol=1e-7, atol=1e-9, dtmax=0.01), jump_ts=jnp.array([1.5])
        )
        sol = nk.diffeqsolve(
            turning, SOLVERS[name][0], 0.5, 2.5, 0.01, jnp.array(0.0), max_steps=16384,
            stepsize_controller=controller,
        )  # fmt: skip
        exact = (1.5**3 - 0.5**3) / 3 - 7 * (2.5**3 - 1.5**3) / 3
        errors[name] = abs(sol.ys[-1] - exact)
    assert max(errors.values()) < 1e-4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nk.VariableAB(5), "`order` must be 1, 2, 3 or 4, got 5"),
        (lambda: nk.ExponentialAB(0), "order"),
        (lambda: nk.VariableAB(2, "rk4"), "start"),
        (lambda: nk.UniPC(1.5), "order"),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises((ValueError, TypeError, TypeCheckError), match=message):
        make()
