"""Densities of a flow that flow matching has trained, to a thousandth of a nat in float32."""

import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from support.fine_densities import by_scipy
from support.marks import slow_but

import ndekit as nk
from ndekit.losses import flow_matching, stratified_times
from ndekit.models import CNF, StandardNormal
from ndekit.probes import AbstractTrace, Exact, Hutchinson, HutchPP

NATS = 1e-3
CENTRES = np.array([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]])


@functools.cache
def trained_field():
    """Four Gaussians by flow matching, 400 updates: a field far from linear, and far from zero."""
    rng = np.random.default_rng(0)
    data = CENTRES[rng.integers(0, 4, 4096)] + 0.4 * rng.normal(size=(4096, 2))
    data, path = data.astype(np.float32), nk.paths.CondOT()

    def loss(field, batch, step, *, key):
        ts = stratified_times(jr.fold_in(key, 1), 256, 0.0, 1.0)
        one = lambda x1, key, t: flow_matching(field, path, x1, key=key, t=t)
        return jnp.mean(jax.vmap(one)(batch, jr.split(key, 256), ts)), {}

    field = nk.fields.MLP(2, width=32, depth=2, time="concat", final="linear", key=jr.key(0))
    return nk.train.fit(
        field, loss, nk.data.Batches(data, batch_size=256, key=jr.key(1)),
        optimizer=optax.adam(optax.cosine_decay_schedule(1e-2, 400)), num_updates=400,
        updates_per_call=100, key=jr.key(2), progress=False,
    ).model  # fmt: skip


def flow(trace: AbstractTrace = Exact()):
    """As it comes: Tsit5 at 1e-5."""
    return CNF(trained_field(), StandardNormal(2), trace=trace)


@functools.cache
def points():
    """Samples, a point between the modes, and two far out."""
    few = flow().sample((4,), key=jr.key(3))
    return np.concatenate([few, [[0.0, 0.0], [4.0, -3.0], [-1.0, 5.0]]]).astype(np.float32)


@functools.cache
def expected():
    return np.array([by_scipy(flow(), x) for x in points().astype(np.float64)])


def test_the_training_has_found_the_modes():
    at_modes = flow().log_prob(jnp.asarray(CENTRES, jnp.float32))
    # The law itself has -1.39 there, a normal law of the same covariance -3.1.
    assert jnp.all(at_modes > -2.2) and flow().log_prob(jnp.zeros(2)) < -4


def test_the_density_of_a_trained_flow_is_one_in_all():
    edges = jnp.linspace(-6.0, 6.0, 121)
    grid = jnp.stack(jnp.meshgrid(edges, edges), axis=-1)
    density = np.exp(np.asarray(flow().log_prob(grid), np.float64))
    assert density[0].max() < 1e-6 and density[:, 0].max() < 1e-6  # nothing is left outside
    assert np.sum(density) * 0.1**2 == pytest.approx(1.0, abs=NATS)


@pytest.mark.parametrize("how", slow_but(["as one state"], ["as one state", "one by one"]))
def test_the_exact_trace_is_right_to_a_thousandth_of_a_nat(how):
    log_prob = jax.vmap(flow().log_prob) if how == "one by one" else flow().log_prob
    np.testing.assert_allclose(log_prob(jnp.asarray(points())), expected(), atol=NATS)


TRACES = {
    "signs": Hutchinson(),
    "Gaussian": Hutchinson("gaussian", 2),
    "Hutch++": HutchPP(1),
}


@pytest.mark.parametrize("name", slow_but(["signs"], TRACES))
def test_an_estimate_is_that_of_its_probes_to_a_thousandth_of_a_nat(name):
    """Its own error apart: the fine solve has the same directions for the whole way."""
    noisy, key, xs = flow(TRACES[name]), jr.key(4), jnp.asarray(points())
    trace_key, _ = jr.split(key)
    at_start = lambda x: noisy.field(1.0, x, None)
    of_all = np.asarray(noisy.trace.directions(at_start, xs, 1, key=trace_key))
    fine = [by_scipy(noisy, np.float64(x), of_all[:, i]) for i, x in enumerate(points())]
    np.testing.assert_allclose(noisy.log_prob(xs, key=key), fine, atol=NATS)
    assert np.max(np.abs(fine - expected())) > 10 * NATS  # the estimates are no exact traces


def test_the_mean_over_all_signs_is_the_log_density():
    """Two numbers have two products of signs, as likely as each other: their mean is exact."""
    noisy, xs = flow(Hutchinson()), jnp.asarray(points())
    found = np.asarray(jax.vmap(lambda key: noisy.log_prob(xs, key=key))(jr.split(jr.key(5), 12)))
    low, high = found.min(axis=0), found.max(axis=0)
    assert np.all(high - low > 10 * NATS)
    # Of each point there are these two values and no others.
    assert np.all(np.minimum(found - low, high - found) < NATS)
    np.testing.assert_allclose((low + high) / 2, expected(), atol=NATS)


@pytest.mark.slow
def test_hutch_plus_plus_of_two_columns_is_exact_in_the_plane():
    found = flow(HutchPP(2)).log_prob(jnp.asarray(points()), key=jr.key(6))
    np.testing.assert_allclose(found, expected(), atol=NATS)
