"""Samples, times and steps that cannot be right are refused by losses and flows, by name."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import ndekit as nk

KEY, PATH, X1 = jr.key(0), nk.paths.CondOT(), jnp.array([1.0, -1.0, 0.5])
FIELD = lambda t, x, args: jnp.zeros_like(x)
BRIDGE = nk.paths.NoisyLine(0.1)
LAW = nk.models.GaussianMixture(jnp.array([[-1.0, 0.0], [1.0, 0.0]]), 0.3)


def flow_of(size):
    return nk.models.Flow(FIELD, PATH, size)


REFUSED = {
    "a time beyond the data": (
        lambda: nk.losses.flow_matching(FIELD, PATH, X1, key=KEY, t=1.5), "`t` must be",
    ),
    "a time before the noise": (
        lambda: nk.losses.denoising(FIELD, PATH, X1, key=KEY, t=-3.0), "`t` must be",
    ),
    "a time of a bridge": (
        lambda: nk.losses.bridge_matching(FIELD, BRIDGE, X1, X1, key=KEY, t=2.0), "`t` must be",
    ),
    "a time for each coordinate": (
        lambda: nk.losses.flow_matching(FIELD, PATH, X1, key=KEY, t=jnp.full(3, 0.5)), "one time",
    ),
    "one noise for all coordinates": (
        lambda: nk.losses.flow_matching(FIELD, PATH, X1, key=KEY, x0=jnp.ones(1)), "`x0` must be",
    ),
    "a source of another shape": (
        lambda: nk.losses.bridge_matching(FIELD, BRIDGE, jnp.ones(1), X1, key=KEY), "`x0` must be",
    ),
    "data that are whole numbers": (
        lambda: nk.losses.flow_matching(FIELD, PATH, jnp.arange(3), key=KEY), "`x1` must be",
    ),
    "a step past the data": (
        lambda: nk.losses.consistency(FIELD, PATH, X1, key=KEY, t=0.9, step=0.5), "t . step",
    ),
    "two steps past the data": (
        lambda: nk.losses.shortcut(FIELD, PATH, X1, key=KEY, t=0.9, step=0.25), "t . 2 step",
    ),
    "a sample of another size": (lambda: flow_of(2).loss(X1, key=KEY), "`x1` must be one sample"),
    "a batch as a sample": (
        lambda: flow_of(3).loss(jnp.ones((5, 3)), key=KEY), "`x1` must be one sample",
    ),
    "noise of another size": (lambda: flow_of(2).push(X1), "`x0` must be"),
    "a density of another size": (
        lambda: nk.models.StandardNormal(3).log_prob(jnp.zeros((5, 2))), "`x` must be points",
    ),
    "a batch of times": (
        lambda: LAW.predict(PATH, jnp.full(2, 0.5), jnp.ones((2, 2))), "`t` must be one time",
    ),
    "a velocity of another size": (
        lambda: nk.fields.SecondOrder(FIELD, lambda q: q[:1]).lift(X1), "The velocity must have",
    ),
    "noise without an SDE": (
        lambda: nk.samplers.ddim(4, gamma=lambda sigma: sigma), "`gamma` is how much",
    ),
    "guidance of a network that says otherwise": (
        lambda: nk.samplers.ProbabilityFlow(
            nk.samplers.ClassifierFree(LAW.network(PATH, "velocity"), None), PATH, "noise"
        ),
        "predicts 'velocity'",
    ),
    "guidance by a classifier of such": (
        lambda: nk.samplers.ClassifierGuided(
            LAW.network(PATH, "velocity"), lambda t, x, args: 0.0, PATH, predicts="noise"
        ),
        "predicts 'velocity'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused(name, types_unchecked):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_times_are_below_the_end_even_when_they_are_rounded():
    key = jr.split(jr.key(0), 200_000)[20465]  # found: the last of 4,096 was 1
    ts = nk.losses.stratified_times(key, 4096)
    assert float(ts[-1]) < 1.0 and np.all(np.diff(ts) > 0)
    assert np.isfinite(nk.losses.flow_matching(FIELD, nk.paths.VP(), X1, key=KEY, t=ts[-1]))


def test_whole_numbers_are_times_of_a_flow_map():
    flow_map = lambda t, x, s: x * (s - t)
    ends = dict(t=0, s=1), dict(t=0.0, s=1.0)
    found = [nk.losses.mean_flow(flow_map, PATH, X1, key=KEY, x0=X1, **each) for each in ends]
    assert found[0] == found[1]


def test_a_weight_for_each_coordinate_gives_one_loss():
    path = nk.paths.LearnedPath(0.01, 20.0, num_knots=4, size=3)
    data = nk.fields.Preconditioned(FIELD, path)
    loss = lambda x1: nk.losses.denoising(
        data, path, x1, key=KEY, predicts="data", t=0.5, weight=data.weight
    )
    assert loss(X1).shape == () and jax.grad(loss)(X1).shape == (3,)
