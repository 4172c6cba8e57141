"""SDEs with given marginals, and latent SDEs trained by them."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.close import assert_tree_close

import ndekit as nk
from ndekit.models import MarginalDrift, MatchedLatentSDE, PathKL


def curved(t):
    """Marginals that move and change their width."""
    return jnp.array([jnp.sin(2 * t), t**2]), jnp.array([0.3 * t - 1.0, -0.5 * jnp.cos(3 * t)])


def coupled(t, z, args):
    """A diffusion of each number that depends on all of them."""
    return 0.5 + 0.2 * jnp.array([jnp.sin(z[0] + z[1]), jnp.cos(z[0] - t)])


numbers = st.floats(-2, 2)


@settings(max_examples=30, deadline=None)
@given(t=st.floats(0, 2), z=st.tuples(numbers, numbers))
def test_the_law_solves_the_fokker_planck_equation(t, z, x64):
    assert residual(jnp.array(t), jnp.array(z)) < 1e-10


@jax.jit
def residual(t, z):
    """How far the two sides are apart, as a part of what they are sums of."""
    drift = MarginalDrift(curved, coupled)

    def density(t, z):
        mean, log_std = curved(t)
        return jnp.prod(jnp.exp(-0.5 * ((z - mean) * jnp.exp(-log_std)) ** 2 - log_std))

    def carried(z):
        return drift(t, z, None) * density(t, z)

    def spread(z):
        return coupled(t, z, None) ** 2 * density(t, z)

    divergence = jnp.trace(jax.jacfwd(carried)(z))
    second = jnp.einsum("iii->", jax.hessian(spread)(z))
    change = jax.grad(density)(t, z)
    scale = abs(change) + abs(divergence) + abs(second) + 1e-3
    return abs(change + divergence - 0.5 * second) / scale


def test_paths_have_the_marginals_and_the_divergence():
    """4000 paths of the SDE: means, widths and the path divergence from another drift."""
    prior = lambda t, z, args: -z
    drift = MarginalDrift(curved, coupled)
    kl = PathKL(drift, prior, coupled)
    sde = nk.models.NeuralSDE(drift, coupled, costs={"kl": kl}, dt0=0.005)
    mean, log_std = curved(jnp.array(0.0))
    starts = jax.vmap(lambda key: mean + jnp.exp(log_std) * jr.normal(key, (2,)))(
        jr.split(jr.key(0), 4000)
    )
    run = jax.jit(jax.vmap(lambda y0, key: sde(y0, key=key)))
    solutions = run(starts, jr.split(jr.key(1), 4000))
    ends = solutions.ys[:, -1]
    mean, log_std = curved(jnp.array(1.0))
    std = jnp.exp(log_std)
    assert jnp.all(jnp.abs(ends.mean(0) - mean) < 5 * std / 4000**0.5 + 0.01)
    assert jnp.all(jnp.abs(ends.std(0) / std - 1) < 0.06)

    def rate(t, key):
        mean, log_std = curved(t)
        return kl.rate(t, mean + jnp.exp(log_std) * jr.normal(key, (2,)))

    drawn = jax.vmap(rate)(jr.uniform(jr.key(2), (20_000,)), jr.split(jr.key(3), 20_000))
    walked = solutions.costs["kl"]
    error = jnp.sqrt(drawn.var() / 20_000 + walked.var() / 4000)
    assert abs(drawn.mean() - walked.mean()) < 5 * error + 0.02 * walked.mean()


def test_a_stationary_process_matches_its_own_prior(x64):
    """Ornstein and Uhlenbeck's process with the law it stays in: the drifts are the same."""
    prior = lambda t, z, args: -1.5 * z
    diffusion = lambda t, z, args: jnp.array([0.6, 2.0])
    std = jnp.array([0.6, 2.0]) / 3.0**0.5
    kl = PathKL(MarginalDrift(lambda t: (jnp.zeros(2), jnp.log(std)), diffusion), prior, diffusion)
    for z in jr.normal(jr.key(0), (5, 2)):
        assert kl.rate(0.3, z) < 1e-28


def test_the_bound_of_the_exact_posterior_is_the_evidence(x64):
    """A stationary Ornstein-Uhlenbeck process, read once at the end with noise. Its posterior is
    Gaussian and Markov, so that its marginals determine it: the bound is tight.
    """
    rate, g, noise, x = 0.7, 0.9, 0.4, 1.3
    variance = g**2 / (2 * rate)
    evidence = -0.5 * x**2 / (variance + noise**2) - 0.5 * jnp.log(
        2 * jnp.pi * (variance + noise**2)
    )

    def marginal(t):
        covariance = variance * jnp.exp(-rate * (1 - t))
        gain = covariance / (variance + noise**2)
        return jnp.array([gain * x]), 0.5 * jnp.log(jnp.array([variance - gain * covariance]))

    diffusion = lambda t, z, args: jnp.full(1, g)
    kl = PathKL(MarginalDrift(marginal, diffusion), lambda t, z, args: -rate * z, diffusion)
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)  # exact for squares of linear maps

    def mean_rate(t):
        mean, log_std = marginal(t)
        rates = jax.vmap(lambda node: kl.rate(t, mean + jnp.exp(log_std) * node))(nodes)
        return rates @ weights / weights.sum()

    times, parts = np.polynomial.legendre.leggauss(20)
    path_kl = parts / 2 @ jax.vmap(mean_rate)((1 + times) / 2)
    (mean,), (log_std,) = marginal(0.0)
    ratio = jnp.exp(2 * log_std) / variance
    initial_kl = 0.5 * (ratio + mean**2 / variance - 1 - jnp.log(ratio))
    (mean,), (log_std,) = marginal(1.0)
    fit = -0.5 * ((x - mean) ** 2 + jnp.exp(2 * log_std)) / noise**2
    fit = fit - 0.5 * jnp.log(2 * jnp.pi * noise**2)
    assert_tree_close(fit - path_kl - initial_kl, evidence, rtol=1e-10)


def matched(**options):
    return MatchedLatentSDE(1, latent=2, context=4, width=8, dt0=0.05, key=jr.key(0), **options)


TS, XS = jnp.array([0.0, 0.1, 0.4, 1.0]), jnp.ones((4, 1))


def test_every_part_of_a_matched_sde_has_a_gradient():
    loss = lambda model: model.loss(TS, XS, noise_std=0.1, key=jr.key(1))[0]
    gradient = eqx.filter_jit(eqx.filter_grad(loss))(matched(draws=2))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0), jax.tree_util.keystr(path)


def test_more_draws_estimate_the_same_divergence():
    def mean_and_error(draws, number):
        model = matched(draws=draws)
        divergence = jax.jit(jax.vmap(lambda key: model(TS, XS, key=key).path_kl))
        found = divergence(jr.split(jr.key(1), number))
        return found.mean(), found.std() / number**0.5

    (one, one_error), (many, many_error) = mean_and_error(1, 4000), mean_and_error(8, 2000)
    assert abs(one - many) < 5 * jnp.hypot(one_error, many_error)
    assert many_error < one_error


def test_the_marginals_are_continuous_across_observations():
    marginal = matched().marginal(TS, jnp.sin(7 * TS)[:, None])
    for t in TS[1:-1]:
        assert_tree_close(marginal(t - 1e-6), marginal(t + 1e-6), rtol=1e-3, atol=1e-6)


def test_fewer_than_one_draw_is_refused():
    with pytest.raises(ValueError, match="`draws` must be at least 1"):
        matched(draws=0)


@pytest.mark.parametrize(
    "model",
    [
        nk.models.LatentSDE(1, latent=2, context=4, width=8, dt0=0.05, key=jr.key(0)),
        nk.models.MatchedLatentSDE(1, latent=2, context=4, width=8, dt0=0.05, key=jr.key(0)),
        nk.models.SDEGAN(1, hidden=2, width=4, depth=1, dt0=0.1, key=jr.key(0)).discriminator,
    ],
    ids=lambda model: type(model).__name__,
)
def test_series_that_do_not_fit_are_refused(model, types_unchecked):
    alone = isinstance(model, MatchedLatentSDE)
    many = isinstance(model, nk.models.Discriminator)
    given, leading = {} if many else {"key": jr.key(0)}, () if alone else (3,)
    good = np.ones((*leading, 4, 1), np.float32)
    wrong = [
        (TS[:1], good[..., :1, :], "at least two times"),
        (TS, np.ones((*leading, 4, 2)), "must have shape"),
        (TS, np.ones((*leading, 5, 1)), "must have shape"),
        (TS, np.ones((*leading, 1, 4)), "must have shape"),
        (TS[::-1], good, "must increase"),
        (TS.at[2].set(TS[1]), good, "must increase"),
    ]
    if alone:
        wrong.append((TS, good[None], "jax.vmap"))
    if many:
        wrong.append((TS, good[0], r"\(batch, 4, 1\)"))
    else:
        wrong.append((TS, good * np.nan, "missing numbers"))
    for ts, xs, message in wrong:
        with pytest.raises(ValueError, match=message):
            model(ts, xs, **given)
    # NumPy's arrays, of another precision, are taken.
    seen = model(np.asarray(TS), good.astype(np.float64), **given)
    assert all(
        np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(eqx.filter(seen, eqx.is_array))
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [({"solver": diffrax.Heun()}, "Ito"), ({"costs": {"steps": nk.StepCount()}}, "costs")],
)
def test_what_a_matched_sde_cannot_use_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        matched(**options)


def test_names_and_noise_of_a_latent_sde_are_checked():
    arguments = dict(latent=2, context=4, width=8, dt0=0.05, key=jr.key(0))
    with pytest.raises(ValueError, match="the model's own"):
        nk.models.LatentSDE(1, costs={"path_kl": nk.StepCount()}, **arguments)
    with pytest.raises(TypeError, match="noise"):
        nk.models.LatentSDE(1, noise="scalar", **arguments)
    with pytest.raises(ValueError, match="`noise_std` must be positive"):
        matched().loss(TS, XS, noise_std=0.0, key=jr.key(0))


def test_a_drift_of_marginals_takes_one_state(types_unchecked):
    with pytest.raises(ValueError, match="one state"):
        MarginalDrift(curved, coupled)(0.0, jnp.zeros((2, 2)))


def test_the_path_divergence_is_the_integral_over_the_times_of_the_series():
    """Against a quadrature in time and the mean over many states at each."""
    model, ts = matched(draws=4), jnp.array([1.0, 1.2, 2.0, 4.0])
    marginal = model.marginal(ts, XS)
    kl = model.prior.kl_from(MarginalDrift(marginal, model.prior.sde.diffusion))
    times, parts = np.polynomial.legendre.leggauss(12)

    def rate(t, key):
        return kl.rate(t, marginal(t).sample(key=key))

    # The context has kinks at the observations: piece by piece.
    whole, variance = 0.0, 0.0
    for start, end in zip(ts[:-1], ts[1:], strict=True):
        at = jnp.asarray(start + (end - start) * (1 + times) / 2, jnp.float32)
        keys = jr.split(jr.key(7), (12, 4000))
        rates = jax.jit(jax.vmap(jax.vmap(rate, in_axes=(None, 0))))(at, keys)
        weights = np.asarray((end - start) * parts / 2)
        whole += weights @ np.asarray(rates.mean(1))
        variance += weights**2 @ np.asarray(rates.var(1)) / 4000
    found = jax.jit(jax.vmap(lambda key: model(ts, XS, key=key).path_kl))(jr.split(jr.key(8), 8000))
    error = np.sqrt(variance + float(found.var()) / 8000)
    assert abs(whole - float(found.mean())) < 5 * error
    assert error < 0.05 * whole
