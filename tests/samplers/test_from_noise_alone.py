"""Solves that begin at noise alone, and grids whose ends are learnt."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close

import ndekit as nk
from ndekit.samplers.variables import VARIABLES

LAW = nk.models.GaussianMixture(jnp.array([[-1.0], [1.0]]), 0.3)
PATH = nk.paths.CondOT()
X0 = jr.normal(jr.key(0), (5, 1))
PATHS = {
    "CondOT": PATH,
    "Trigonometric": nk.paths.Trigonometric(),
    "Cosine": nk.paths.Cosine(),
    "Polynomial(2)": nk.paths.Polynomial(2),
    "Polynomial(3)": nk.paths.Polynomial(3),
    "Shifted": nk.paths.Shifted(nk.paths.Polynomial(2), 3.0),
}


def end_of(sampler, network=None):
    network = LAW.network(PATH, "data") if network is None else network
    flow = nk.samplers.ProbabilityFlow(network, PATH, "data")
    return jax.jit(jax.vmap(lambda x: sampler(flow, x)[0]))(X0)


FINE = jax.jit(lambda: end_of(nk.samplers.adaptive(1e-6, 1e-6, variable="t")))


@pytest.mark.parametrize("name", PATHS)
def test_no_time_is_negative_in_the_angle(name):
    """Found: cos of the nearest number to pi / 2 is below 0."""
    path, angle = PATHS[name], VARIABLES["angle"]
    t = angle.time(path, angle.at(path, jnp.asarray(0.0)))
    assert 0 <= float(t) < 1e-6


def test_the_angle_begins_at_noise_alone():
    net = nk.fields.MLP(1, width=8, depth=1, time="concat", key=jr.key(1))
    data = nk.fields.Preconditioned(net, PATH)
    found = end_of(nk.samplers.adaptive(1e-5, 1e-5), data)
    assert_tree_close(found, end_of(nk.samplers.adaptive(1e-5, 1e-5, variable="t"), data), 2e-3)


@pytest.mark.parametrize("name", ["unipc", "dpmpp_3m", "dpmpp_2m"])
def test_multistep_samplers_begin_at_noise_alone_and_converge(name):
    """Found: the logarithm of no data at all."""
    sampler = getattr(nk.samplers, name)
    off = [float(jnp.abs(end_of(sampler(n, "t")) - FINE()).max()) for n in (12, 48)]
    assert off[1] < 0.02 and off[1] < 0.3 * off[0]


@pytest.mark.parametrize(("steps", "evals"), [(1, 4), (2, 8), (3, 12), (5, 14)])
def test_pndm_counts_what_its_first_steps_evaluate(steps, evals):
    """Four in each of the first three, one in the others."""
    flow = nk.samplers.ProbabilityFlow(LAW.network(PATH, "data"), PATH, "data")
    solution = nk.samplers.plms(steps, "t")(flow, X0[0], 0.02, 0.98)[1]
    assert int(solution.stats["num_evals"]) == evals


def test_a_traced_grid_ends_where_it_says():
    """Found: states were read at the `t1` that was given, not where the solve had ended."""
    flow = nk.samplers.ProbabilityFlow(LAW.network(PATH, "data"), PATH, "data")
    ts = jnp.linspace(0.05, 0.9, 9)
    along = lambda ts, t1: nk.samplers.ddim(ts)(flow, X0[0], 0.05, t1)[0]
    assert_tree_close(jax.jit(lambda ts: along(ts, 0.99))(ts), along(ts, 0.9), 1e-5)
    moved = lambda end: jnp.sum(jax.jit(lambda ts: along(ts, 0.99))(ts.at[-1].set(end)))
    by_difference = (moved(0.905) - moved(0.895)) / 0.01
    np.testing.assert_allclose(jax.grad(moved)(0.9), by_difference, rtol=0.02)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_ends_along_a_path_are_those_of_each_sample(shape):
    path, x = nk.paths.VE(0.01, 10.0), jr.normal(jr.key(2), (4, *shape))
    solve = nk.train.PathSolve(
        path, lambda t, x, args: -x, diffrax.Heun(), None, (0.01, 10.0), num_steps=3
    )
    together = solve.end_of(path, jax.vmap(lambda x: solve(path, x))(x))
    alone = [solve.end_of(path, solve(path, each)) for each in x]
    assert_tree_close(together, jnp.stack(alone), 1e-6)
