"""What is known is checked inside of jit too, where JAX traces comparisons of known arrays."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import pytest

import ndekit as nk

FLOW = nk.samplers.ProbabilityFlow(
    lambda t, x, args: -x, nk.paths.CondOT(), predicts="velocity", variable="t"
)
MAP = lambda t, x, s: x
POINT = jnp.ones(2)
# Made outside: an array that is made inside of jit is traced itself.
TENTH, QUARTER, ONE, ELEVEN = map(jnp.asarray, (0.1, 0.25, 1.0, 11.0))
ZERO, MORE, TIMES = jnp.asarray(0.0), jnp.asarray(0.9), jnp.array([0.0, 0.5, 1.0])
FALLING = TIMES[::-1]


def sampled(ts, t0=0.0, t1=1.0):
    sampler = nk.samplers.Sampler(diffrax.Euler(), "t", ts)
    return sampler(FLOW, POINT, t0=t0, t1=t1)[0]


def with_step(loss, step):
    return loss(MAP, nk.paths.CondOT(), POINT, key=jr.key(0), step=step)


def along(pinned):
    path = nk.paths.VE(0.01, 10.0)
    field = lambda t, x, args: -x
    solve = nk.train.PathSolve(path, field, diffrax.Heun(), None, pinned, num_steps=2)
    return solve.end_of(path, solve(path, POINT))


GOOD = {
    "stratified_times": lambda: nk.losses.stratified_times(jr.key(0), 4, TENTH, 0.9),
    "t_of_sigma": lambda: nk.paths.VE(0.01, 10.0).t_of_sigma(ONE),
    "sampler": lambda: sampled(TIMES, ZERO, ONE),
    "a solve along a path": lambda: along((0.01, 10.0)),
    "shortcut": lambda: with_step(nk.losses.shortcut, QUARTER),
    "consistency": lambda: with_step(nk.losses.consistency, QUARTER),
}
BAD = {
    "stratified_times": lambda: nk.losses.stratified_times(jr.key(0), 4, MORE, 0.1),
    "t_of_sigma": lambda: nk.paths.VE(0.01, 10.0).t_of_sigma(ELEVEN),
    "sampler, falling": lambda: sampled(FALLING),
    "sampler, noise alone": lambda: nk.samplers.dpm_solver_2(4, "t")(FLOW, POINT)[0],
    "sampler, other ends": lambda: sampled(TIMES, TENTH),
    "a solve along a path": lambda: along((0.001, 10.0)),
    "shortcut": lambda: with_step(nk.losses.shortcut, MORE),
    "consistency": lambda: with_step(nk.losses.consistency, 0.0),
    "another path": lambda: nk.samplers.ProbabilityFlow(
        nk.fields.Preconditioned(MAP, nk.paths.VE(0.01, 10.0)),
        nk.paths.VE(0.01, 20.0),
        predicts="data",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_known_arrays_pass_inside_of_jit(name):
    assert jnp.allclose(jax.jit(GOOD[name])(), GOOD[name](), atol=1e-6)


@pytest.mark.parametrize("name", BAD)
def test_a_known_fault_is_refused_inside_of_jit_as_outside(name):
    with pytest.raises(ValueError) as outside:
        BAD[name]()
    with pytest.raises(ValueError) as inside:
        jax.jit(BAD[name])()
    assert str(inside.value) == str(outside.value)
