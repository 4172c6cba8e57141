"""A solve that fails says so by its own result code, and where it failed."""

import os
import pathlib
import re
import subprocess
import sys

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffrax import RESULTS
from support.checkout import ROOT
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk

PID = diffrax.PIDController(rtol=1e-5, atol=1e-5)
FIXED = diffrax.ConstantStepSize()
NEVER = diffrax.Event(lambda t, y, args, **around: jnp.array(False))


def breaks(value, after=0.3):
    """A field of two leaves, of which `v` is `value` from t = 0.3 on."""
    return lambda t, y, args: {"x": -y["x"], "v": jnp.where(t > after, value, -y["v"])}


def solve(field=None, y0=None, t0=0.0, t1=1.0, dt0=0.125, controller=PID, **options):
    field = breaks(jnp.nan) if field is None else field
    y0 = {"v": jnp.ones(3), "x": jnp.ones(2)} if y0 is None else y0
    term = diffrax.ODETerm(field)
    return nk.diffeqsolve(
        term, diffrax.Tsit5(), t0, t1, dt0, y0, stepsize_controller=controller, **options
    )


def time_in(message):
    return float(re.search(r"at t = (\S+)", str(message)).group(1))


WAYS = {
    "adaptive": {},
    "fixed": dict(controller=FIXED),
    "forced": dict(controller=diffrax.PIDController(rtol=1e-5, atol=1e-5, dtmin=1e-2)),
    "event": dict(event=NEVER),
    "steps": dict(saveat=diffrax.SaveAt(steps=True)),
}


@pytest.mark.parametrize("value", slow_but((np.nan,), (np.nan, np.inf)))
@pytest.mark.parametrize("way", slow_but(("adaptive", "fixed", "event"), WAYS))
def test_what_is_not_finite_is_said_with_its_time_and_leaf(way, value):
    with pytest.raises(RuntimeError, match=r"Not finite at t = .* in leaf \['v'\]") as raised:
        solve(breaks(value), **WAYS[way])
    # The last time of an adaptive solve is where it broke; of fixed steps, the end of that step.
    assert 0.29 <= time_in(raised.value) <= (0.31 if way in ("adaptive", "event", "steps") else 0.4)


@pytest.mark.parametrize("way", slow_but(("adaptive", "fixed"), WAYS))
def test_what_is_not_finite_has_a_result_of_its_own(way):
    sol = jax.jit(lambda: solve(**WAYS[way], throw=False))()
    assert sol.result == RESULTS.nonfinite


def test_a_solve_backwards_says_the_users_time():
    backwards = lambda t, y, args: {"x": -y["x"], "v": jnp.where(t < 0.7, jnp.nan, -y["v"])}
    with pytest.raises(RuntimeError, match=r"\(of 1 to 0\), in leaf \['v'\]") as raised:
        solve(backwards, t0=1.0, t1=0.0, dt0=-0.125)
    assert abs(time_in(raised.value) - 0.7) < 0.01


def test_steps_that_run_out_say_where_and_how_long_they_were():
    stiff = lambda t, y, args: -1000.0 * y
    with pytest.raises(RuntimeError, match="maximum number of solver steps") as raised:
        solve(stiff, y0=jnp.ones(2), max_steps=16)
    said = str(raised.value)
    assert "after 16 steps, where the step size was" in said
    sol = solve(stiff, y0=jnp.ones(2), max_steps=16, throw=False)
    assert np.isclose(time_in(said), float(sol.ts[-1]), rtol=1e-4)


def test_lanes_that_fail_leave_the_others_and_are_told_apart():
    def lane(after, throw):
        return solve(
            lambda t, y, args: jnp.where(t > after, jnp.nan, -y), y0=jnp.ones(2), throw=throw
        )

    afters = jnp.array([2.0, 0.3, 0.6])
    sol = jax.jit(jax.vmap(lambda after: lane(after, False)))(afters)
    assert list(sol.result == RESULTS.successful) == [True, False, False]
    assert list(sol.result == RESULTS.nonfinite) == [False, True, True]
    assert np.allclose(sol.ys[0, -1], np.exp(-1), rtol=1e-3)
    # The one that came least far speaks for all.
    with pytest.raises(RuntimeError, match="Not finite") as raised:
        jax.vmap(lambda after: lane(after, True).ys)(afters)
    assert abs(time_in(raised.value) - 0.3) < 0.01


@pytest.mark.slow
def test_a_gradient_says_it_too():
    loss = lambda rate: jnp.sum(
        solve(lambda t, y, args: jnp.where(t > 0.3, jnp.nan, -rate * y), y0=jnp.ones(2)).ys
    )
    with pytest.raises(RuntimeError, match="Not finite at t = 0.3"):
        jax.grad(loss)(1.0)


TIMES = {"dt0": dict(dt0=jnp.nan), "t0": dict(t0=jnp.nan), "t1": dict(t1=jnp.nan)}


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("controller", [PID, FIXED], ids=["adaptive", "fixed"])
def test_a_time_that_is_not_a_number_gives_no_solution(name, controller):
    decay = lambda t, y, args: -y
    options = dict(y0=jnp.ones(1), controller=controller)
    with pytest.raises(ValueError, match="must be numbers"):
        solve(decay, **options, **TIMES[name])
    given = {name: jnp.asarray(x, jnp.float32) for name, x in TIMES[name].items()}
    later = jax.jit(lambda given: solve(decay, **options, **given, throw=False).result)
    assert later(given) == RESULTS.nonfinite


def test_what_diffrax_finds_at_run_time_is_both_errors():
    for kind in (ValueError, RuntimeError):
        with pytest.raises(kind, match="saveat.ts"):
            solve(saveat=diffrax.SaveAt(ts=[0.5, 0.2]))
        with pytest.raises(kind, match="dt0"):
            solve(dt0=-0.1)


FORWARD = {
    "jvp": lambda f: jax.jvp(f, (1.0,), (1.0,))[1],
    "jit-of-jvp": lambda f: jax.jit(lambda x: jax.jvp(f, (x,), (1.0,)))(1.0)[1],
    "jacfwd": lambda f: jax.jacfwd(f)(1.0),
    "jit-of-jacfwd": lambda f: jax.jit(jax.jacfwd(f))(1.0),
    "linearize": lambda f: jax.linearize(f, 1.0)[1](1.0),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", FORWARD)
def test_forward_mode_does_not_fail_and_is_that_of_diffrax(name):
    def last(rate, adjoint):
        decay = lambda t, y, args: -rate * y
        return solve(decay, y0=jnp.ones(2), controller=FIXED, adjoint=adjoint).ys

    ours = FORWARD[name](lambda rate: last(rate, nk.ReplayAdjoint()))
    theirs = FORWARD[name](lambda rate: last(rate, diffrax.ForwardMode()))
    assert_tree_close(ours, theirs, rtol=1e-12)
    assert np.allclose(ours, -np.exp(-1), rtol=1e-5)


@pytest.mark.parametrize("name", ["jvp", "jit-of-jacfwd"])
def test_forward_mode_of_a_step_without_one_names_the_adjoint_that_has_it(name):
    def last(rate):
        term = diffrax.ODETerm(lambda t, y, args: -rate * y)
        return nk.diffeqsolve(
            term, diffrax.Kvaerno3(), 0.0, 1.0, 0.1, jnp.ones(2), stepsize_controller=PID
        ).ys  # fmt: skip

    with pytest.raises(TypeError, match=r"diffrax\.ForwardMode\(\)"):
        FORWARD[name](last)


@pytest.mark.usefixtures("types_unchecked")
def test_steps_are_counted_by_whole_numbers():
    for wrong in (10.0, True, 0, "many"):
        with pytest.raises(ValueError, match="`max_steps` must be an integer"):
            solve(max_steps=wrong)


@pytest.mark.filterwarnings("ignore:`diffrax.diffeqsolve")
def test_a_deprecated_event_means_what_it_meant():
    late = diffrax.DiscreteTerminatingEvent(lambda state, **around: state.tprev > 0.5)
    decay = lambda t, y, args: -y
    sol = solve(decay, y0=jnp.ones(1), controller=FIXED, discrete_terminating_event=late)
    assert float(sol.ts[-1]) == 0.625
    with pytest.raises(ValueError, match="Cannot pass both"):
        solve(decay, y0=jnp.ones(1), event=NEVER, discrete_terminating_event=late)


BLOWS_UP = dict(
    stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4), max_steps=100
)  # fmt: skip


def square(y0):
    term = diffrax.ODETerm(lambda t, y, args: y * y)
    return nk.diffeqsolve(term, diffrax.Tsit5(), 0.0, 2.0, 0.1, y0, **BLOWS_UP).ys


@pytest.mark.parametrize("transform", ["value", "gradient alone", "lanes"])
def test_a_compiled_program_fails_whatever_of_it_is_wanted(transform):
    total = lambda y0: jnp.sum(square(y0))
    of, good, bad = {
        "value": (square, jnp.full(2, -1.0), jnp.ones(2)),
        "gradient alone": (jax.grad(total), jnp.full(2, -1.0), jnp.ones(2)),
        "lanes": (jax.vmap(square), jnp.full((3, 1), -1.0), jnp.array([[-1.0], [1.0], [-2.0]])),
    }[transform]
    compiled = jax.jit(of)
    jax.block_until_ready(compiled(good))
    for _ in range(2):
        with pytest.raises((RuntimeError, ValueError), match=r"stood at t = 1.0000\d* \(of 0 to 2"):
            jax.block_until_ready(compiled(bad))


def test_a_solve_that_throws_can_be_kept_by_the_compilation_cache(tmp_path):
    """JAX keeps no program that calls Python back."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import jax, jax.numpy as jnp, test_failures as t\n"
        "hits = []\n"
        "jax.monitoring.register_event_listener(\n"
        "    lambda name, **_: hits.append(name) if name.endswith('cache_hits') else None)\n"
        "try:\n"
        "    jax.block_until_ready(jax.jit(t.square)(jnp.ones(2)))\n"
        "except (RuntimeError, ValueError) as error:\n"
        "    print(len(hits), 'stood at t = 1.0000' in str(error))\n"
    )
    env = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }  # fmt: skip
    run = [sys.executable, "-c", code, str(pathlib.Path(__file__).parent)]
    said = [
        subprocess.run(run, env=env, capture_output=True, text=True, timeout=300, check=True)
        for _ in range(2)
    ]
    first, second = (each.stdout.split() for each in said)
    assert any(file.name.startswith("jit_square-") for file in tmp_path.iterdir())
    assert int(second[0]) > int(first[0]) and first[1] == second[1] == "True"
