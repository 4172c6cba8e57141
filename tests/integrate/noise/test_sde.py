"""Solves of SDEs: every solver against diffrax on the same noise, gradients, paths, refusals."""

import dataclasses
import itertools

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import lineax as lx
import numpy as np
import pytest
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk
from ndekit.integrate.noise import adaptive as walk
from ndekit.integrate.noise.of_step import Noise
from ndekit.integrate.solvers import sosri
from ndekit.regularize.stiffness import STABILITY

AREA = diffrax.SpaceTimeLevyArea
MATRIX = np.array([[-1.0, 0.3], [0.2, -0.5]])
SOLVERS = {
    "Euler": (diffrax.Euler(), "diagonal"),
    "EulerHeun": (diffrax.EulerHeun(), "general"),
    "ItoMilstein": (diffrax.ItoMilstein(), "diagonal"),
    "StratonovichMilstein": (diffrax.StratonovichMilstein(), "diagonal"),
    "Heun": (diffrax.Heun(), "general"),
    "Midpoint": (diffrax.Midpoint(), "general"),
    "Ralston": (diffrax.Ralston(), "general"),
    "ReversibleHeun": (diffrax.ReversibleHeun(), "general"),
    "SEA": (diffrax.SEA(), "additive"),
    "SRA1": (diffrax.SRA1(), "additive"),
    "ShARK": (diffrax.ShARK(), "additive"),
    "GeneralShARK": (diffrax.GeneralShARK(), "general"),
    "SlowRK": (diffrax.SlowRK(), "general"),
    "SPaRK": (diffrax.SPaRK(), "general"),
    "SOSRI": (nk.SOSRI(), "diagonal"),
}
FAST = ["SRA1", "SOSRI"]
ADAPTIVE = ["Heun", "ReversibleHeun", "ShARK", "SPaRK", "SOSRI"]


def terms_of(kind, path):
    operator = lx.DiagonalLinearOperator
    noise = {
        "diagonal": lambda t, y, args: operator(0.3 * jnp.cos(y)),
        "additive": lambda t, y, args: operator(0.3 * jnp.ones(2) * (1 + t)),
        "general": lambda t, y, args: jnp.array([[0.3, 0.1], [0.2, 0.4]]) * (1 + y[:, None]),
    }
    drift = diffrax.ODETerm(lambda t, y, args: args * (MATRIX @ y) + jnp.sin(t))
    return diffrax.MultiTerm(drift, diffrax.ControlTerm(noise[kind], path))


class InSteps(diffrax.AbstractBrownianPath):
    """What a solve with the steps `h` from `t0` draws of a motion, for diffrax's own loop."""

    motion: nk.BrownianMotion
    begin: float
    h: float
    levy_area = AREA
    t0 = -np.inf
    t1 = np.inf

    def evaluate(self, t0, t1=None, left=True, use_levy=False):
        first = t0 if self.h > 0 else -t1  # time reflected, where it runs backwards
        begin = jnp.asarray(self.begin if self.h > 0 else -self.begin)
        number = jnp.round((first - begin) / abs(self.h)).astype(jnp.int32)
        x = self.motion.whole(jr.fold_in(self.motion.cell_key(begin), number), t1 - t0)
        return self.motion.dressed(x, t1 - t0, use_levy)


@pytest.mark.parametrize("backwards", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", slow_but(FAST, SOLVERS))
def test_every_solver_equals_diffrax_on_the_same_noise(name, backwards, x64):
    (solver, kind), y0 = SOLVERS[name], jnp.array([1.0, 0.5])
    t0, t1, h = (1.0, 0.0, -0.125) if backwards else (0.0, 1.0, 0.125)
    motion = nk.BrownianMotion((2,), jr.key(3), AREA)

    def last(solve, path):
        run = lambda args: solve(terms_of(kind, path), solver, t0, t1, h, y0, args).ys[-1]
        return jax.jit(lambda args: (run(args), jax.jacrev(run)(args)))(1.0)

    ours, theirs = last(nk.diffeqsolve, motion), last(diffrax.diffeqsolve, InSteps(motion, t0, h))
    assert_tree_close(ours, theirs, rtol=1e-12)


def ours_of(name, key, rate=1.0, *, controller=None, dt0=0.1, **options):
    solver, kind = SOLVERS[name]
    if controller is None:
        controller = diffrax.PIDController(rtol=1e-2, atol=1e-2)
    terms = terms_of(kind, nk.BrownianMotion((2,), key, AREA))
    return nk.diffeqsolve(
        terms, solver, 0.0, 1.0, dt0, jnp.array([1.0, 0.5]), rate, max_steps=512,
        stepsize_controller=controller, **options,
    )  # fmt: skip


@pytest.mark.parametrize("name", slow_but(["Heun"], ADAPTIVE))
def test_adaptive_gradients_equal_finite_differences(name, x64):
    """Steps are halves of halves: they stay where they are when a parameter moves a little."""
    key = jr.key(5)
    last = jax.jit(lambda rate: jnp.sum(ours_of(name, key, rate).ys))
    slope = (last(1 + 1e-6) - last(1 - 1e-6)) / 2e-6
    assert_tree_close(jax.grad(last)(1.0), slope, rtol=1e-6)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("adjoint", "steps"),
    [
        pytest.param(nk.ReplayAdjoint(checkpoints=3), "fixed", marks=SLOW),
        pytest.param(nk.ReplayAdjoint(checkpoints=3), "adaptive", marks=SLOW),
        pytest.param(nk.ReversibleAdjoint(), "fixed", marks=SLOW),
        (nk.ReversibleAdjoint(), "adaptive"),
        pytest.param(nk.ReplayAdjoint(keep="stages"), "fixed", marks=SLOW),
        pytest.param(nk.ReplayAdjoint(keep="stages"), "adaptive", marks=SLOW),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_every_adjoint_gives_the_same_gradient(adjoint, steps, x64):
    controller = diffrax.ConstantStepSize() if steps == "fixed" else None
    gradient = lambda adjoint: jax.grad(
        lambda rate: jnp.sum(
            ours_of("ReversibleHeun", jr.key(2), rate, controller=controller, adjoint=adjoint).ys
        )
    )(1.0)
    assert_tree_close(gradient(adjoint), gradient(nk.ReplayAdjoint()), rtol=1e-9)


def test_gradient_equals_that_of_a_scan(x64):
    motion, y0, h = nk.BrownianMotion((2,), jr.key(4)), jnp.array([1.0, 0.5]), 1 / 32

    def by_scan(rate):
        def step(y, n):
            (x,) = motion.whole(jr.fold_in(motion.cell_key(jnp.asarray(0.0)), n), jnp.asarray(h))
            drift = rate * (MATRIX @ y) + jnp.sin(n.astype(y.dtype) * h)
            return y + h * drift + 0.3 * jnp.cos(y) * x[0], None

        return jnp.sum(jax.lax.scan(step, y0, jnp.arange(32))[0])

    def by_solve(rate):
        sol = nk.diffeqsolve(terms_of("diagonal", motion), diffrax.Euler(), 0.0, 1.0, h, y0, rate)
        return jnp.sum(sol.ys)

    assert_tree_close(
        jax.value_and_grad(by_solve)(1.0), jax.value_and_grad(by_scan)(1.0), rtol=1e-10
    )


def geometric(solver, key, tolerance, **options):
    """dy = -y dt + y / 2 o dW: exp(-t + W / 2), or with the Ito correction."""
    path = nk.BrownianMotion((), key, AREA)
    terms = diffrax.MultiTerm(
        diffrax.ODETerm(lambda t, y, args: -y), diffrax.ControlTerm(lambda t, y, args: y / 2, path)
    )
    controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
    return nk.diffeqsolve(
        terms, solver, 0.0, 1.0, 0.1, jnp.array(1.0), max_steps=4096,
        stepsize_controller=controller, **options,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["SPaRK", pytest.param("Heun", marks=pytest.mark.slow)])
def test_tighter_tolerances_follow_the_same_path(name, x64):
    ts, key = jnp.linspace(0.0, 1.0, 4), jr.key(0)
    path = nk.BrownianMotion((), key, AREA, ts=ts)
    exact = jnp.exp(-ts + jax.vmap(lambda t: path.evaluate(0.0, t))(ts) / 2)
    solver, save = SOLVERS[name][0], diffrax.SaveAt(ts=ts)
    solve = jax.jit(lambda tolerance: geometric(solver, key, tolerance, saveat=save))
    coarse, fine = solve(1e-2), solve(1e-4)
    off = lambda sol: float(jnp.max(jnp.abs(sol.ys - exact)))
    assert coarse.stats["num_steps"] < fine.stats["num_steps"]
    assert off(fine) < 1e-3 < off(coarse) < 0.1


@pytest.mark.parametrize("area", [diffrax.BrownianIncrement, AREA])
def test_small_steps_lead_back_to_large_ones_on_the_same_path(area, x64):
    """From steps of 2^-13 up to a half: more levels than wait, so some are drawn anew."""
    assert walk.ROOM < 12
    solver = diffrax.Heun() if area is diffrax.BrownianIncrement else diffrax.SPaRK()
    still = diffrax.ODETerm(lambda t, y, args: jnp.zeros(2))

    def solve(key, dt0):
        path = nk.BrownianMotion((2,), key, area)
        noise = diffrax.ControlTerm(lambda t, y, args: lx.DiagonalLinearOperator(jnp.ones(2)), path)
        sol = nk.diffeqsolve(
            diffrax.MultiTerm(still, noise), solver, 0.0, 1.0, dt0, jnp.zeros(2), max_steps=32,
            saveat=diffrax.SaveAt(steps=True),
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3),
        )  # fmt: skip
        return sol.ts, sol.ys, sol.stats["num_steps"]

    keys, dt0s = jr.split(jr.key(3), 2), jnp.array([2.0**-13, 0.3])
    for key, ts, ys, number in zip(keys, *jax.jit(jax.vmap(solve))(keys, dt0s), strict=True):
        path = nk.BrownianMotion((2,), key, area, ts=jnp.array([0.0, 1.0]))
        exact = jax.vmap(lambda t, path=path: path.evaluate(0.0, t))(ts[:number])
        assert_tree_close(ys[:number], exact, rtol=1e-9)
        assert jnp.max(jnp.diff(ts[:number])) >= 0.25


def along(path, field, diffusion, solver, t0, t1, controller, y0, **options):
    """A solve with diagonal noise."""
    noise = diffrax.ControlTerm(lambda t, y, args: lx.DiagonalLinearOperator(diffusion(y)), path)
    drift = diffrax.ODETerm(lambda t, y, args: field(y))
    return nk.diffeqsolve(
        diffrax.MultiTerm(drift, noise), solver, t0, t1, 0.01, y0,
        stepsize_controller=controller, **options,
    )  # fmt: skip


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_what_was_drawn_at_once_is_drawn_again_alike(impl, x64):
    """With few checkpoints most steps draw their noise again."""
    key, y0 = jr.key(1, impl=impl), jnp.ones(2)
    controller = diffrax.PIDController(rtol=1e-2, atol=1e-2)

    def last(y0, number):
        path = nk.BrownianMotion((2,), key)
        adjoint = nk.ReplayAdjoint(checkpoints=number)
        same = lambda y: y
        sol = along(path, jnp.sin, same, diffrax.Heun(), 0.0, 1.0, controller, y0, adjoint=adjoint)
        return jnp.sum(sol.ys)

    many, few = (jax.grad(last)(y0, number) for number in (64, 3))
    assert_tree_close(many, few, rtol=1e-10)


def test_the_walk_ends_on_the_path_where_times_are_coarse():
    """Far from zero a hundred units in the last place are longer than a step."""
    t0, t1 = 1000.0, 1001.0
    controller = diffrax.PIDController(rtol=1e-2, atol=1e-2, dtmax=1 / 256)
    nothing, one = jnp.zeros_like, jnp.ones_like
    path = nk.BrownianMotion((2,), jr.key(0))
    sol = along(path, nothing, one, diffrax.Heun(), t0, t1, controller, jnp.zeros(2))
    exact = nk.BrownianMotion((2,), jr.key(0), ts=jnp.array([t0, t1])).evaluate(t0, t1)
    assert sol.stats["num_accepted_steps"] == 256
    assert_tree_close(sol.ys[-1], exact, rtol=1e-4)


def test_noise_of_attempts_given_up_is_not_in_a_gradient():
    """A root of the state, which a rejected attempt or a lane that has finished would make NaN."""
    controller = diffrax.PIDController(rtol=1e-2, atol=1e-2)

    def last(rate, key):
        path = nk.BrownianMotion((1,), key)
        return jnp.sum(
            along(
                path, lambda y: -rate * y, lambda y: 0.8 * jnp.sqrt(y), diffrax.Heun(), 0.0, 0.5,
                controller, jnp.ones(1), max_steps=256, throw=False,  # some paths come to nil
            ).ys
        )  # fmt: skip

    each = jax.vmap(jax.grad(last), (None, 0))
    mean = jax.grad(lambda rate, keys: jnp.mean(jax.vmap(last, (None, 0))(rate, keys)))
    keys = jr.split(jr.key(1), 64)
    one_by_one = jax.jit(each)(2.0, keys)
    assert bool(jnp.all(jnp.isfinite(one_by_one)))
    assert_tree_close(jax.jit(mean)(2.0, keys), jnp.mean(one_by_one), rtol=1e-4)
    alone = jax.jit(jax.grad(last))
    for i in (1, 5, 63):
        assert_tree_close(one_by_one[i], alone(2.0, keys[i]), rtol=1e-2)


def test_a_lane_that_does_not_go_on_stays_where_it_is():
    path, t0 = nk.BrownianMotion((2,), jr.key(0)), jnp.array(0.0)
    noise = Noise([path], [path.cell_key(t0)], jnp.array([0.0, 1.0]), jnp.array(1), halved=False)
    yes, no = jnp.array(True), jnp.array(False)
    walked, t_end, _ = walk.onward(noise, t0, walk.first_walk(noise, t0, jnp.array(0.3)), yes)
    assert t_end == 0.25
    for accepted in (yes, no):
        judged = dataclasses.replace(walked, accepted=accepted, longest=jnp.array(0.01))
        after, _, drawn = walk.onward(noise, t_end, judged, no)
        assert_tree_close((after.part, after.waiting), (walked.part, walked.waiting), rtol=0)
        assert_tree_close(drawn, [[jnp.zeros((1, 2))]], rtol=0)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_each_lane_draws_again_what_it_drew(impl, x64):
    """A linear equation, whose end is its beginning times a number of the path."""
    controller = diffrax.PIDController(rtol=1e-2, atol=1e-2)
    ts, keys = jnp.linspace(0.0, 1.0, 5), jr.split(jr.key(0, impl=impl), 4)

    def last(y0, key):
        path, half = nk.BrownianMotion((), key), lambda y: 0.5 * y
        sol = along(
            path, jnp.negative, half, diffrax.Heun(), 0.0, 1.0, controller, y0,
            saveat=diffrax.SaveAt(ts=ts), adjoint=nk.ReplayAdjoint(checkpoints=3),
        )  # fmt: skip
        return sol.ys[-1]

    y0 = jnp.array(2.0)
    ends, slopes = jax.jit(jax.vmap(jax.value_and_grad(last), (None, 0)))(y0, keys)
    assert len(set(ends.tolist())) == 4
    assert_tree_close(slopes, ends / y0, rtol=1e-10)


@pytest.mark.parametrize("number", [20, 300])
def test_cells_are_found_among_few_and_many(number, x64):
    ts = jnp.sort(jr.uniform(jr.key(3), (number,)))
    controller = diffrax.PIDController(rtol=1e-2, atol=1e-2)
    nothing, one = jnp.zeros_like, jnp.ones_like
    path = nk.BrownianMotion((), jr.key(0))
    sol = along(
        path, nothing, one, diffrax.Heun(), 0.0, 1.0, controller, jnp.array(0.0),
        saveat=diffrax.SaveAt(ts=ts),
    )  # fmt: skip
    cells = nk.BrownianMotion((), jr.key(0), ts=jnp.array([0.0, *ts, 1.0]))
    assert_tree_close(sol.ys, jax.vmap(lambda t: cells.evaluate(0.0, t))(ts), rtol=1e-7, atol=1e-9)


def test_halves_of_a_step_are_those_of_its_replay():
    """Geometric Brownian motion by `HalfSolver`, whose steps look at their halves."""
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-3)
    solver, t0, t1 = diffrax.HalfSolver(diffrax.EulerHeun()), 100.0, 101.0
    same, half = jnp.zeros_like, lambda y: 0.5 * y

    def last(y0, number):
        adjoint = nk.ReplayAdjoint(checkpoints=number)
        path = nk.BrownianMotion((2,), jr.key(2))
        return along(path, same, half, solver, t0, t1, controller, y0, adjoint=adjoint).ys[-1]

    w = nk.BrownianMotion((2,), jr.key(2), ts=jnp.array([t0, t1])).evaluate(t0, t1)
    assert_tree_close(last(jnp.ones(2), 64), jnp.exp(0.5 * w), rtol=0.02)
    many, few = (jax.jacrev(last)(jnp.ones(2), number) for number in (64, 3))
    assert_tree_close(many, few, rtol=1e-6)


@pytest.mark.slow
def test_the_halves_of_a_step_are_given_in_their_order(x64):
    """y' = -4 y with additive noise, of which the later half decays less: by hand."""
    controller, y0 = diffrax.PIDController(rtol=1e-1, atol=1e-1), jnp.ones(1)
    path, solver = nk.BrownianMotion((1,), jr.key(4)), diffrax.HalfSolver(diffrax.EulerHeun())
    sol = along(
        path, lambda y: -4 * y, jnp.ones_like, solver, 0.0, 1.0, controller, y0,
        saveat=diffrax.SaveAt(steps=True),
    )  # fmt: skip
    cell = nk.BrownianMotion((1,), jr.key(4), ts=jnp.array([0.0, 1.0]))
    ends = [0.0, *sol.ts[jnp.isfinite(sol.ts)].tolist()]
    assert len(ends) > 4
    for number, (t0, t1) in enumerate(itertools.pairwise(ends)):
        middle = (t0 + t1) / 2
        for a, b in ((t0, middle), (middle, t1)):
            y0 = y0 - 4 * y0 * (b - a) + cell.evaluate(a, b)
        assert_tree_close(sol.ys[number], y0, rtol=1e-9)


def test_saved_values_are_ends_of_steps(x64):
    ts = jnp.array([0.0, 0.1234, 0.7, 1.0])
    subs = {"ts": diffrax.SubSaveAt(ts=ts), "steps": diffrax.SubSaveAt(steps=True)}
    sol = ours_of("Heun", jr.key(1), saveat=diffrax.SaveAt(subs=subs))
    for t, y in zip(sol.ts["ts"][1:], sol.ys["ts"][1:], strict=True):
        index = int(jnp.argmin(jnp.abs(sol.ts["steps"] - t)))
        assert_tree_close((sol.ts["steps"][index], sol.ys["steps"][index]), (t, y), rtol=1e-12)


def test_dense_output_goes_through_the_steps():
    saveat = diffrax.SaveAt(steps=True, dense=True)
    sol = ours_of("Heun", jr.key(1), saveat=saveat)
    number = int(sol.stats["num_accepted_steps"])
    found = jax.vmap(sol.evaluate)(sol.ts[:number])
    assert_tree_close(found, sol.ys[:number], rtol=1e-5)


def test_diffrax_s_own_adjoints_evaluate_the_path(x64):
    """Along given cells every adjoint sees one path."""
    path = nk.BrownianMotion((2,), jr.key(0), ts=jnp.array([0.0, 0.5, 1.0]))

    def last(adjoint, rate):
        terms = terms_of("diagonal", path)
        sol = nk.diffeqsolve(
            terms, diffrax.Euler(), 0.0, 1.0, 0.125, jnp.ones(2), rate, adjoint=adjoint, max_steps=9
        )
        return jnp.sum(sol.ys)

    ours, theirs = (
        jax.value_and_grad(lambda rate, adjoint=adjoint: last(adjoint, rate))(1.0)
        for adjoint in (nk.ReplayAdjoint(), diffrax.DirectAdjoint())
    )
    assert_tree_close(ours, theirs, rtol=1e-10)


def test_lanes_take_the_steps_that_they_take_alone(x64):
    keys = jr.split(jr.key(8), 3)
    last = lambda key: (lambda sol: (sol.ys, sol.stats["num_steps"]))(ours_of("Heun", key))
    together = jax.vmap(last)(keys)
    alone = jax.tree.map(lambda *x: jnp.stack(x), *map(last, keys))
    assert_tree_close(together, alone, rtol=1e-9)
    assert len(set(together[1].tolist())) > 1


def test_a_continued_solve_draws_new_noise():
    path = nk.BrownianMotion((2,), jr.key(0))
    noise = lambda t, y, args: lx.DiagonalLinearOperator(jnp.ones(2))
    still = diffrax.ODETerm(lambda t, y, args: jnp.zeros(2))
    terms = diffrax.MultiTerm(still, diffrax.ControlTerm(noise, path))
    solve = lambda t0: nk.diffeqsolve(terms, diffrax.Euler(), t0, t0 + 1, 0.5, jnp.zeros(2))
    first, second = solve(0.0).ys, solve(1.0).ys
    assert not np.any(np.isclose(first, second))


def test_evaluations_are_those_of_the_drift():
    counts = {"Euler": 1, "Heun": 2, "SPaRK": 3, "SOSRI": 4, "ReversibleHeun": 1}
    for name, each in counts.items():
        sol = ours_of(name, jr.key(0), controller=diffrax.ConstantStepSize())
        assert sol.stats["num_evals"] == each * 10, name


@pytest.mark.parametrize("name", slow_but(["SOSRI"], ["SOSRI", "SPaRK", "Heun"]))
def test_costs_see_the_step_of_an_sde(name, x64):
    parts = {
        part: nk.StepError(part=part, scaled=False, power=1) for part in ("all", "drift", "noise")
    }
    costs = {"stiffness": nk.StepStiffness(), "steps": nk.StepCount()}
    each = {key: nk.EachStep(cost) for key, cost in (parts | costs).items()}
    sol = ours_of(name, jr.key(0), costs=each)
    number = int(sol.stats["num_accepted_steps"])
    whole, drift, noise, rho = (
        np.asarray(sol.costs[key][:number]) for key in ("all", "drift", "noise", "stiffness")
    )
    assert np.all(whole <= drift + noise + 1e-12) and np.all(np.abs(drift - noise) <= whole + 1e-12)
    # Between the singular values of the drift's matrix.
    low, high = np.linalg.svd(MATRIX, compute_uv=False)[::-1]
    assert np.all((low - 1e-9 <= rho) & (rho <= high + 1e-9))


def test_time_has_no_derivative_along_noise():
    path = nk.BrownianMotion((2,), jr.key(0))
    last = lambda t1: jnp.sum(
        nk.diffeqsolve(
            terms_of("diagonal", path), diffrax.Euler(), 0.0, t1, 0.1, jnp.ones(2), 1.0
        ).ys
    )
    with pytest.raises(ValueError, match="no derivative by `t0`"):
        jax.grad(last)(1.0)


@pytest.mark.parametrize(
    ("kind", "area", "message"),
    [("general", AREA, "diagonal noise"), ("diagonal", diffrax.BrownianIncrement, "space-time")],
)
def test_sosri_says_what_it_needs(kind, area, message):
    path = nk.BrownianMotion((2,), jr.key(0), area)
    with pytest.raises(ValueError, match=message):
        nk.diffeqsolve(terms_of(kind, path), nk.SOSRI(), 0.0, 1.0, 0.1, jnp.ones(2), 1.0)


def test_steps_along_noise_cannot_be_differentiated():
    with pytest.raises(ValueError, match="halves"):
        ours_of("Heun", jr.key(0), adjoint=nk.ReplayAdjoint(step_sizes="differentiable"))


def test_extent_of_the_drift_s_stability_region():
    a = np.array([[*row, *[0.0] * (4 - len(row))] for row in sosri._A0])
    powers = [np.linalg.matrix_power(a, k) @ np.ones(4) for k in range(4)]
    growth = np.polyval(
        [np.dot(sosri._ALPHA, p) for p in powers[::-1]] + [1.0], zs := -np.arange(0.01, 20, 1e-3)
    )
    extent = -zs[np.argmax(np.abs(growth) > 1)]
    assert_tree_close(np.float64(STABILITY["SOSRI"]), extent, rtol=1e-3)
