"""Values at saved times along adaptive noise: at ends of steps, and on the bridge between them."""

import itertools

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import lineax as lx
import numpy as np
import pytest
from scipy import stats
from support.close import assert_tree_close, close_to_rounding

import ndekit as nk
from ndekit.integrate.forward.checkpoints import default_checkpoints
from ndekit.integrate.noise import adaptive
from ndekit.integrate.noise.bridge import AREAS
from ndekit.integrate.noise.of_step import Noise
from ndekit.integrate.noise.spans import spans_of

LOOSE = diffrax.PIDController(rtol=1e-1, atol=1e-1)
WAYS = ["ends", "bridge"]


def terms_of(path, drift, diffusion):
    """Diagonal noise; both functions take the state and the rate."""
    noise = lambda t, y, args: lx.DiagonalLinearOperator(diffusion(y, args))
    field = diffrax.ODETerm(lambda t, y, args: drift(y, args))
    return diffrax.MultiTerm(field, diffrax.ControlTerm(noise, path))


STILL = (lambda y, rate: jnp.zeros_like(y), lambda y, rate: jnp.ones_like(y))
GEOMETRIC = (lambda y, rate: -rate * y, lambda y, rate: 0.5 * rate * y)
OSCILLATING = (lambda y, rate: -rate * y, lambda y, rate: 0.3 * jnp.cos(rate * y))


def solve(
    ts, key, saved="bridge", equation=OSCILLATING, rate=1.0, *, controller=LOOSE, dt0=0.25,
    area=diffrax.BrownianIncrement, solver=None, size=2, y0=1.0, t0=0.0, t1=1.0, **options,
):  # fmt: skip
    path = nk.BrownianMotion((size,), key, area, saved=saved)
    options = dict(saveat=diffrax.SaveAt(ts=ts)) | options
    return nk.diffeqsolve(
        terms_of(path, *equation), diffrax.Heun() if solver is None else solver, t0, t1, dt0,
        jnp.full(size, y0), rate, stepsize_controller=controller, **options,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def float64(x64):
    pass


@pytest.fixture
def ts(float64):
    """Thirty times at unequal distances, the ends among them, one twice."""
    inner = jnp.sort(jr.uniform(jr.key(5), (27,)))
    return jnp.array([0.0, *inner, inner[-1], 1.0])


def path_at(ts, key, area=diffrax.BrownianIncrement):
    """The motion at `ts` from `t0`, by evaluation along given cells."""
    cells = jnp.unique(jnp.array([0.0, *np.abs(np.asarray(ts)), 1.0]))
    path = nk.BrownianMotion((2,), key, area, ts=cells)
    return jax.vmap(lambda t: path.evaluate(0.0, jnp.abs(t)))(ts)


# The path


@pytest.mark.parametrize("saved", WAYS)
@pytest.mark.parametrize(
    ("solver", "area"),
    [
        (diffrax.Heun(), diffrax.BrownianIncrement),
        (diffrax.ShARK(), diffrax.SpaceTimeLevyArea),
        (nk.SOSRI(), diffrax.SpaceTimeLevyArea),
        (diffrax.SPaRK(), diffrax.SpaceTimeTimeLevyArea),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, diffrax.AbstractSolver) else x.__name__,
)
def test_saved_values_are_on_the_path_that_is_evaluated(saved, solver, area, ts):
    sol = solve(ts, jr.key(1), saved, STILL, solver=solver, area=area, y0=0.0)
    assert_tree_close(sol.ys, path_at(ts, jr.key(1), area), rtol=1e-10, atol=1e-12)
    number = int(sol.stats["num_steps"])
    assert number >= 28 if saved == "ends" else number < 12


def test_a_solve_backwards_goes_along_the_same_cells():
    ts = jnp.linspace(1.0, 0.0, 9)
    both = [
        solve(ts, jr.key(1), saved, STILL, t0=1.0, t1=0.0, dt0=-0.5, y0=0.0).ys for saved in WAYS
    ]
    assert_tree_close(*both, rtol=1e-10, atol=1e-12)
    assert jnp.max(jnp.abs(both[0])) > 0.1


def test_tight_tolerances_bring_both_ways_together(ts):
    tight = diffrax.PIDController(rtol=1e-4, atol=1e-4)
    ends, bridge = (solve(ts, jr.key(2), saved, controller=tight, dt0=0.01) for saved in WAYS)
    assert_tree_close(bridge.ys, ends.ys, rtol=1e-3)


@pytest.mark.parametrize("area", AREAS, ids=lambda area: area.__name__)
@pytest.mark.parametrize("number", [1, 2, 7, 70])
def test_what_runs_of_cells_draw_is_what_the_path_does(number, area):
    cells = jnp.array([0.0, *jnp.sort(jr.uniform(jr.key(number), (number - 1,))), 1.0])
    motion = nk.BrownianMotion((2,), jr.key(0), area)
    spans = spans_of([motion], jnp.array([0.0, *cells, 1.0, 1.0]))
    known = nk.BrownianMotion((2,), jr.key(0), area, ts=cells)

    @jax.jit
    def both(start, end):
        levy = known.evaluate(start, end, use_levy=True)
        names = "WHK"[: motion.num_areas]
        drawn = spans.widest(start, end - start, jnp.array(False))
        return drawn, spans.between(start, end), jnp.stack([getattr(levy, n) for n in names])

    for first in range(number):
        for width in (2**k for k in range(7)):
            last = min(first + width, number)
            if first % width == 0 and (last == number or first + width == last):
                drawn, again, exact = both(cells[first], cells[last])
                assert drawn[0] == cells[last]
                assert_tree_close(drawn[1][0][0], exact, rtol=1e-7, atol=1e-9)
                assert_tree_close(again[1][0][0], exact, rtol=1e-7, atol=1e-9)
                assert bool(again[0]) == (last > first + 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_an_end_that_was_tried_is_an_end_of_a_step(seed):
    """Whatever is accepted; and each step's noise is that of the path, and that of its replay."""
    rng = np.random.default_rng(seed)
    # Halves of these are not rounded, nor is where the path is evaluated.
    cells = np.sort(rng.choice(np.arange(1, 1024), size=40, replace=False)) / 1024
    cells = np.concatenate([[0.0], cells, [1.0]])
    ends = jnp.sort(jnp.array([0.0, *cells, cells[7], 1.0]))
    area, t0 = diffrax.SpaceTimeLevyArea, jnp.array(0.0)
    motion = nk.BrownianMotion((2,), jr.key(0), area)
    spans, keys = spans_of([motion], ends), [motion.cell_key(t0)]
    noise = Noise([motion], keys, ends, jnp.array(1), halved=False, spans=spans)
    path = nk.BrownianMotion((2,), jr.key(0), area, ts=jnp.asarray(cells))
    onward = jax.jit(lambda t, walk: adaptive.onward(noise, t, walk, jnp.array(True)))
    again = jax.jit(lambda a, b: noise.of_step(a, b, jnp.array(0)))
    evaluate = jax.jit(lambda a, b: path.evaluate(a, b, use_levy=True))

    walk, t, tried, kept = adaptive.first_walk(noise, t0, jnp.array(0.3)), t0, set(), [0.0]
    while t < 1:
        walk, t_end, drawn = onward(t, walk)
        levy = evaluate(t, t_end)
        assert_tree_close(drawn[0][0], jnp.stack([levy.W, levy.H]), rtol=1e-6, atol=1e-7)
        assert_tree_close(drawn, again(t, t_end), rtol=1e-9, atol=1e-12)
        tried.add(float(t_end))
        accepted = bool(rng.uniform() < 0.6 or t_end - t < 1e-3)
        longest = rng.choice([1 / 256, 1 / 16, 1 / 3]) if accepted else 0.75 * walk.part.h
        walk = adaptive.Walk(walk.part, walk.waiting, jnp.array(accepted), jnp.asarray(longest))
        if accepted:
            t = t_end
            kept.append(float(t))
    assert tried <= set(kept)
    widths = [len([c for c in cells if a < c < b]) for a, b in itertools.pairwise(kept)]
    assert max(widths) >= 2 and min(widths) == 0  # over several cells, and within one


# The law


def test_values_of_brownian_motion_have_its_law():
    """Means, variances and covariances, with the ends of the steps among the times."""
    ts = jnp.array([0.1, 0.25, 0.3, 0.55, 0.6, 0.8, 1.0])
    drawn = jax.jit(jax.vmap(lambda key: solve(ts, key, "bridge", STILL, y0=0.0, size=1).ys[:, 0]))
    values = np.asarray(drawn(jr.split(jr.key(3), 4000)))
    root = np.linalg.inv(np.linalg.cholesky(np.minimum(ts[:, None], ts)))
    normal = values @ root.T
    assert np.all(np.abs(normal.mean(0)) < 5 / np.sqrt(4000))
    assert np.all(np.abs(np.cov(normal.T) - np.eye(7)) < 5 * np.sqrt(2 / 4000))
    assert min(stats.kstest(column, "norm").pvalue for column in normal.T) > 0.01 / 7


def test_values_of_an_ornstein_uhlenbeck_process_have_its_law():
    """dy = -y dt + dW from 1, by four steps: two of these times are ends."""
    ts, chosen = jnp.arange(1, 33) / 32, np.array([1, 4, 7, 11, 15, 24, 28])
    equation = (lambda y, rate: -y, lambda y, rate: jnp.ones_like(y))
    stay = diffrax.PIDController(rtol=10.0, atol=10.0, dtmax=0.25)

    def values(key):
        sol = solve(ts, key, "bridge", equation, controller=stay, size=1, solver=diffrax.ShARK(),
                    area=diffrax.SpaceTimeLevyArea)  # fmt: skip
        return sol.ys[chosen, 0], sol.stats["num_steps"]

    drawn, number = map(np.asarray, jax.jit(jax.vmap(values))(jr.split(jr.key(4), 4000)))
    assert np.max(number) == 4
    at = np.asarray(ts)[chosen]
    spread = (1 - np.exp(-2 * np.minimum(at[:, None], at))) / 2
    covariance = np.exp(-np.abs(at[:, None] - at)) * spread
    normal = (drawn - np.exp(-at)) @ np.linalg.inv(np.linalg.cholesky(covariance)).T
    # A line instead of a hyperbola between the ends is wrong by h^2 / 8 = 0.008 at most.
    assert np.all(np.abs(normal.mean(0)) < 5 / np.sqrt(4000) + 0.01)
    assert np.all(np.abs(np.cov(normal.T) - np.eye(7)) < 5 * np.sqrt(2 / 4000) + 0.02)


def test_the_line_alone_does_not_have_the_law():
    """What the tests above would say of the solver's interpolation: too little variance inside."""
    ts, h = jnp.array([0.125]), 0.25
    ends = jax.jit(
        jax.vmap(lambda key: solve(jnp.array([h]), key, "ends", STILL, y0=0.0, size=1).ys[0, 0])
    )(jr.split(jr.key(3), 4000))
    assert abs(np.var(ends / 2) - ts[0]) > 5 * ts[0] * np.sqrt(2 / 4000)


@pytest.mark.parametrize(
    ("kind", "order"),
    [
        pytest.param("geometric", 1.0, marks=pytest.mark.slow),
        pytest.param("additive", 1.5, marks=pytest.mark.slow),
    ],
)
def test_strong_order_of_values_between_the_ends(kind, order):
    """Of times that no step ends at, by steps of 1/8 to 1/64; a finer run is the truth."""
    ts = jnp.arange(1, 513) / 512
    additive = (lambda y, rate: -jnp.sin(3 * y), lambda y, rate: 0.5 * jnp.ones_like(y))
    equation = GEOMETRIC if kind == "geometric" else additive
    keys = jr.split(jr.key(6), 200)

    def run(h, saved):
        stay = diffrax.PIDController(rtol=1e3, atol=1e3, dtmax=h)
        one = lambda key: solve(
            ts, key, saved, equation, controller=stay, dt0=h, solver=diffrax.ShARK()
            if kind == "additive" else diffrax.Heun(), area=diffrax.SpaceTimeLevyArea,
        )  # fmt: skip
        sol = jax.jit(jax.vmap(one))(keys)
        assert int(jnp.max(sol.stats["num_steps"])) == round(1 / h)
        return sol.ys

    exact, hs = run(1 / 512, "ends"), np.array([1 / 8, 1 / 16, 1 / 32, 1 / 64])
    inside = np.array([i for i in range(512) if (i + 1) % 64])
    errors = [jnp.sqrt(jnp.mean((run(h, "bridge") - exact)[:, inside] ** 2)) for h in hs]
    slope = np.polyfit(np.log(hs), np.log(np.array(errors)), 1)[0]
    assert abs(slope - order) < 0.2


# The gradient


def by_fn(saveat_ts, scale):
    """What `SaveAt(fn=...)` reads is differentiated as well."""
    return diffrax.SaveAt(ts=saveat_ts, fn=lambda t, y, args: scale * jnp.sin(y) + args * t)


@pytest.mark.parametrize("saved", WAYS)
@pytest.mark.parametrize("checkpoints", [None, 3])
def test_gradients_equal_finite_differences(saved, checkpoints, ts):
    """By a rate that drift, diffusion and `fn` read, and by the initial value. Steps stay where
    they are.
    """
    weights = jr.normal(jr.key(8), (30, 2))

    def loss(rate, y0):
        sol = solve(
            ts, jr.key(7), saved, rate=rate, y0=y0, saveat=by_fn(ts, rate),
            adjoint=nk.ReplayAdjoint(checkpoints=checkpoints),
        )  # fmt: skip
        return jnp.sum(weights * sol.ys)

    value, eps = jax.jit(loss), 1e-6
    slopes = [
        (value(1 + eps * a, 1 + eps * b) - value(1 - eps * a, 1 - eps * b)) / (2 * eps)
        for a, b in ((1, 0), (0, 1))
    ]
    assert_tree_close(jax.jit(jax.grad(loss, (0, 1)))(1.0, 1.0), tuple(slopes), rtol=1e-6)


@pytest.mark.parametrize("saved", WAYS)
def test_gradients_of_lanes_with_times_of_their_own_are_those_alone(saved):
    keys = jr.split(jr.key(9), 3)
    ts = jnp.sort(jr.uniform(jr.key(10), (3, 12)), axis=1)
    weights = jr.normal(jr.key(8), (12, 2))
    value = lambda rate, ts, key: jnp.sum(weights * solve(ts, key, saved, rate=rate).ys)
    each = jax.value_and_grad(value)
    together = jax.jit(jax.vmap(each, (None, 0, 0)))(1.0, ts, keys)
    alone = [jax.jit(each)(1.0, *given) for given in zip(ts, keys, strict=True)]
    assert_tree_close(together, jax.tree.map(lambda *x: jnp.stack(x), *alone), rtol=1e-9)
    mean = lambda rate: jnp.mean(jax.vmap(value, (None, 0, 0))(rate, ts, keys))
    assert_tree_close(jax.jit(jax.grad(mean))(1.0), jnp.mean(together[1]), rtol=1e-9)


@pytest.mark.parametrize("saved", WAYS)
@pytest.mark.parametrize("adjoint", [nk.ReversibleAdjoint(), nk.ReplayAdjoint(keep="stages")])
def test_every_adjoint_gives_the_same_gradient_of_saved_values(saved, adjoint, ts):
    def gradient(adjoint):
        value = lambda rate: jnp.sum(
            solve(
                ts, jr.key(7), saved, rate=rate, solver=diffrax.ReversibleHeun(), adjoint=adjoint
            ).ys
            ** 2
        )
        return jax.jit(jax.grad(value))(1.0)

    assert_tree_close(gradient(adjoint), gradient(nk.ReplayAdjoint()), rtol=1e-8)


def test_two_motions_and_several_sets_of_times():
    """dy = dv + 2 dw: the sum of two paths, at times of two `SubSaveAt`."""
    keys = jr.split(jr.key(11), 2)
    motions = [nk.BrownianMotion((2,), key, saved="bridge") for key in keys]
    operator = lambda scale: lambda t, y, args: lx.DiagonalLinearOperator(scale * jnp.ones(2))
    noises = [diffrax.ControlTerm(operator(1.0 + i), path) for i, path in enumerate(motions)]
    still = diffrax.ODETerm(lambda t, y, args: jnp.zeros(2))
    few, many = jnp.array([0.3, 0.7]), jnp.linspace(0.0, 1.0, 11)
    subs = [diffrax.SubSaveAt(ts=few), diffrax.SubSaveAt(ts=many, t1=True)]
    sol = nk.diffeqsolve(
        diffrax.MultiTerm(still, *noises), diffrax.Heun(), 0.0, 1.0, 0.5, jnp.zeros(2),
        saveat=diffrax.SaveAt(subs=subs), stepsize_controller=LOOSE,
    )  # fmt: skip
    cells = jnp.unique(jnp.concatenate([few, many]))
    paths = [nk.BrownianMotion((2,), key, ts=cells) for key in keys]
    for times, values in zip((few, many), sol.ys, strict=True):
        exact = jax.vmap(lambda t: paths[0].evaluate(0.0, t) + 2 * paths[1].evaluate(0.0, t))(times)
        assert_tree_close(values[: len(times)], exact, rtol=1e-9, atol=1e-12)


# What it takes


def test_there_is_a_row_for_each_step_that_is_known_to_be_taken():
    row, noise = 8192, 4096
    without = default_checkpoints(4096, row, noise)
    assert default_checkpoints(4096, row, noise, 100) == without + 100
    assert default_checkpoints(4096, 2**24, noise, 100) == 16
    assert default_checkpoints(50, row, noise, 100) == 50


@pytest.mark.parametrize(("saved", "rows"), [("ends", 4.2), ("bridge", 9.5)])
def test_memory_grows_by_a_few_rows_for_each_saved_value(saved, rows):
    """`ends`: a state and its noise, the value and its cotangent. `bridge`: runs and path instead
    of a row, and temporaries of both.
    """
    size = 4096

    def temporary(number):
        ts = jnp.linspace(0.0, 1.0, number)
        loss = lambda rate: jnp.sum(solve(ts, jr.key(0), saved, rate=rate, size=size).ys ** 2)
        return jax.jit(jax.grad(loss)).lower(1.0).compile().memory_analysis().temp_size_in_bytes

    grown = (temporary(257) - temporary(129)) / (128 * 8 * size)
    assert 0.5 * rows < grown < rows


# Refusals


def refused(message, path=None, **options):
    with pytest.raises(ValueError, match=message):
        if path is None:
            solve(jnp.array([0.3, 0.7]), jr.key(0), "bridge", **options)
        else:
            terms = terms_of(path, *STILL)
            nk.diffeqsolve(
                terms, diffrax.Heun(), 0.0, 1.0, 0.1, jnp.zeros(2), stepsize_controller=LOOSE,
                saveat=diffrax.SaveAt(ts=jnp.array([0.5])),
            )  # fmt: skip


CLIPPED = diffrax.ClipStepSizeController(LOOSE, step_ts=[0.5])
EVENT = diffrax.Event(lambda t, y, args, **kwargs: y[0] > 10)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("adaptive steps", dict(controller=diffrax.ConstantStepSize())),
        ("ClipStepSizeController", dict(controller=CLIPPED)),
        ("HalfSolver", dict(solver=diffrax.HalfSolver(diffrax.EulerHeun()))),
        ("event", dict(event=EVENT)),
        ("dense", dict(saveat=dict(dense=True))),
        ("ndekit's own loop", dict(adjoint=diffrax.RecursiveCheckpointAdjoint())),
        ("ndekit's own loop", dict(progress_meter=diffrax.TextProgressMeter())),
    ],
    ids=lambda x: x if isinstance(x, str) else None,
)
def test_a_solve_that_cannot_have_the_bridge_says_so(message, options):
    if "saveat" in options:
        options = dict(saveat=diffrax.SaveAt(ts=jnp.array([0.3]), **options["saveat"]))
    refused(message, **options)


def test_a_motion_of_given_cells_cannot_have_the_bridge():
    refused("without `ts`", nk.BrownianMotion((2,), jr.key(0), ts=[0.0, 1.0], saved="bridge"))


def test_all_motions_must_agree():
    paths = [nk.BrownianMotion((2,), jr.key(i), saved=saved) for i, saved in enumerate(WAYS)]
    one = lambda t, y, args: lx.DiagonalLinearOperator(jnp.ones(2))
    noises = [diffrax.ControlTerm(one, path) for path in paths]
    still = diffrax.ODETerm(lambda t, y, args: jnp.zeros(2))
    with pytest.raises(ValueError, match="every motion"):
        nk.diffeqsolve(
            diffrax.MultiTerm(still, *noises), diffrax.Heun(), 0.0, 1.0, 0.1, jnp.zeros(2),
            stepsize_controller=LOOSE, saveat=diffrax.SaveAt(ts=jnp.array([0.5])),
        )  # fmt: skip


def test_without_saved_times_there_is_nothing_to_refuse():
    fixed = diffrax.ConstantStepSize()
    ends = [
        solve(None, jr.key(0), saved, controller=fixed, saveat=diffrax.SaveAt(t1=True)).ys
        for saved in WAYS
    ]
    assert close_to_rounding(*ends)


def test_another_word_is_refused():
    with pytest.raises(ValueError, match='"ends" or "bridge"'):
        nk.BrownianMotion((2,), jr.key(0), saved="steps")


def test_a_value_where_the_field_jumps_is_the_state_there():
    """One step ends just before the jump, and the next begins just behind it."""
    controller = diffrax.ClipStepSizeController(LOOSE, jump_ts=[0.5])
    subs = [diffrax.SubSaveAt(ts=jnp.array([0.25, 0.5, 0.75])), diffrax.SubSaveAt(steps=True)]
    saveat = diffrax.SaveAt(subs=subs)
    sol = solve(None, jr.key(0), "ends", controller=controller, saveat=saveat)
    (_, steps), (values, states) = sol.ts, sol.ys
    for t, y in zip((0.25, 0.5, 0.75), values, strict=True):
        assert_tree_close(y, states[int(jnp.argmin(jnp.abs(steps - t)))], rtol=1e-12)
