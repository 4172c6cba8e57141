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
from catalogue import CASES
from catalogue_failures import FAILURES
from catalogue_parts import caller, loss_of
from catalogue_transforms import TRANSFORMS
from close import assert_tree_close

import ndekit as nk

RTOL = 1e-9
COUNTS = ("num_steps", "num_accepted_steps", "num_rejected_steps", "max_steps")
FIELDS = "t0 t1 ts ys result solver_state controller_state made_jump event_mask".split()
WARNINGS = {
    "complex": "Complex dtype support in Diffrax is a work in progress",
    "unmarked": "is not marked as converging",
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


def assert_same(ours, theirs, rtol=RTOL):
    kinds = [jax.tree.map(lambda x: (np.asarray(x).dtype, jnp.shape(x)), x) for x in (ours, theirs)]
    assert kinds[0] == kinds[1]
    finite = [jax.tree.map(lambda x: np.isfinite(np.asarray(x)), x) for x in (ours, theirs)]
    assert_tree_close(finite[0], finite[1], rtol=0)
    assert_tree_close(ours, theirs, rtol=rtol, atol=rtol)


def warned(run):
    """What `run` gives back, and the warnings on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        out = run()
    return out, {(w.category, str(w.message)) for w in caught}


def failure(case, diffeqsolve):
    with pytest.raises(Exception) as caught:
        jax.block_until_ready(jtu.tree_leaves(case(caller(diffeqsolve))))
    first, *_ = re.split(r"(?<=[.!?])\s|\n", str(caught.value).strip(), maxsplit=1)
    return caught.type, first


GRADIENTS = [
    "solver/Tsit5",
    "solver/Euler",
    "solver/Dopri8",
    "solver/ImplicitEuler",
    "solver/ReversibleHeun",
    "solver/SemiImplicitEuler",
    "solver/HalfSolver-Euler",
    "solver/own",
    "sde/SRA1",
    "sde/StratonovichMilstein",
    "controller/clip-jump",
    "controller/step-to",
    "controller/own",
    "saveat/t0-t1-ts",
    "saveat/steps",
    "saveat/every-third-step-t1",
    "saveat/subs",
    "saveat/dense",
    "event/newton",
    "event/several",
    "event/ts",
    "terms/linear",
    "terms/control-to-ode",
    "terms/multi",
    "terms/own",
    "values/backward",
]


def gradient(case, diffeqsolve):
    loss = lambda push, args: loss_of(case(caller(diffeqsolve, push, args)))
    return jax.jit(jax.grad(loss, argnums=(0, 1)))(jnp.zeros(2), jnp.asarray(4.0))


@pytest.mark.usefixtures("without_checks_at_run_time")
class TestACallThatReturns:
    @pytest.mark.parametrize("name", CASES)
    def test_gives_back_the_same(self, name):
        theirs, their_warnings = warned(lambda: told_by(CASES[name], diffrax.diffeqsolve))
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


@pytest.mark.parametrize("name", FAILURES)
def test_a_call_fails_in_the_same_way(name):
    theirs = failure(FAILURES[name], diffrax.diffeqsolve)
    assert failure(FAILURES[name], nk.diffeqsolve) == theirs
