"""Loops that know their length, and loops that ask less often; what an accelerator would run."""

import re

import diffrax
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.close import assert_tree_close

import ndekit as nk
from ndekit.integrate.control.known_length import num_turns_of

FIXED = diffrax.ConstantStepSize()
PID = diffrax.PIDController(rtol=1e-6, atol=1e-8)
Y0 = np.array([0.3, 0.7])


@pytest.fixture(autouse=True)
def float64(x64):
    pass


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def bent(t, y, args):
    return args * jnp.sin(y + t) * y[::-1]


def noisy():
    path = nk.BrownianMotion((2,), jax.random.key(0))
    diffusion = lambda t, y, args: lx.DiagonalLinearOperator(0.2 * y)
    return diffrax.MultiTerm(diffrax.ODETerm(bent), diffrax.ControlTerm(diffusion, path))


def solve(y0, args, controller, dt0=0.03, t1=1.0, solver=diffrax.Bosh3(), **options):
    options = dict(terms=diffrax.ODETerm(bent)) | options
    options["terms"] = options["terms"] or noisy()
    controller = controller or diffrax.StepTo(jnp.linspace(0.0, 1.0, 31) ** 2)
    dt0 = None if isinstance(controller, diffrax.StepTo) else dt0
    return nk.diffeqsolve(
        solver=solver, t0=0.0, t1=t1, dt0=dt0, y0=y0, args=args, stepsize_controller=controller,
        **options,
    )  # fmt: skip


def loss(y0, args, controller, **options):
    return jnp.sum(solve(y0, args, controller, **options).ys ** 2)


def gradient(controller, **options):
    """Of many starts, by the starts and by what they share."""
    each = lambda y0, args: loss(y0, args, controller, **options)
    total = lambda y0s, args: jnp.sum(jax.vmap(each, (0, None))(y0s, args))
    return jax.jit(jax.grad(total, argnums=(0, 1)))


def loops(fn, *args):
    """How often each loop of the compiled program turns; 0 where nobody knows."""
    text = jax.jit(fn).lower(*args).compile().as_text()
    whiles = [line for line in text.splitlines() if re.search(r"= .* while\(", line)]
    turns = [re.search(r'known_trip_count"?:\{"n":"(\d+)"', line) for line in whiles]
    return sorted(int(found.group(1)) if found else 0 for found in turns)


KNOWN = {
    "constant": (dict(controller=FIXED), 34),
    "step to": (dict(controller=None), 30),
    "backwards": (dict(controller=FIXED, t1=-1.0, dt0=-0.03), 34),
    "noise": (dict(controller=FIXED, solver=diffrax.Euler(), terms=None), 34),
    "any solver": (dict(controller=FIXED, solver=diffrax.ReversibleHeun()), 34),
}
STARTS = np.linspace(0.1, 1.0, 40).reshape(20, 2)


@pytest.mark.parametrize("name", KNOWN)
def test_a_solve_that_knows_its_length_asks_nobody(name, accelerator):
    options, length = KNOWN[name]
    assert loops(lambda y0: solve(y0, 1.1, **options).ys, Y0) in ([length], [length, 100])
    in_lanes = loops(gradient(**options), STARTS, 1.1)
    assert in_lanes == [length, length] or in_lanes == [length, length, 100]


def test_one_small_solve_asks_nobody_either(accelerator):
    """Its steps are replayed at once, in two stretches."""
    of = jax.grad(lambda y0: loss(y0, 1.1, FIXED))
    assert loops(of, Y0) == [2, 34]


@pytest.mark.parametrize("name", [name for name in KNOWN if name != "noise"])
@pytest.mark.parametrize("device", ["here", "accelerator"])
def test_its_gradient_is_that_of_diffrax(name, device, request):
    if device == "accelerator":
        request.getfixturevalue("accelerator")
    options, _ = KNOWN[name]
    ours = gradient(**options)(STARTS, 1.1)
    theirs = gradient(**options, adjoint=diffrax.RecursiveCheckpointAdjoint())(STARTS, 1.1)
    assert_tree_close(ours, theirs, rtol=1e-10)


def test_an_adaptive_solve_asks_after_several_attempts(accelerator):
    assert loops(lambda y0: solve(y0, 1.1, PID).ys, Y0) == [0, 4]
    assert loops(gradient(PID, max_steps=64), STARTS, 1.1) == [0, 0, 4, 4]
    # Half of an attempt is none.
    assert loops(lambda y0: solve(y0, 1.1, PID, max_steps=63).ys, Y0) == [0]
    assert loops(lambda y0: solve(y0, 1.1, PID, max_steps=66).ys, Y0) == [0, 2]


@pytest.mark.parametrize("stretch", [1.0, 3.0])
def test_attempts_in_vain_change_nothing(stretch, monkeypatch):
    options = dict(max_steps=256, t1=stretch, saveat=diffrax.SaveAt(ts=jnp.array([0.2, 0.9])))
    costs = dict(error=nk.StepError(), steps=nk.StepCount())

    def everything(y0s, args):
        def each(y0):
            sol = solve(y0, args, PID, costs=costs, **options)
            return jnp.sum(sol.ys**2) + 1e3 * sol.costs["error"], (sol.stats, sol.costs)

        values, rest = jax.vmap(each)(y0s)
        return jnp.sum(values), rest

    run = lambda: jax.jit(jax.grad(everything, (0, 1), has_aux=True))(STARTS, 1.1)
    here = run()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert_tree_close(run(), here, rtol=1e-9, atol=1e-12)
    assert len(set(np.asarray(here[1][0]["num_steps"]) % 4)) > 1


def test_steps_that_move_ask_after_several_attempts_too(monkeypatch):
    options = dict(adjoint=nk.ReplayAdjoint(step_sizes="differentiable"), max_steps=64)
    here = gradient(PID, **options)(STARTS, 1.1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert_tree_close(gradient(PID, **options)(STARTS, 1.1), here, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-5, 5), st.floats(0.01, 5), st.integers(1, 300), st.floats(0.7, 1.3),
    st.sampled_from([1, -1]), st.booleans(),
)  # fmt: skip
def test_as_many_steps_are_known_as_diffrax_takes(t0, span, number, share, sign, in_float32):
    dtype = jnp.float32 if in_float32 else jnp.float64
    times = t0, t0 + sign * span, sign * span / number * share
    t0, t1, dt0 = (jnp.asarray(t, dtype) for t in times)
    known = num_turns_of(FIXED, t0, t1, dt0)
    state = FIXED.init(None, sign * t0, sign * t1, 0.0, sign * dt0, None, None, None)[1]
    assert known == max(int(state[1]), 1)


def test_where_the_length_is_not_known():
    unknown = jax.ShapeDtypeStruct((), jnp.float32)
    seen = []

    def look(t1):
        seen.append(num_turns_of(FIXED, 0.0, t1, 0.1))
        return t1

    jax.eval_shape(look, unknown)
    assert seen == [None]
    assert num_turns_of(PID, 0.0, 1.0, 0.1) is None
    assert num_turns_of(FIXED, 0.0, jnp.inf, 0.1) is None
    assert num_turns_of(FIXED, 0.0, jnp.nan, 0.1) is None
    assert num_turns_of(FIXED, 0.0, 1.0, None) is None


def test_a_solve_that_is_cut_off_says_so(accelerator):
    sol = solve(Y0, 1.1, FIXED, max_steps=10, throw=False)
    assert sol.result == diffrax.RESULTS.max_steps_reached
    assert sol.stats["num_steps"] == 10


def test_a_solve_over_no_time(accelerator):
    value, slope = jax.value_and_grad(lambda y0: loss(y0, 1.1, FIXED, t1=0.0))(jnp.asarray(Y0))
    assert_tree_close((value, slope), (np.sum(Y0**2), 2 * Y0), rtol=1e-12)


def test_lanes_that_fail_do_not_disturb_the_others(accelerator):
    def each(y0):
        field = diffrax.ODETerm(lambda t, y, args: jnp.where(y > 0.5, jnp.nan, -y))
        return solve(y0, None, FIXED, terms=field, throw=False).ys[-1]

    starts = jnp.array([[0.3], [0.9]])
    slopes = jax.jit(jax.grad(lambda y0s: jnp.sum(jax.vmap(each)(y0s)[0])))(starts)
    assert_tree_close(slopes[0, 0], np.exp(-1.0), rtol=1e-5)


def test_an_event_ends_a_solve_that_seemed_to_know_its_length(accelerator):
    event = diffrax.Event(lambda t, y, args, **kwargs: t > 0.5)
    sol = solve(Y0, 1.1, FIXED, event=event)
    assert sol.stats["num_steps"] == 18  # of 34
