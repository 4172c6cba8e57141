"""Diffrax and ndekit give back the same, call by call.

Times of adaptive steps follow from error estimates, which the two may round differently: one unit
in the last place of a state, relative to its error, is what the lengths of steps differ by. The
catalogue's tolerances keep that below 1e-9.
"""

import re
import warnings

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest
from diffrax import RESULTS
from support.catalogue import CASES, GRADIENTS, SLOW, SLOW_GRADIENTS
from support.catalogue_failures import DELIBERATE, FAILURES, SLOW_FAILURES, Raises
from support.catalogue_parts import caller, loss_of
from support.catalogue_transforms import SLOW_TRANSFORMS, TRANSFORMS
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk

pytestmark = pytest.mark.usefixtures("types_unchecked")

RTOL = 1e-9
COUNTS = ("num_steps", "num_accepted_steps", "num_rejected_steps", "max_steps")
FIELDS = "t0 t1 ts ys result solver_state controller_state made_jump event_mask".split()
# What a call with this in its name warns of, and how it ends unless it succeeds.
WARNINGS = {
    "complex": "Complex dtype support in Diffrax is a work in progress",
    "unmarked": "is not marked as converging",
}
ENDS = {
    "never": RESULTS.successful,
    "event": RESULTS.event_occurred,
    "cut-off": RESULTS.max_steps_reached,
    "not-a-number-adaptive": RESULTS.max_steps_reached,
    "dtmin-fails": RESULTS.dt_min_reached,
}


@pytest.fixture(autouse=True)
def float64(x64):
    pass


@pytest.fixture(scope="class")
def without_checks_at_run_time():
    """As with EQX_ON_ERROR=off: a program that can raise is compiled anew by every process."""
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("equinox._errors.EQX_ON_ERROR", "off")
        yield
    jax.clear_caches()


def everything(sol):
    """All that a solution tells, as a PyTree of arrays and static structure."""
    told = {name: getattr(sol, name) for name in FIELDS}
    told["stats"] = {name: sol.stats[name] for name in COUNTS}
    told["controller_state"] = jax.tree.map(inverse, sol.controller_state)
    told["dense"] = None if sol.interpolation is None else along(sol)
    return told


def inverse(x):
    """Of a `PIDController`'s state a scaled error, exact to the rounding of a state."""
    with np.errstate(divide="ignore"):
        return 1 / np.asarray(x) if eqx.is_inexact_array(x) else x


@eqx.filter_jit
def along(sol):
    path = sol.interpolation
    times = path.t0 + (path.t1 - path.t0) * jnp.array([0.0, 0.041, 0.3, 0.77, 1.0])
    both = jax.vmap(lambda t: (sol.evaluate(t), sol.derivative(t)))(times)
    return path.t0, path.t1, both, sol.evaluate(times[1], times[2])


def is_solution(x):
    return isinstance(x, diffrax.Solution)


def told_by(case, diffeqsolve):
    out = case(caller(diffeqsolve))
    return jax.tree.map(lambda x: everything(x) if is_solution(x) else x, out, is_leaf=is_solution)


def assert_same(ours, theirs):
    kinds = [jax.tree.map(lambda x: (np.asarray(x).dtype, jnp.shape(x)), x) for x in (ours, theirs)]
    assert kinds[0] == kinds[1]
    # Where theirs is infinite, a relative tolerance would allow ours to be anything.
    assert_tree_close(jax.tree.map(not_finite, ours), jax.tree.map(not_finite, theirs), rtol=0)
    assert_tree_close(without_memory(ours), without_memory(theirs), rtol=RTOL, atol=RTOL)


def without_memory(told):
    """Without what a PID controller remembers: the inverse of a small error, so a rounding error
    made large. The steps that follow from it are compared."""
    is_told = lambda x: isinstance(x, dict) and "controller_state" in x
    forget = lambda x: {k: v for k, v in x.items() if k != "controller_state"} if is_told(x) else x
    return jax.tree.map(forget, told, is_leaf=is_told)


def not_finite(x):
    return np.where(np.isfinite(x), 0, x)


def ends_as_named(told, name):
    end = next((result for word, result in ENDS.items() if word in name), RESULTS.successful)
    parts = told if isinstance(told, tuple) else (told,)
    return all(bool(part["result"] == end) for part in parts)


def warned(run):
    """What `run` gives back, and the warnings on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        out = run()
    return out, {(w.category, str(w.message)) for w in caught}


def failure(case, diffeqsolve):
    with pytest.raises(Exception) as caught:
        jax.block_until_ready(jtu.tree_leaves(case(caller(diffeqsolve))))
    return caught.type, sentence(str(caught.value))


def sentence(message):
    """The first of a message; at run time, JAX and Equinox wrap it into the stack."""
    *_, told = re.split(r"EquinoxRuntimeError: |ndekit: ", message)
    return re.split(r"(?<=[.!?])\s|\n", told.strip(), maxsplit=1)[0]


def gradient(case, diffeqsolve):
    loss = lambda push, args: loss_of(case(caller(diffeqsolve, push, args)))
    return jax.jit(jax.grad(loss, argnums=(0, 1)))(jnp.zeros(2), jnp.asarray(4.0))


def is_refusal(difference):
    return isinstance(difference.theirs, Raises)


def assert_differs(difference):
    assert_is(difference.theirs, difference.call, diffrax.diffeqsolve)
    assert_is(difference.ours, difference.call, nk.diffeqsolve)


def assert_is(expected, call, diffeqsolve):
    if not isinstance(expected, Raises):
        assert expected(call(caller(diffeqsolve)))
        return
    with pytest.raises(expected.kind, match=re.escape(expected.message)):
        jax.block_until_ready(jtu.tree_leaves(call(caller(diffeqsolve))))


def slow_if(slow, names):
    return slow_but(set(names) - set(slow), names)


# Classes, so that JAX forgets each one's programs: together they fill gigabytes.


@pytest.mark.usefixtures("without_checks_at_run_time")
class TestACall:
    @pytest.mark.parametrize("name", slow_if(SLOW, CASES))
    def test_gives_back_the_same(self, name):
        theirs, their_warnings = warned(lambda: told_by(CASES[name], diffrax.diffeqsolve))
        assert ends_as_named(theirs, name)
        ours, our_warnings = warned(lambda: told_by(CASES[name], nk.diffeqsolve))
        assert our_warnings == their_warnings
        expected = [text for word, text in WARNINGS.items() if word in name]
        assert len(their_warnings) == len(expected)
        assert all(text in message for text in expected for _, message in their_warnings)
        assert_same(ours, theirs)

    def test_counts_promote_as_in_diffrax(self):
        weak = [
            {name: caller(solve)().stats[name].weak_type for name in COUNTS[:3]}
            for solve in (nk.diffeqsolve, diffrax.diffeqsolve)
        ]
        assert weak[0] == weak[1]


@pytest.mark.slow
@pytest.mark.usefixtures("without_checks_at_run_time")
class TestATransformedCall:
    @pytest.mark.parametrize("name", slow_if(SLOW_TRANSFORMS, TRANSFORMS))
    def test_gives_back_the_same(self, name):
        theirs = told_by(TRANSFORMS[name], diffrax.diffeqsolve)
        assert_same(told_by(TRANSFORMS[name], nk.diffeqsolve), theirs)


@pytest.mark.slow
@pytest.mark.usefixtures("without_checks_at_run_time")
class TestADifferentiatedCall:
    @pytest.mark.parametrize("name", slow_if(SLOW_GRADIENTS, GRADIENTS))
    def test_has_the_same_gradient(self, name):
        theirs = gradient(CASES[name], diffrax.diffeqsolve)
        assert np.any(np.abs(theirs[0]) > 1e-3)
        assert_tree_close(gradient(CASES[name], nk.diffeqsolve), theirs, rtol=1e-7)


@pytest.mark.usefixtures("without_checks_at_run_time")
class TestADeliberateDifference:
    @pytest.mark.parametrize("name", [n for n, d in DELIBERATE.items() if not is_refusal(d)])
    def test_is_as_stated(self, name):
        assert_differs(DELIBERATE[name])


@pytest.mark.parametrize("name", [n for n, d in DELIBERATE.items() if is_refusal(d)])
def test_a_call_fails_differently_as_stated(name):
    assert_differs(DELIBERATE[name])


@pytest.mark.parametrize("name", slow_if(SLOW_FAILURES, FAILURES))
def test_a_call_fails_in_the_same_way(name):
    theirs = failure(FAILURES[name], diffrax.diffeqsolve)
    assert failure(FAILURES[name], nk.diffeqsolve) == theirs
