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
import jaxtyping
import numpy as np
import pytest
from catalogue import CASES, GRADIENTS
from catalogue_failures import DELIBERATE, FAILURES, Raises
from catalogue_parts import caller, loss_of
from catalogue_transforms import TRANSFORMS
from close import assert_tree_close
from diffrax import RESULTS

import ndekit as nk

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


@pytest.fixture(autouse=True)
def types_unchecked():
    """As a user has it: the checks of types that the tests add would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def everything(sol):
    """All that a solution tells, as a PyTree of arrays and static structure."""
    told = {name: getattr(sol, name) for name in FIELDS}
    told["stats"] = {name: sol.stats[name] for name in COUNTS}
    told["dense"] = None if sol.interpolation is None else along(sol)
    return told


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
    finite = [jax.tree.map(lambda x: np.isfinite(np.asarray(x)), x) for x in (ours, theirs)]
    assert_tree_close(finite[0], finite[1], rtol=0)
    assert_tree_close(ours, theirs, rtol=RTOL, atol=RTOL)


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
    *_, told = re.split(r"EquinoxRuntimeError: ", message)
    return re.split(r"(?<=[.!?])\s|\n", told.strip(), maxsplit=1)[0]


def gradient(case, diffeqsolve):
    loss = lambda push, args: loss_of(case(caller(diffeqsolve, push, args)))
    return jax.jit(jax.grad(loss, argnums=(0, 1)))(jnp.zeros(2), jnp.asarray(4.0))


@pytest.mark.usefixtures("without_checks_at_run_time")
class TestACallThatReturns:
    @pytest.mark.parametrize("name", CASES)
    def test_gives_back_the_same(self, name):
        theirs, their_warnings = warned(lambda: told_by(CASES[name], diffrax.diffeqsolve))
        assert ends_as_named(theirs, name)
        ours, our_warnings = warned(lambda: told_by(CASES[name], nk.diffeqsolve))
        assert our_warnings == their_warnings
        expected = [text for word, text in WARNINGS.items() if word in name]
        assert len(their_warnings) == len(expected)
        assert all(text in message for text in expected for _, message in their_warnings)
        assert_same(ours, theirs)

    @pytest.mark.parametrize("name", TRANSFORMS)
    def test_gives_back_the_same_under_transforms(self, name):
        theirs = told_by(TRANSFORMS[name], diffrax.diffeqsolve)
        assert_same(told_by(TRANSFORMS[name], nk.diffeqsolve), theirs)

    @pytest.mark.parametrize("name", GRADIENTS)
    def test_has_the_same_gradient(self, name):
        theirs = gradient(CASES[name], diffrax.diffeqsolve)
        assert np.any(np.abs(theirs[0]) > 1e-3)
        assert_tree_close(gradient(CASES[name], nk.diffeqsolve), theirs, rtol=1e-7)

    def test_has_counts_that_promote_as_diffrax_s_do(self):
        weak = [
            {k: caller(solve)().stats[k].weak_type for k in COUNTS[:3]}
            for solve in (nk.diffeqsolve, diffrax.diffeqsolve)
        ]
        assert weak[0] == weak[1]


@pytest.mark.parametrize("name", FAILURES)
def test_a_call_fails_in_the_same_way(name):
    theirs = failure(FAILURES[name], diffrax.diffeqsolve)
    assert failure(FAILURES[name], nk.diffeqsolve) == theirs


def assert_is(expected, call, diffeqsolve):
    if not isinstance(expected, Raises):
        assert expected(call(caller(diffeqsolve)))
        return
    with pytest.raises(expected.kind, match=re.escape(expected.message)):
        jax.block_until_ready(jtu.tree_leaves(call(caller(diffeqsolve))))


@pytest.mark.parametrize("name", DELIBERATE)
def test_a_deliberate_difference_is_as_stated(name):
    difference = DELIBERATE[name]
    assert difference.reason
    assert_is(difference.theirs, difference.call, diffrax.diffeqsolve)
    assert_is(difference.ours, difference.call, nk.diffeqsolve)
