"""What cannot be solved is refused by name, with the remedy, before anything is compiled."""

import diffrax
import jax
import jax.numpy as jnp
import pytest
from support.problems import PID, SOLVERS

import ndekit as nk

pytestmark = pytest.mark.usefixtures("types_unchecked")


def solve(solver="Tsit5", t0=0.0, t1=1.0, dt0=0.1, **options):
    options.setdefault("stepsize_controller", PID())
    return nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -y), SOLVERS[solver], t0, t1, dt0, jnp.ones(2), **options
    )


FIXED = diffrax.ConstantStepSize()
SOLVES = {
    # name: (options, what the message says)
    "error_without_estimate": (
        dict(solver="Euler", stepsize_controller=FIXED, costs={"e": nk.StepError(scaled=False)}),
        "`Euler` gives none. Use a solver with an embedded estimate",
    ),
    "count_without_estimate": (
        dict(solver="Euler", stepsize_controller=FIXED, costs={"n": nk.StepCount()}),
        "`Euler` gives none",
    ),
    "count_without_tolerances": (
        dict(stepsize_controller=FIXED, costs={"n": nk.StepCount()}),
        "needs `rtol` and `atol`",
    ),
    "error_without_tolerances": (
        dict(stepsize_controller=FIXED, costs={"e": nk.StepError()}),
        "needs `rtol` and `atol`",
    ),
    "stiffness_without_pair": (
        dict(solver="Heun", costs={"s": nk.StepStiffness()}),
        "`Heun` does not have. Use one of Tsit5, Dopri5, Dopri8",
    ),
    "stiffness_without_stages": (
        dict(solver="Euler", stepsize_controller=FIXED, costs={"s": nk.StepStiffness()}),
        "`Euler` does not have",
    ),
    "backsolve": (
        dict(adjoint=diffrax.BacksolveAdjoint(), costs={"n": nk.StepCount()}),
        "`BacksolveAdjoint` cannot carry costs",
    ),
    "costs_not_a_dict": (dict(costs=[nk.StepCount()]), "must be a dict of named costs"),
    "cost_not_an_instance": (
        dict(costs={"n": nk.StepCount}),
        "must be a step cost or a placement",
    ),
    "no_steps": (dict(max_steps=0), "`max_steps` must be an integer of at least 1"),
    "unsorted": (
        dict(saveat=diffrax.SaveAt(ts=jnp.array([0.5, 0.2]))),
        "must run from `t0` to `t1` in order",
    ),
    "forward_ts_in_a_backward_solve": (
        dict(t0=1.0, t1=0.0, dt0=-0.1, saveat=diffrax.SaveAt(ts=jnp.array([0.2, 0.5]))),
        "must run from `t0` to `t1` in order",
    ),
    "ts_after_the_end": (
        dict(saveat=diffrax.SaveAt(ts=jnp.array([0.5, 1.2]))),
        "must lie between `t0` and `t1`",
    ),
    "ts_before_the_start": (
        dict(saveat=diffrax.SaveAt(ts=jnp.array([-0.1, 0.5]))),
        "must lie between `t0` and `t1`",
    ),
    "first_step_backwards": (dict(dt0=-0.1), "must point from `t0` to `t1`"),
    "first_step_forwards": (dict(t0=1.0, t1=0.0, dt0=0.1), "must point from `t0` to `t1`"),
    "no_first_step": (dict(dt0=None, stepsize_controller=FIXED), "pass a value for `dt0`"),
}


@pytest.mark.parametrize("name", SOLVES)
def test_a_solve_that_makes_no_sense_is_refused(name):
    options, message = SOLVES[name]
    with pytest.raises(ValueError, match=message):
        solve(**options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nk.EveryStep(nk.StepCount(), "median"), "`reduce` must be 'sum', 'mean' or 'max'"),
        (lambda: nk.EveryStep("steps"), "takes a step cost"),
        (lambda: nk.StepError(power=3), "`power` must be 1"),
        (lambda: nk.StepStiffness("rho*h"), "`form` must be 'rho'"),
        (lambda: nk.ReplayAdjoint(checkpoints=0), "`checkpoints` must be at least 1"),
        (lambda: nk.ReplayAdjoint(keep="all"), "`keep` must be 'states' or 'stages'"),
    ],
    ids=["reduce", "placement", "power", "form", "checkpoints", "keep"],
)
def test_an_option_that_does_not_exist_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_cost_that_is_not_a_scalar_is_refused():
    class Rates(nk.AbstractStepCost):
        def of_step(self, step):
            return step.rates[0]

    with pytest.raises(ValueError, match=r"must be a real floating scalar, but .*\[2\]"):
        solve(costs={"rates": Rates()})


def test_adaptive_steps_without_an_estimate_are_refused_as_in_diffrax():
    with pytest.raises(RuntimeError, match="does not provide error estimates"):
        solve("Euler")


def test_unsorted_times_are_refused_inside_jit_too():
    run = jax.jit(lambda ts: solve(saveat=diffrax.SaveAt(ts=ts)).ys)
    with pytest.raises(RuntimeError, match="must run from `t0` to `t1` in order"):
        run(jnp.array([0.5, 0.2]))


def test_a_first_step_the_wrong_way_is_refused_inside_jit_too():
    run = jax.jit(lambda dt0: solve(dt0=dt0).ys)
    with pytest.raises(RuntimeError, match="must point from `t0` to `t1`"):
        run(-0.1)
