"""Classes of a user's own that inherit from diffrax's, and objects that are taken as they are."""

import dataclasses

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import lineax as lx
import optimistix as optx
import pytest
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk

PID = diffrax.PIDController(rtol=1e-5, atol=1e-5)


def damped(solver):
    """The solver's class with a step that loses a tenth, in a subclass that changes it."""

    class Damped(type(solver)):
        def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
            y1, *rest = super().step(terms, t0, t1, y0, args, solver_state, made_jump)
            return jax.tree.map(lambda x: 0.9 * x, y1), *rest

    given = [f.name for f in dataclasses.fields(solver) if f.init]
    return Damped(**{name: getattr(solver, name) for name in given})


class Restarted(diffrax.Tsit5):
    """Begins with a first stage of its own."""

    def init(self, terms, t0, t1, y0, args):
        return jnp.array(False), jax.tree.map(jnp.zeros_like, y0)


ODE = {
    **{n: lambda n=n: damped(getattr(diffrax, n)()) for n in ("Euler", "Tsit5", "Heun")},
    **{n: lambda n=n: damped(getattr(diffrax, n)()) for n in ("Kvaerno3", "ReversibleHeun")},
    "Restarted": Restarted,
}


def both(solve):
    return solve(nk), solve(diffrax)


@pytest.mark.parametrize("name", slow_but(("Euler", "Tsit5", "Restarted"), ODE))
def test_a_subclass_takes_its_own_steps(name):
    solver = ODE[name]()
    if isinstance(solver, diffrax.AbstractImplicitSolver):
        solver = eqx.tree_at(lambda s: s.root_finder, solver, optx.Newton(1e-6, 1e-6))
    field = diffrax.ODETerm(lambda t, y, args: -args * y)

    def last(library, rate):
        y0 = jnp.ones(2)
        return jnp.sum(library.diffeqsolve(field, solver, 0.0, 1.0, 0.25, y0, rate, max_steps=8).ys)

    ours, theirs = both(lambda lib: jax.value_and_grad(lambda r: last(lib, r))(1.0))
    assert_tree_close(ours, theirs, rtol=1e-5)


def noisy(area):
    path = nk.BrownianMotion((3,), jr.key(0), levy_area=area)
    diffusion = lambda t, y, args: lx.DiagonalLinearOperator(jnp.array([1.0, 0.5, 0.2]))
    return diffrax.MultiTerm(
        diffrax.ODETerm(lambda t, y, args: -y), diffrax.ControlTerm(diffusion, path)
    )


SRK = ("SPaRK", "SRA1", "ShARK", "SEA", "GeneralShARK", "SlowRK")


@pytest.mark.parametrize("name", slow_but(("SPaRK",), SRK))
def test_half_steps_of_stochastic_runge_kutta_schemes(name):
    # `isinstance(HalfSolver(SPaRK()), AbstractSRK)` is true, and it has no tableau.
    solver = diffrax.HalfSolver(getattr(diffrax, name)())
    options = dict(stepsize_controller=diffrax.PIDController(rtol=1e-2, atol=1e-2))
    last = lambda y0: nk.diffeqsolve(
        noisy(diffrax.SpaceTimeLevyArea), solver, 0.0, 1.0, 0.1, y0, max_steps=256, **options
    ).ys[-1]
    jacobian = jax.jacrev(last)(jnp.ones(3))
    # Additive noise: the derivative by the start is that of the decay, on the way's own grid.
    assert_tree_close(jacobian, jnp.exp(-1) * jnp.eye(3), rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_a_stochastic_subclass_takes_its_own_steps():
    path = diffrax.VirtualBrownianTree(
        0.0, 1.0, 1e-3, (3,), jr.key(0), levy_area=diffrax.SpaceTimeLevyArea
    )
    diffusion = lambda t, y, args: lx.DiagonalLinearOperator(jnp.array([1.0, 0.5, 0.2]))
    drift = diffrax.ODETerm(lambda t, y, args: -y)
    terms = diffrax.MultiTerm(drift, diffrax.ControlTerm(diffusion, path))
    solve = lambda lib: (
        lib.diffeqsolve(terms, damped(diffrax.SPaRK()), 0.0, 1.0, 0.1, jnp.ones(3), max_steps=16).ys
    )
    assert_tree_close(*both(solve), rtol=1e-4)


class OtherLeap(nk.AsynchronousLeapfrog):
    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        return super().step(terms, t0, t1, y0, args, solver_state, made_jump)


def test_a_step_is_undone_by_the_class_that_wrote_it_or_not_at_all():
    field = diffrax.ODETerm(lambda t, y, args: -y)
    last = lambda y0, solver: jnp.sum(
        nk.diffeqsolve(field, solver, 0.0, 1.0, 0.25, y0, adjoint=nk.ReversibleAdjoint()).ys
    )
    with pytest.raises(ValueError, match="inherits one of `step` and `undo`"):
        jax.grad(last)(jnp.ones(2), OtherLeap())
    with pytest.raises(ValueError, match="cannot be undone"):
        jax.grad(last)(jnp.ones(2), diffrax.HalfSolver(nk.AsynchronousLeapfrog()))


def test_a_root_finder_of_ones_own_is_used_as_given():
    field = diffrax.ODETerm(lambda t, y, args: -10 * y**3)
    solve = lambda finder, **options: (
        nk.diffeqsolve(
            field, diffrax.ImplicitEuler(root_finder=finder), 0, 1, 1, 1.0, throw=False, **options
        ).result
    )
    mine = diffrax.VeryChord(rtol=1e-5, atol=1e-5)
    assert solve(mine) == diffrax.RESULTS.nonlinear_divergence
    default = diffrax.ImplicitEuler().root_finder
    assert solve(default, stepsize_controller=PID) == diffrax.RESULTS.successful


@pytest.mark.parametrize("name", slow_but(("ImplicitEuler",), ("ImplicitEuler", "Kvaerno3")))
def test_a_state_of_no_numbers_has_nothing_to_solve(name):
    sol = nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -y), getattr(diffrax, name)(), 0.0, 1.0, 0.1,
        jnp.zeros((2, 0)), stepsize_controller=PID,
    )  # fmt: skip
    assert sol.ys.shape == (1, 2, 0) and sol.result == diffrax.RESULTS.successful


class Quiet(diffrax.PIDController):
    """A controller of one's own that never says that the field has jumped."""


CONTROLLERS = {
    "constant": diffrax.ConstantStepSize(),
    "pid": PID,
    "clipped": diffrax.ClipStepSizeController(PID, step_ts=[0.5]),
    "own": Quiet(rtol=1e-5, atol=1e-5),
}


@pytest.mark.parametrize("name", slow_but(("constant", "own"), CONTROLLERS))
def test_a_jump_that_cannot_happen_is_pythons_false(name):
    def run(y0):
        saveat = diffrax.SaveAt(t1=True, made_jump=True)
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 1.0, 0.1, y0,
            saveat=saveat, stepsize_controller=CONTROLLERS[name],
        )  # fmt: skip
        assert sol.made_jump is False
        return sol.ys

    jax.jit(run)(jnp.ones(1))


def test_controllers_are_told_a_weak_integer_direction():
    told = []

    class Told(diffrax.PIDController):
        def wrap(self, direction):
            told.append(jnp.asarray(direction))
            return super().wrap(direction)

    for ends in ((0.0, 1.0), (1.0, 0.0)):
        nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), *ends, None, 1.0,
            stepsize_controller=Told(rtol=1e-3, atol=1e-3),
        )  # fmt: skip
    assert [jnp.issubdtype(d.dtype, jnp.integer) for d in told] == [True, True]
    original, seen = diffrax.StepTo.wrap, []
    steps = diffrax.StepTo(jnp.array([0.0, 0.5, 1.0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            diffrax.StepTo, "wrap", lambda self, d: (seen.append(d), original(self, d))[1]
        )
        nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 1.0, None, 1.0,
            stepsize_controller=steps,
        )  # fmt: skip
    assert jnp.issubdtype(jnp.asarray(seen[0]).dtype, jnp.integer)
