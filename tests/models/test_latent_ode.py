"""Latent ODEs: bounds in closed form, encoders, padding, training."""

import math

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from scipy.stats import multivariate_normal, norm
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk

pytestmark = pytest.mark.usefixtures("x64")
ENCODERS = ("gru", "gated", "ode_rnn", "cde")


def in_float64(model):
    return jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, model)


def built(encoder="gru", channels=2, latent=3, **options):
    options = dict(encoder_size=5, width=8, depth=1) | options
    model = nk.models.LatentODE(channels, latent, encoder=encoder, key=jr.key(0), **options)
    return in_float64(model)


def series_of(length, seed=0, channels=2):
    rng = np.random.default_rng(seed)
    xs = rng.normal(size=(length, channels))
    xs[rng.random(xs.shape) < 0.3] = np.nan
    xs[0] = rng.normal(size=channels)
    return nk.data.Series(np.cumsum(rng.uniform(0.1, 0.4, length)), xs)


@pytest.mark.parametrize("encoder", slow_but(["gru"], ENCODERS))
def test_padding_is_harmless(encoder):
    """Each series of a batch has the bound and the gradient that it has alone."""
    each = [series_of(n, n) for n in (5, 2, 4)]
    batch = nk.data.pad(each)
    rubbish = lambda x: np.where(batch.is_real.reshape(3, -1, *[1] * (x.ndim - 2)), x, np.nan)
    where = lambda s: (s.ts, s.xs)
    batch = eqx.tree_at(
        where, batch, (rubbish(np.asarray(batch.ts)), rubbish(np.asarray(batch.xs)))
    )
    arrays, rest = eqx.partition(built(encoder), eqx.is_inexact_array)

    def loss(arrays, series):
        path, sol = eqx.combine(arrays, rest)(series, key=jr.key(1), samples=2)
        return nk.models.latent_bound(path, series, noise_std=0.3)

    alone = [jax.jit(jax.value_and_grad(loss))(arrays, series) for series in each]
    together = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(arrays, batch)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    assert_tree_close(together, stacked, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_encoder_reads_the_whole_series(encoder):
    """The posterior depends on each reading, and on nothing that is missing."""
    model, series = built(encoder), series_of(4, 3)

    def of(xs):
        changed = eqx.tree_at(lambda s: s.xs, series, xs)
        return jnp.concatenate([*model.posterior(changed, key=jr.key(0))])

    slopes = np.asarray(jax.jacrev(of)(jnp.asarray(series.xs)))
    known = np.any(slopes != 0, axis=0)
    np.testing.assert_array_equal(known, series.mask)


def test_bounds_of_a_linear_model():
    """z' = 0 and x = a z + noise: everything is normal. The bound is below the log likelihood,
    equal to it at the true posterior, and the weighted one is in between.
    """
    a, sigma, number = 0.8, 0.5, 3
    xs = np.array([[0.3], [1.1], [-0.2]])
    series = nk.data.Series([0.0, 1.0, 2.0], xs)
    exact = multivariate_normal.logpdf(
        xs[:, 0], np.zeros(3), a**2 * np.ones((3, 3)) + sigma**2 * np.eye(3)
    )
    precision = 1 + number * a**2 / sigma**2
    mean, std = a * xs.sum() / sigma**2 / precision, precision**-0.5

    def bounds(mean, std, samples):
        encoder = lambda series, key: (jnp.array([mean, 2 * math.log(std)]), None)
        model = built(encoder, channels=1, latent=1)
        model = eqx.tree_at(lambda m: m.field, model, lambda t, z, args: jnp.zeros_like(z))
        model = eqx.tree_at(lambda m: m.decoder, model, lambda z: a * z)
        path, _ = model(series, key=jr.key(0), samples=samples)
        find = lambda kind: float(nk.models.latent_bound(path, series, noise_std=sigma, bound=kind))
        return -find("elbo"), -find("iwae")

    elbo, iwae = bounds(mean, std, 4000)
    np.testing.assert_allclose(iwae, exact, rtol=1e-9)  # all weights are one and the same
    np.testing.assert_allclose(elbo, exact, atol=0.05)
    elbo, iwae = bounds(mean + 0.2, 1.5 * std, 4000)
    divergence = math.log(1 / 1.5) + (2.25 + (0.2 / std) ** 2) / 2 - 0.5
    np.testing.assert_allclose(elbo, exact - divergence, atol=0.1)
    assert elbo < iwae < exact + 0.02


def test_the_published_loss_by_hand():
    rng = np.random.default_rng(1)
    batch = nk.data.pad([series_of(4, 1), series_of(3, 2)])
    values, z0 = rng.normal(size=(2, 3, 4, 2)), rng.normal(size=(2, 3, 5))
    mean, log_std = rng.normal(size=(2, 5)), rng.normal(size=(2, 5)) * 0.3
    posterior = nk.models.Normal(jnp.asarray(mean), jnp.asarray(log_std))
    path = nk.models.LatentPath(jnp.asarray(values), jnp.asarray(z0), posterior, None)
    found = nk.models.latent_bound(path, batch, noise_std=0.5, beta=0.7, bound="published")
    mask, xs, likely = np.asarray(batch.mask), np.asarray(batch.xs), []
    for s in range(3):
        per_series = []
        for i in range(2):
            per_channel = []
            for c in range(2):
                here = mask[i, :, c]
                logs = norm.logpdf(xs[i, here, c], values[i, s, here, c], 0.5)
                per_channel.append(logs.mean() if here.any() else 0.0)
            per_series.append(np.mean(per_channel))
        likely.append(np.mean(per_series))
    sd = np.exp(log_std)
    kl = np.mean(0.5 * (sd**2 + mean**2 - 1) - log_std)
    expected = -np.log(np.sum(np.exp(np.array(likely) - 0.7 * kl)))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_values_at_other_times_and_samples_of_the_prior():
    model, series = built(costs={"steps": nk.StepCount()}), series_of(4, 5)
    ts = jnp.array([float(series.ts[0]), 3.0, 5.0])
    path, sol = model(series, ts, key=jr.key(0), samples=2)
    assert path.values.shape == (2, 3, 2) and sol.costs["steps"].shape == (2,)
    again, _ = model.decode(path.z0[0], ts)
    np.testing.assert_allclose(path.values[0], again, rtol=1e-12)
    assert model.sample(ts, key=jr.key(3)).shape == (3, 2)
    with pytest.raises(ValueError, match="without `ts`"):
        nk.models.latent_bound(path, series, noise_std=0.1)


def test_training_lowers_the_bound():
    """On damped oscillations with gaps, from half of the readings."""
    ts = np.linspace(0.0, 4.0, 12)
    rng = np.random.default_rng(0)
    phases = rng.uniform(0, 2 * np.pi, 32)
    xs = np.exp(-0.2 * ts) * np.sin(2 * ts + phases[:, None])
    xs = np.where(rng.random(xs.shape) < 0.5, np.nan, xs)[..., None]
    xs[:, 0, 0] = np.sin(phases)
    batch = nk.data.Series(np.broadcast_to(ts, (32, 12)), xs)
    model = built(
        channels=1, latent=3, spread="absolute", controller=diffrax.PIDController(1e-3, 1e-3)
    )
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)
    optimizer = optax.adam(1e-2)

    def loss(arrays, key):
        run = lambda series, key: eqx.combine(arrays, rest)(series, key=key)[0]
        path = jax.vmap(run)(batch, jr.split(key, 32))
        return nk.models.latent_bound(path, batch, noise_std=0.2)

    @jax.jit
    def update(arrays, state, key):
        value, grads = jax.value_and_grad(loss)(arrays, key)
        changes, state = optimizer.update(grads, state)
        return optax.apply_updates(arrays, changes), state, value

    state, values = optimizer.init(arrays), []
    for i in range(60):
        with jax.numpy_dtype_promotion("standard"):  # for optax
            arrays, state, value = update(arrays, state, jr.fold_in(jr.key(2), i))
        values.append(float(value))
    assert np.mean(values[-5:]) < 0.6 * np.mean(values[:5])


@pytest.mark.parametrize("change, words", (
    (dict(encoder="lstm"), "encoder"), (dict(spread="variance"), "spread"),
    (dict(latent=0), "latent"),
    (dict(encoder=lambda s, key: 0, encoder_options={"gap": True}), "by its name"),
), ids=("encoder", "spread", "latent", "options"))  # fmt: skip
@pytest.mark.usefixtures("types_unchecked")
def test_bad_options(change, words):
    with pytest.raises(ValueError, match=words):
        built(**change)


@pytest.mark.usefixtures("types_unchecked")
def test_bad_calls():
    model, series = built(), series_of(3)
    with pytest.raises(ValueError, match="samples"):
        model(series, key=jr.key(0), samples=0)
    wrong = built(lambda series, key: (jnp.zeros(5), None))
    with pytest.raises(ValueError, match="must give 6 numbers"):
        wrong(series, key=jr.key(0))
    path, _ = model(series, key=jr.key(0))
    with pytest.raises(ValueError, match="noise_std"):
        nk.models.latent_bound(path, series, noise_std=0.0)
    with pytest.raises(ValueError, match="bound"):
        nk.models.latent_bound(path, series, noise_std=1.0, bound="vae")


def test_without_a_key_the_path_is_that_of_the_mean():
    model, series = built(), series_of(4, 2)
    path, sol = model(series)
    mean = model.posterior(series).mean
    assert_tree_close(path.z0, mean[None], rtol=1e-12)
    values, _ = model.decode(mean, series.ts)
    assert_tree_close(path.values[0], values, rtol=1e-12)
    assert sol.stats["num_steps"].shape == (1,)
    with pytest.raises(ValueError, match="3 samples must be drawn by a `key`"):
        model(series, samples=3)


@pytest.mark.parametrize("encoder", ["gru", "gated"])
def test_an_encoder_without_a_flow_is_told_the_time_between_rows(encoder):
    model, series = built(encoder), series_of(4, 2)
    slower = eqx.tree_at(lambda s: s.ts, series, 2 * series.ts)
    assert not np.allclose(model.posterior(series).mean, model.posterior(slower).mean, rtol=1e-3)
