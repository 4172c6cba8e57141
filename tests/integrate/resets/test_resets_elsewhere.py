"""Resets in lanes, along noise, beside events and costs, and derivatives of every order."""

import re

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close
from support.marks import slow_but
from support.reset_oracle import by_gaps

import ndekit as nk

pytestmark = pytest.mark.usefixtures("types_unchecked", "x64")
ADAPTIVE = diffrax.PIDController(rtol=1e-5, atol=1e-7)


def decay(t, y, args):
    return -args["rate"] * y + jnp.sin(t)


def observe(index, t, y, args):
    """Reads a row of a table that may hold anything in its padding."""
    return jnp.tanh(args["weights"] @ jnp.concatenate([y, args["xs"][index]]))


def solve(args, y0, ts, **options):
    options = dict(stepsize_controller=ADAPTIVE) | options
    given = (diffrax.ODETerm(decay), options.pop("solver", diffrax.Tsit5()), 0.0, 2.0)
    dt0 = options.pop("dt0", None)
    return nk.diffeqsolve(*given, dt0, y0, args, resets=nk.Resets(ts, observe), **options)


def series(lengths, rows, key=0):
    """Times and readings in a batch, each with its own length, and NaN behind it."""
    rng, ts, xs = np.random.default_rng(key), [], []
    for length in lengths:
        own = np.sort(rng.uniform(0.05, 1.95, length))
        ts.append(np.concatenate([own, np.full(rows - length, np.inf)]))
        readings = rng.normal(size=(rows, 2))
        readings[length:] = np.nan
        xs.append(readings)
    return jnp.array(np.stack(ts)), jnp.array(np.stack(xs))


WEIGHTS = np.array([[0.3, -0.5, 0.9, 0.1], [0.2, 0.4, -0.3, 0.8]])
SHARED = {"rate": np.array(0.7), "weights": WEIGHTS}
Y0 = np.array([0.3, -0.4])


def value(shared, xs, ts, y0, **options):
    costs = {"error": nk.StepError(scaled=False)}
    sol = solve(shared | {"xs": xs}, y0, ts, costs=costs, **options)
    made = jnp.isfinite(ts)[:, None]
    rows = jnp.where(made, sol.resets.before, 0) - 2 * jnp.where(made, sol.resets.after, 0)
    return jnp.sum(jnp.sin(sol.ys)) + jnp.sum(rows**2) + 1e3 * sol.costs["error"]


CONSTANT = dict(stepsize_controller=diffrax.ConstantStepSize(), dt0=0.11)
SOLVES = {
    "Tsit5": dict(),
    "Heun": dict(CONSTANT, solver=diffrax.Heun()),
    "2 checkpoints": dict(adjoint=nk.ReplayAdjoint(checkpoints=2)),
    "stages": dict(adjoint=nk.ReplayAdjoint(keep="stages")),
    "Kvaerno3": dict(solver=diffrax.Kvaerno3()),
}


@pytest.mark.parametrize("options", slow_but(["Tsit5", "Heun"], list(SOLVES)))
def test_lanes_are_as_alone(options):
    """Each with its own times; what stands in the padding has no say, nor a gradient. Adaptive
    steps follow from error estimates, which programs round differently.
    """
    options = SOLVES[options]
    close = dict(rtol=1e-9 if "dt0" in options else 1e-6, atol=1e-9)
    ts, xs = series((5, 1, 3), 6)
    y0 = jnp.stack([Y0, -Y0, 2 * Y0])
    of_lane = lambda *given: value(*given, **options)
    grads = jax.grad(of_lane, (0, 1, 2, 3))
    in_lanes = (None, 0, 0, 0)
    together = jax.jit(jax.vmap(grads, in_lanes))(SHARED, xs, ts, y0)
    alone = [jax.jit(grads)(SHARED, xs[i], ts[i], y0[i]) for i in range(3)]
    assert_tree_close(together, jax.tree.map(lambda *x: jnp.stack(x), *alone), **close)
    # Cut to their own lengths nothing is padded.
    cut = [jax.jit(grads)(SHARED, xs[i, :n], ts[i, :n], y0[i]) for i, n in enumerate((5, 1, 3))]
    for i, n in enumerate((5, 1, 3)):
        shared, of_xs, of_ts, of_y0 = jax.tree.map(lambda x, i=i: x[i], together)
        found = (shared, of_xs[:n], of_ts[:n], of_y0)
        assert_tree_close(found, cut[i], **close)
        assert np.all(np.asarray(of_xs[n:]) == 0) and np.all(np.asarray(of_ts[n:]) == 0)
    summed = lambda *given: jnp.sum(jax.vmap(of_lane, in_lanes)(*given))
    of_sum = jax.jit(jax.grad(summed, (0, 1, 2, 3)))(SHARED, xs, ts, y0)
    total = (jax.tree.map(lambda x: jnp.sum(x, 0), together[0]), *together[1:])
    assert_tree_close(of_sum, total, **close)


@pytest.mark.slow
def test_derivatives_of_every_kind_agree():
    """Forward mode, and both mixtures of second order, against those of one solve for each gap."""
    ts, xs = series((3,), 3)
    ts, xs, dt0 = ts[0], xs[0], 0.23

    def ours(w, ts):
        args = {"rate": SHARED["rate"], "weights": w, "xs": xs}
        constant = diffrax.ConstantStepSize()
        sol = solve(args, Y0, ts, stepsize_controller=constant, dt0=dt0)
        return jnp.sum(jnp.sin(sol.ys)) + jnp.sum(sol.resets.before * sol.resets.after)

    def gaps(w, ts):
        args = {"rate": SHARED["rate"], "weights": w, "xs": xs}
        y, before, after = by_gaps(
            diffrax.ODETerm(decay), diffrax.Tsit5(), 0.0, 2.0, Y0, args, observe, ts, dt0=dt0
        )
        return jnp.sum(jnp.sin(y)) + jnp.sum(before * after)

    w = jnp.asarray(WEIGHTS)
    direction = (jnp.cos(jnp.arange(8.0)).reshape(2, 4), jnp.array([0.3, -0.2, 0.5]))
    found = jax.jvp(ours, (w, ts), direction)
    gradient = jax.grad(gaps, (0, 1))
    expected = sum(jnp.vdot(g, d) for g, d in zip(gradient(w, ts), direction, strict=True))
    np.testing.assert_allclose(found[1], expected, rtol=1e-10)
    of_ours = jax.grad(ours, (0, 1))
    h = 1e-5
    moved = lambda s: gradient(w + s * direction[0], ts + s * direction[1])
    wanted = jax.tree.map(lambda a, b: (a - b) / (2 * h), moved(h), moved(-h))
    along = lambda w, ts: sum(map(jnp.vdot, of_ours(w, ts), direction))
    assert_tree_close(jax.jvp(of_ours, (w, ts), direction)[1], wanted, rtol=1e-6, atol=1e-7)
    assert_tree_close(jax.grad(along, (0, 1))(w, ts), wanted, rtol=1e-6, atol=1e-7)


def sde(path, solver=None, controller=None, dt0=None, ts=(0.4, 0.9), costs=None, **options):
    drift, diffusion = (lambda t, y, args: -args * y), (lambda t, y, args: 0.3 * args)
    terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, path))
    resets = nk.Resets(jnp.asarray(ts), lambda i, t, y, args: args * y + 1.0)
    return lambda a: nk.diffeqsolve(
        terms, diffrax.SPaRK() if solver is None else solver, 0.0, 1.0, dt0, a, a, resets=resets,
        stepsize_controller=controller or diffrax.ConstantStepSize(), costs=costs, **options,
    )  # fmt: skip


def gap_sde(path, ts, dt0):
    """Euler-Maruyama by hand along the same path, steps cut at the resets."""
    grid = sorted({*(round(dt0 * i, 10) for i in range(round(1 / dt0) + 1)), *ts})

    def run(a):
        y = a
        for t0, t1 in zip(grid[:-1], grid[1:], strict=True):
            y = y - a * y * (t1 - t0) + 0.3 * a * path.evaluate(jnp.asarray(t0), jnp.asarray(t1))
            y = a * y + 1.0 if t1 in ts else y
        return y

    return run


def test_along_a_tree_of_noise():
    path = diffrax.VirtualBrownianTree(0.0, 1.0, 1e-4, (), jr.key(0))
    ours = sde(path, diffrax.Euler(), dt0=0.1, ts=(0.4, 0.93))
    value, slope = jax.value_and_grad(lambda a: ours(a).ys[-1])(jnp.array(0.7))
    expected, wanted = jax.value_and_grad(gap_sde(path, (0.4, 0.93), 0.1))(jnp.array(0.7))
    np.testing.assert_allclose((value, slope), (expected, wanted), rtol=1e-10)


@pytest.mark.parametrize("controller", (None, diffrax.PIDController(rtol=1e-2, atol=1e-3)))
def test_along_motions_in_cells(controller):
    """The moments of a linear SDE with a reset, and its derivative by differences."""
    solver = diffrax.SPaRK() if controller else diffrax.Euler()
    options = dict(controller=controller, dt0=None if controller else 0.05)

    def run(a, key):
        area = diffrax.SpaceTimeLevyArea if controller else diffrax.BrownianIncrement
        motion = nk.BrownianMotion((), key=key, levy_area=area)
        return sde(motion, solver, ts=(0.5,), **options)(a)

    keys, a = jr.split(jr.key(1), 2000), jnp.array(0.7)
    sols = jax.jit(jax.vmap(run, (None, 0)))(a, keys)
    assert np.all(np.asarray(sols.resets.count) == 1)
    mean_before = a * jnp.exp(-a * 0.5)
    spread = (0.3 * a) ** 2 * (1 - jnp.exp(-a)) / (2 * a)
    before = np.asarray(sols.resets.before[:, 0])
    np.testing.assert_allclose(before.mean(), mean_before, atol=4 * np.sqrt(spread / 2000) + 6e-3)
    np.testing.assert_allclose(before.var(), spread, rtol=0.15)
    np.testing.assert_allclose(sols.resets.after, a * sols.resets.before + 1, rtol=1e-12)
    if controller is None:
        of_key = lambda a: run(a, keys[0]).ys[-1]
        by_difference = (of_key(a + 1e-5) - of_key(a - 1e-5)) / 2e-5
        np.testing.assert_allclose(jax.grad(of_key)(a), by_difference, rtol=1e-7)


def falling(ts, update, **options):
    """A ball that falls from 1 with speed 1, watched as it passes 0.25."""
    event = diffrax.Event(lambda t, y, args, **_: y - 0.25, **options)
    return nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -jnp.ones_like(y)), diffrax.Tsit5(), 0.0, 4.0, 0.1,
        jnp.array(1.0), event=event, resets=nk.Resets(jnp.asarray(ts), update),
    )  # fmt: skip


def test_an_event_comes_before_a_reset_and_is_none_itself():
    finder = optx_newton()
    up = falling([0.5], lambda i, t, y, args: y + 1.0, root_finder=finder)
    np.testing.assert_allclose((up.ts[0], up.ys[0]), (1.75, 0.25), atol=1e-6)
    assert int(up.resets.count) == 1
    # Down through what is watched for by a reset: no event, and none on the way further down.
    down = falling([0.5], lambda i, t, y, args: y - 1.0, root_finder=finder)
    assert down.result == diffrax.RESULTS.successful and down.ts[0] == 4.0
    # At the end of the step that ends at the reset: the solve is over before it.
    first = falling([0.8], lambda i, t, y, args: y + 5.0, root_finder=finder)
    np.testing.assert_allclose((first.ts[0], first.ys[0]), (0.75, 0.25), atol=1e-6)
    assert int(first.resets.count) == 0
    slope = jax.grad(
        lambda a: falling([0.5], lambda i, t, y, args: y + a, root_finder=finder).ts[0]
    )(1.0)
    np.testing.assert_allclose(slope, 1.0, atol=1e-6)


def optx_newton():
    import optimistix as optx

    return optx.Newton(1e-8, 1e-8)


def test_costs_run_on_across_resets():
    """Every regulariser's number is that of the steps, wherever they begin."""
    ts, xs = series((3,), 3)
    costs = {
        "error": nk.StepError(scaled=False), "stiffness": nk.StepStiffness(),
        "kinetic": nk.Kinetic(), "most": nk.EveryStep(nk.StepStiffness(), "max"),
    }  # fmt: skip
    args = SHARED | {"xs": xs[0]}
    sol = solve(args, Y0, ts[0], costs=costs)
    parts = []
    t, y = 0.0, Y0
    seen = solve(args, Y0, ts[0], saveat=diffrax.SaveAt(steps=True))
    grid = [0.0, *(float(t) for t in seen.ts if np.isfinite(t))]
    for index in range(4):
        end = float(ts[0][index]) if index < 3 else 2.0
        steps = jnp.array([s for s in grid if t <= s <= end])
        part = nk.diffeqsolve(
            diffrax.ODETerm(decay), diffrax.Tsit5(), t, end, None, y, args,
            stepsize_controller=diffrax.StepTo(steps), costs=costs,
        )  # fmt: skip
        parts.append(part.costs)
        if index < 3:
            y, t = observe(index, end, part.ys[-1], args), end
    for name, found in sol.costs.items():
        put_together = max if name == "most" else sum
        total = put_together([float(part[name]) for part in parts])
        np.testing.assert_allclose(found, total, rtol=1e-6)


def test_an_update_runs_only_where_some_lane_has_arrived():
    """It stands inside a loop of its own, inside that of the attempts."""
    ts, xs = series((2, 1), 2)
    rare = lambda i, t, y, args: jax.lax.erf_inv(y / 9)
    run = lambda ts, y0: nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 2.0, 0.1, y0,
        stepsize_controller=ADAPTIVE, resets=nk.Resets(ts, rare),
    ).ys  # fmt: skip
    text = jax.jit(jax.vmap(run)).lower(ts, np.stack([Y0, Y0])).as_text()
    found = depths_of("erf_inv", text)
    # Before the first attempt, and after each: in a loop of its own both times.
    assert sorted(found) == [1, 2]


def depths_of(word, text):
    """In how many loops each operation with this word in its name stands, in a lowered program."""
    functions = re.split(r"func\.func (?:public|private) @", text)[1:]
    bodies = {body.split("(")[0]: body.splitlines()[1:] for body in functions}

    def inside(name):
        loops, found = [], []
        for line in bodies[name]:
            indent = len(line) - len(line.lstrip())
            loops = [at for at in loops if at < indent or line.lstrip().startswith(("cond", "}"))]
            if "stablehlo.while" in line:
                loops.append(indent)
            elif word in line:
                found.append(len(loops))
            if called := re.search(r"[ .]call @([\w.]+)", line):
                found += [len(loops) + depth for depth in inside(called.group(1))]
        return found

    return inside("main")


@pytest.mark.parametrize("what, change, words", (
    ("resets", dict(resets=jnp.array([1.0])), "must be `ndekit.Resets"),
    ("axes", dict(ts=jnp.ones((2, 3))), "jax.vmap"),
    ("order", dict(ts=jnp.array([1.0, 0.5])), "in order"),
    ("early", dict(ts=jnp.array([-1.0, 0.5])), "before `t0`"),
    ("shape", dict(update=lambda i, t, y, args: y[:1]), "structure, shapes and dtypes"),
    ("dtype", dict(update=lambda i, t, y, args: y.astype(jnp.float32)), "shapes and dtypes"),
    ("undo", dict(adjoint=nk.ReversibleAdjoint(), solver=diffrax.ReversibleHeun()), "cannot undo"),
    ("direct", dict(adjoint=diffrax.DirectAdjoint()), "ndekit's own loop"),
    ("meter", dict(progress_meter=diffrax.TextProgressMeter()), "ndekit's own loop"),
), ids=lambda x: x if isinstance(x, str) else "")  # fmt: skip
def test_bad_input(what, change, words):
    change = dict(change)
    ts, update = change.pop("ts", jnp.array([0.5])), change.pop("update", lambda i, t, y, a: y)
    with pytest.raises(ValueError, match=words):
        given = dict(resets=nk.Resets(ts, update), stepsize_controller=ADAPTIVE) | change
        solver = given.pop("solver", diffrax.Tsit5())
        term = diffrax.ODETerm(lambda t, y, args: -y)
        nk.diffeqsolve(term, solver, 0.0, 1.0, 0.1, jnp.ones(2), **given)


def test_times_that_are_found_wrong_on_the_way():
    run = lambda ts, throw: nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 1.0, 0.1, jnp.ones(2),
        resets=nk.Resets(ts, lambda i, t, y, args: y), throw=throw,
    )  # fmt: skip
    bad = jnp.array([0.5, 0.2])
    sol = eqx.filter_jit(run)(bad, False)
    assert sol.result == diffrax.RESULTS.nonfinite
    with pytest.raises(Exception, match="in order"):
        jax.block_until_ready(eqx.filter_jit(run)(bad, True).ys)
    with pytest.raises(ValueError, match="not a number"):
        nk.Resets(jnp.array([np.nan]), lambda *args: 0)


def pulse(t, y, args):
    """Twenty on a short stretch, else nothing: a step over it does not see it."""
    return jnp.where((t >= 1.0) & (t < 1.05), 20.0, 0.0)


@pytest.mark.parametrize("at", (0.3, 0.9, 1.2))
def test_a_clipping_controller_keeps_its_stops(at):
    """Behind a reset, too, steps end where it says, and the field's jumps are seen."""
    inner = diffrax.PIDController(rtol=1e-2, atol=1e-2)
    clip = diffrax.ClipStepSizeController(inner, step_ts=jnp.array([0.5, 1.0, 1.5]))
    resets = nk.Resets(jnp.array([at]), lambda i, t, y, args: y)
    given = (diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 2.0, 0.4, jnp.ones(()))
    sol = nk.diffeqsolve(
        *given, stepsize_controller=clip, resets=resets, saveat=diffrax.SaveAt(steps=True)
    )
    assert {0.5, 1.0, 1.5, at} <= {round(float(t), 12) for t in sol.ts if np.isfinite(t)}
    jumps = diffrax.ClipStepSizeController(inner, jump_ts=jnp.array([1.0, 1.05]))
    given = (diffrax.ODETerm(pulse), diffrax.Tsit5(), 0.0, 2.0, 0.1, jnp.zeros(()))
    sol = nk.diffeqsolve(*given, stepsize_controller=jumps, resets=resets)
    np.testing.assert_allclose(sol.ys[-1], 1.0, rtol=1e-6)


@pytest.mark.parametrize("controller", (
    diffrax.ClipStepSizeController(ADAPTIVE, step_ts=np.array([0.5])),
    diffrax.PIDController(rtol=1e-3, atol=1e-3, dtmax=0.2),
), ids=("clip", "dtmax"))  # fmt: skip
def test_steps_anew_are_refused_where_another_has_a_say(controller):
    resets = nk.Resets(jnp.array([0.5]), lambda i, t, y, args: y, steps="anew")
    with pytest.raises(ValueError, match="steps='anew'"):
        nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 1.0, 0.1, jnp.ones(()),
            stepsize_controller=controller, resets=resets,
        )  # fmt: skip


@pytest.mark.parametrize("options", (dict(), dict(adjoint=nk.ReplayAdjoint(checkpoints=2))))
def test_no_times_at_all(options):
    run = lambda y: nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 1.0, 0.1, y,
        resets=nk.Resets(jnp.zeros(0), lambda i, t, y, args: y), **options,
    )  # fmt: skip
    sol = run(jnp.ones(2))
    assert sol.resets.before.shape == (0, 2) and int(sol.resets.count) == 0
    slope = jax.grad(lambda y: run(y).ys[-1, 0])(jnp.ones(2))
    np.testing.assert_allclose(slope, [np.exp(-1), 0], rtol=1e-6)


def test_a_reset_at_the_start_is_there_in_any_dtype():
    """0.7 in float32 is less than 0.7; the solve has both in one dtype."""
    resets = nk.Resets(np.array([0.7, 1.0], np.float32), lambda i, t, y, args: y + 1)
    with jax.enable_x64(False):
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: 0 * y), diffrax.Tsit5(), 0.7, 1.7, 0.1, jnp.ones(1),
            resets=resets, saveat=diffrax.SaveAt(ts=np.array([0.7, 1.0], np.float32)),
        )  # fmt: skip
    assert int(sol.resets.count) == 2 and sol.ys[1, 0] == 2
