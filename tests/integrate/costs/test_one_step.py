"""One step picked at random: which, how often, and what its gradient is."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from support.close import assert_tree_close
from support.problems import StepEnd

import ndekit as nk


class Length(nk.AbstractStepCost):
    """The size of a step."""

    def of_step(self, step):
        return step.h


def solve(y0, costs, key, **options):
    return nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: jnp.sin(3 * y) * jnp.cos(5 * t)), diffrax.Tsit5(),
        0.0, 2.0, 0.3, y0, stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-5),
        max_steps=64, costs=costs, key=key, **options,
    )  # fmt: skip


def each_step(y0, **options):
    """Ends and sizes of the accepted steps; some attempts are rejected."""
    costs = {"end": nk.EachStep(StepEnd()), "h": nk.EachStep(Length())}
    sol = solve(y0, costs, None, **options)
    assert sol.stats["num_rejected_steps"] > 0
    number = int(sol.stats["num_accepted_steps"])
    return np.asarray(sol.costs["end"][:number]), np.asarray(sol.costs["h"][:number])


Y0 = np.array([0.7, -0.2])


@pytest.mark.parametrize("sample", ["time", "step"])
def test_steps_are_picked_as_often_as_stated(sample):
    ends, sizes = each_step(jnp.asarray(Y0))
    pick = lambda key: solve(jnp.asarray(Y0), {"end": nk.OneStep(StepEnd(), sample)}, key).costs[
        "end"
    ]
    number = 4000
    picked = np.asarray(jax.jit(jax.vmap(pick))(jr.split(jr.key(0), number)))
    steps = np.argmin(np.abs(picked[:, None] - ends), axis=1)
    np.testing.assert_allclose(picked, ends[steps], rtol=1e-5)
    chances = sizes / sizes.sum() if sample == "time" else np.full(len(ends), 1 / len(ends))
    counts = np.bincount(steps, minlength=len(ends))
    squared = np.sum((counts - number * chances) ** 2 / (number * chances))
    degrees = len(ends) - 1
    # Chi squared, four standard deviations above its mean.
    assert squared < degrees + 4 * np.sqrt(2 * degrees)


@pytest.mark.parametrize(
    "adjoint",
    [
        nk.ReplayAdjoint(),
        pytest.param(diffrax.RecursiveCheckpointAdjoint(), marks=pytest.mark.slow),
    ],
)
def test_value_and_gradient_are_those_of_that_step_alone(x64, adjoint):
    y0 = jnp.asarray(Y0)
    costs = {"picked": nk.OneStep(nk.StepError(power=2)), "end": nk.OneStep(StepEnd())}
    key = jr.key(4)
    ends, _ = each_step(y0)
    at = int(np.argmin(np.abs(ends - float(solve(y0, costs, key).costs["end"]))))
    ours = lambda y0: solve(y0, costs, key, adjoint=adjoint).costs["picked"]
    every = {"all": nk.EachStep(nk.StepError(power=2))}
    alone = lambda y0: solve(y0, every, None).costs["all"][at]
    found = [jax.value_and_grad(f)(y0) for f in (ours, alone)]
    assert_tree_close(*found, rtol=1e-8)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="needs a key"):
        solve(jnp.asarray(Y0), {"c": nk.OneStep(nk.StepError())}, None)
    with pytest.raises((ValueError, TypeCheckError), match="sample"):
        nk.OneStep(nk.StepError(), "place")  # pyright: ignore[reportArgumentType]
    with pytest.raises((ValueError, TypeCheckError), match="cost"):
        nk.OneStep(nk.OneStep(nk.StepError()))  # pyright: ignore[reportArgumentType]
