"""The models with noise: neural and latent SDEs."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from scipy.stats import norm
from support.close import assert_tree_close

import ndekit as nk


def sde_of(noise="diagonal", **options):
    shape = (3, 2) if noise == "general" else (3,)
    return nk.models.NeuralSDE(
        lambda t, y, args: -y, lambda t, y, args: 0.3 * jnp.ones(shape), noise=noise, **options
    )


@pytest.mark.parametrize(
    ("noise", "solver"),
    [
        ("diagonal", diffrax.ItoMilstein()),
        ("scalar", diffrax.Heun()),
        ("general", diffrax.SPaRK()),
    ],
)
def test_mean_and_variance_of_an_ornstein_uhlenbeck_process(noise, solver):
    size = 2 if noise == "general" else None
    sde = sde_of(noise, solver=solver, noise_size=size)
    run = jax.jit(jax.vmap(lambda key: sde(jnp.ones(3), key=key).ys[-1]))
    ys = run(jr.split(jr.key(0), 4000))
    variance = 0.09 * (1 - jnp.exp(-2.0)) / 2 * (2 if noise == "general" else 1)
    assert jnp.all(jnp.abs(ys.mean(0) - jnp.exp(-1.0)) < 5 * jnp.sqrt(variance / 4000) + 0.01)
    assert jnp.all(jnp.abs(ys.var(0) / variance - 1) < 0.15)
    correlation = jnp.corrcoef(ys.T)[0, 1]
    assert abs(correlation - (0 if noise == "diagonal" else 1)) < 0.08


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sde_of()(jnp.ones(3)), "draws its noise"),
        (lambda: sde_of("coloured"), "`noise` must be one of"),
        (lambda: sde_of("general"), "noise_size"),
        (lambda: sde_of("general", noise_size=4)(jnp.ones(3), key=jr.key(0)), "must have shape"),
        (lambda: sde_of()(jnp.ones(4), key=jr.key(0)), "must have shape"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_solver_without_estimate_cannot_adapt():
    controller = diffrax.PIDController(rtol=1e-2, atol=1e-2)
    with pytest.raises((ValueError, RuntimeError), match="error estimate|adaptive"):
        sde_of(solver=diffrax.ItoMilstein(), controller=controller)(jnp.ones(3), key=jr.key(0))


def test_path_divergence_of_a_constant_difference(x64):
    """Drifts that differ by a constant: half the square of it over the diffusion, times t."""
    posterior, prior = lambda t, y, args: 1.0 - y, lambda t, y, args: -y
    diffusion = lambda t, y, args: jnp.array([0.5, 2.0])
    kl = nk.models.PathKL(posterior, prior, diffusion)
    sde = nk.models.NeuralSDE(posterior, diffusion, costs={"kl": kl}, t1=3.0)
    sol = sde(jnp.zeros(2), key=jr.key(0))
    assert_tree_close(sol.costs["kl"], jnp.array(0.5 * 3 * (1 / 0.25 + 1 / 4)), rtol=1e-9)


def latent_of(key, model=nk.models.LatentSDE, **options):
    return model(1, latent=2, context=4, width=8, dt0=0.05, key=key, **options)


@pytest.mark.parametrize("kind", [nk.models.LatentSDE, nk.models.MatchedLatentSDE])
def test_the_diffusion_begins_where_it_is_told(kind):
    arguments = dict(latent=2, context=4, width=8, dt0=0.05, key=jr.key(0))
    for level in (0.1, 0.7):
        g = kind(1, diffusion0=level, **arguments).prior.sde.diffusion(0.0, jnp.zeros(2), None)
        assert jnp.all(jnp.abs(g - level) < 0.02)
    with pytest.raises(ValueError, match="`diffusion0` must be between"):
        kind(1, diffusion0=1.0, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", [nk.models.LatentSDE, nk.models.MatchedLatentSDE])
def test_latent_sde_learns_a_series(kind, missing):
    ts = jnp.linspace(0.0, 1.0, 9)
    exact = jnp.sin(4 * ts)[:, None]
    xs = exact[None] + 0.1 * jr.normal(jr.key(1), (8, 9, 1))
    if missing:
        xs = jnp.where(jr.bernoulli(jr.key(4), 0.4, xs.shape), jnp.nan, xs)
    model, optimizer = latent_of(jr.key(0), kind, missing=missing), optax.adam(0.01)

    def loss_of(model, key):
        loss = lambda x, key: model.loss(ts, x, noise_std=0.1, beta=0.1, key=key)[0]
        return jnp.mean(jax.vmap(loss)(xs, jr.split(key, 8)))

    @eqx.filter_jit
    def update(model, state, key):
        loss, grads = eqx.filter_value_and_grad(loss_of)(model, key)
        changes, state = optimizer.update(grads, state)
        return eqx.apply_updates(model, changes), state, loss

    state, losses = optimizer.init(eqx.filter(model, eqx.is_array)), []
    with jax.numpy_dtype_promotion("standard"):  # optax's bias correction
        for step in range(60):
            model, state, loss = update(model, state, jr.key(step))
            losses.append(float(loss))
    assert losses[-1] < 0.2 * losses[0]
    drawn = jax.vmap(lambda key: model.sample(ts, key=key))(jr.split(jr.key(2), 16))
    assert drawn.shape == (16, 9, 1) and bool(jnp.all(jnp.isfinite(drawn)))
    found = jax.vmap(lambda x: model(ts, x, key=jr.key(3)).values)(xs)
    # Where a number is missing, too. (The other one has only begun to learn the series.)
    if kind is nk.models.MatchedLatentSDE:
        assert jnp.sqrt(jnp.mean((found - exact[None]) ** 2)) < 0.25


@pytest.mark.parametrize("kind", [nk.models.LatentSDE, nk.models.MatchedLatentSDE])
def test_the_bound_is_of_the_numbers_that_are_there(kind):
    ts, xs = jnp.linspace(0.0, 1.0, 4), jnp.array([0.3, jnp.nan, -1.0, jnp.nan])[:, None]
    model = latent_of(jr.key(0), kind, missing=True)
    of = lambda model: model.loss(ts, xs, noise_std=0.5, key=jr.key(1))
    (loss, latent), grads = eqx.filter_jit(eqx.filter_value_and_grad(of, has_aux=True))(model)
    there = ~np.isnan(np.asarray(xs))
    fit = norm.logpdf(np.asarray(xs)[there], np.asarray(latent.values)[there], 0.5).sum()
    assert_tree_close(loss, latent.path_kl + latent.initial_kl - fit, rtol=1e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        name = jax.tree_util.keystr(path)
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0), name
    # What is not there is not a zero.
    filled = eqx.filter_jit(model)(ts, jnp.nan_to_num(xs), key=jr.key(1))
    assert not np.allclose(filled.states, latent.states)


def test_every_part_of_a_latent_sde_has_a_gradient():
    ts, xs = jnp.linspace(0.0, 1.0, 5), jnp.ones((5, 1))
    loss = lambda m: m.loss(ts, xs, noise_std=0.1, key=jr.key(1))[0]
    grads = eqx.filter_jit(eqx.filter_grad(loss))(latent_of(jr.key(0)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert bool(jnp.any(leaf != 0)), jax.tree_util.keystr(path)


@pytest.mark.slow
def test_a_batch_of_series_as_one_state_is_the_mean_over_series(x64):
    """Laws without noise: series of their own have the same paths then, batched or not."""
    model = latent_of(jr.key(0))
    still = lambda t, z, args: jnp.full(z.shape, 1e-9)
    model = eqx.tree_at(lambda m: m.prior.sde.diffusion, model, still)
    model = eqx.tree_at(lambda m: m.to_first.bias, model, jnp.array([0.1, 0.2, -30.0, -30.0]))
    ts, xs = jnp.linspace(0.0, 1.0, 5), jr.normal(jr.key(1), (3, 5, 1))
    together, seen = model.loss(ts, xs, noise_std=0.1, key=jr.key(2))
    alone = [model.loss(ts, x, noise_std=0.1, key=jr.key(2)) for x in xs]
    assert_tree_close(seen.values, jnp.stack([one.values for _, one in alone]), rtol=1e-6)
    assert_tree_close(together, jnp.mean(jnp.stack([loss for loss, _ in alone])), rtol=1e-6)


@pytest.mark.parametrize(
    ("noise", "solver", "shape"),
    [
        ("diagonal", diffrax.Euler(), (3,)),
        ("scalar", diffrax.ReversibleHeun(), (3,)),
        ("general", diffrax.ReversibleHeun(), (3, 2)),
        ("general", diffrax.SPaRK(), (3, 2)),
    ],
)
def test_samples_of_one_state_have_noise_of_their_own(noise, solver, shape):
    """The covariance of one sample is that of its equation; that of two is zero."""
    matrix = jr.normal(jr.key(5), shape)
    sde = nk.models.NeuralSDE(
        lambda t, y, args: 0 * y,
        lambda t, y, args: jnp.broadcast_to(matrix, (*y.shape[:-1], *shape)),
        noise=noise, noise_size=2 if noise == "general" else None, solver=solver, dt0=0.5,
    )  # fmt: skip
    ys = jax.jit(lambda key: sde(jnp.zeros((2, 2000, 3)), key=key).ys[-1])(jr.key(0))
    covariance = {
        "diagonal": jnp.diag(matrix**2) if noise == "diagonal" else None,
        "scalar": jnp.outer(matrix, matrix) if noise == "scalar" else None,
        "general": matrix @ matrix.T if noise == "general" else None,
    }[noise]
    scale = jnp.sqrt(jnp.outer(jnp.diag(covariance), jnp.diag(covariance)))
    for a, b, expected in ((0, 0, covariance), (1, 1, covariance), (0, 1, 0 * covariance)):
        found = ys[a].T @ ys[b] / 2000
        # The standard error of a covariance of Gaussians is at most sqrt(2 / n) of the variances.
        assert jnp.all(jnp.abs(found - expected) < 5 * scale * jnp.sqrt(2 / 2000))


@pytest.mark.parametrize("solver", [diffrax.Heun(), diffrax.SPaRK(), diffrax.ReversibleHeun()])
@pytest.mark.parametrize("inputs", [1, 2])
def test_a_batch_of_one_state_is_a_long_state_with_a_block_for_each_sample(inputs, solver, x64):
    def diffusion(t, y, args):
        return jnp.stack([jnp.cos(y), jnp.sin(2 * y)][:inputs], axis=-1)

    def blocks(t, y, args):
        g = diffusion(t, y.reshape(4, 3), args)
        return jnp.einsum("bij,bc->bicj", g, jnp.eye(4)).reshape(12, 4 * inputs)

    def ends(g, y0, noise, noise_size):
        sde = nk.models.NeuralSDE(
            lambda t, y, args: -y, g, noise=noise, noise_size=noise_size, solver=solver,
        )  # fmt: skip
        return sde(y0, key=jr.key(2)).ys[-1]

    y0 = jr.normal(jr.key(1), (4, 3))
    together = ends(blocks, y0.reshape(12), "general", 4 * inputs)
    assert_tree_close(ends(diffusion, y0, "general", inputs).reshape(12), together, rtol=1e-10)
    if inputs == 1:
        scalar = ends(lambda *at: diffusion(*at)[..., 0], y0, "scalar", None)
        assert_tree_close(scalar.reshape(12), together, rtol=1e-10)
