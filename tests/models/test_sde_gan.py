"""A neural SDE against a discriminating neural CDE."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk
from ndekit.fields import MLP, Affine, clip_weights

TS = jnp.linspace(0.0, 1.0, 6)


def gan_of(**options):
    arguments = {"hidden": 4, "width": 8, "depth": 1, "noise_size": 3, "dt0": 0.1, **options}
    return nk.models.SDEGAN(2, key=jr.key(0), **arguments)


def series_with_holes(batch=16):
    xs = jr.normal(jr.key(1), (batch, len(TS), 2))
    return jnp.where(jr.uniform(jr.key(2), xs.shape) < 0.3, jnp.nan, xs)


@pytest.mark.parametrize("noise_size", slow_but([None], [3, None]))
def test_every_part_gets_a_finite_gradient(noise_size):
    xs = series_with_holes()
    gradient = eqx.filter_jit(eqx.filter_grad(lambda gan: gan.distance(TS, xs, key=jr.key(3))))(
        gan_of(noise_size=noise_size)
    )
    # A constant added to both scores does not change their difference.
    gradient = eqx.tree_at(lambda gan: gan.discriminator.readout.bias, gradient, None)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf)), jax.tree_util.keystr(path)
        assert np.any(leaf != 0), jax.tree_util.keystr(path)


@pytest.mark.slow
def test_the_players_pull_in_opposite_directions(x64):
    """A step along minus the gradient: the generator's lowers the distance, the other's raises it,
    each by the square of the gradient's length to first order.
    """
    gan = gan_of()
    xs = series_with_holes().astype(jnp.float64)

    @eqx.filter_jit
    def distance(gan):
        return gan.distance(TS, xs, key=jr.key(3))

    gradient = eqx.filter_grad(distance)(gan)
    for player, sign in (("generator", -1), ("discriminator", 1)):
        part = getattr(gradient, player)
        squared = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(part))
        length = 1e-5 / jnp.sqrt(squared)

        def moved(by, player=player, part=part):
            there = eqx.apply_updates(getattr(gan, player), jax.tree.map(lambda g: -by * g, part))
            return distance(eqx.tree_at(lambda gan: getattr(gan, player), gan, there))

        slope = (moved(length) - moved(-length)) / (2 * length)
        np.testing.assert_allclose(slope, sign * squared, rtol=1e-6)


def test_holes_are_judged_as_straight_lines_between_what_is_known():
    gan, xs = gan_of(), series_with_holes()
    # The first and last value of each series are known: beyond them conventions differ.
    xs = xs.at[:, 0].set(1.0).at[:, -1].set(-1.0)
    lines = jax.vmap(lambda x: jax.vmap(lambda c: diffrax.linear_interpolation(TS, c), 1, 1)(x))(xs)
    assert not np.isnan(lines).any()
    assert_tree_close(gan.discriminator(TS, xs), gan.discriminator(TS, lines), rtol=1e-5)


def test_the_first_and_last_known_values_go_on_beyond():
    gan = gan_of()
    known = jnp.array([[jnp.nan, jnp.nan, 1.0, 2.0, 4.0, jnp.nan]]).T
    whole = jnp.array([[1.0, 1.0, 1.0, 2.0, 4.0, 4.0]]).T
    scores = [gan.discriminator(TS, jnp.tile(x, (1, 2))[None]) for x in (known, whole)]
    assert_tree_close(*scores, rtol=1e-6)


def test_a_series_of_holes_alone_has_a_finite_score_and_gradient():
    gan = gan_of()
    hole = jnp.full((1, len(TS), 2), jnp.nan)
    score, gradient = eqx.filter_value_and_grad(lambda judge: judge(TS, hole)[0])(gan.discriminator)
    assert np.isfinite(score)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_the_score_is_that_of_a_scan_of_heun_steps(x64):
    judge = gan_of(solver=diffrax.Heun()).discriminator
    ts, xs = jnp.linspace(0.0, 1.0, 6), jr.normal(jr.key(1), (5, 6, 2))
    path = jnp.concatenate([jnp.broadcast_to(ts[None, :, None], (5, 6, 1)), xs], axis=-1)

    def step(h, dx):
        def slope(h):
            return jnp.einsum("bij,bj->bi", judge.field(0.0, h), dx)

        half = slope(h)
        return h + (half + slope(h + half)) / 2, None

    first = judge.first(0.0, path[:, 0])
    last, _ = jax.lax.scan(step, first, jnp.swapaxes(jnp.diff(path, axis=1), 0, 1))
    expected = (judge.readout(first) + judge.readout(last))[:, 0] / 2
    assert_tree_close(judge(ts, xs), expected, rtol=1e-12)


@pytest.mark.parametrize("time", ["none", "concat_each_layer"])
def test_a_clipped_layer_passes_a_change_of_all_its_inputs_on_as_it_is(time):
    """Weights far beyond their bounds, all of one sign: the steepest that a layer may be."""
    with_time = time != "none"
    field = MLP(5, 7, 2, out=3, time=time, activation=lambda x: x, final="linear", key=jr.key(0))
    steep = jax.tree.map(lambda x: 1e6 * (jnp.abs(x) + 1e-3) if eqx.is_array(x) else x, field)
    clipped = clip_weights(steep)
    y = jr.normal(jr.key(1), (5,))
    # With time among a layer's inputs the others are let through by one part less.
    parts = (5 / 6) * (7 / 8) ** 2 if with_time else 1.0
    change = clipped(0.3, y + 0.5) - clipped(0.3, y)
    assert_tree_close(change, jnp.full(3, 0.5 * parts), rtol=1e-3)
    biases = [layer.bias for layer in clipped.layers]
    assert_tree_close(biases, [layer.bias for layer in steep.layers], rtol=0)


def test_stacked_layers_are_clipped_by_their_own_inputs():
    layers = eqx.filter_vmap(lambda key: Affine(10, 3, gain=100.0, key=key))(jr.split(jr.key(0), 2))
    assert_tree_close(jnp.max(jnp.abs(clip_weights(layers).weight)), jnp.array(0.1), rtol=1e-6)


def test_nothing_to_clip_is_refused():
    with pytest.raises(ValueError, match="no `ndekit.fields.Affine`"):
        clip_weights(eqx.nn.Linear(2, 3, key=jr.key(0)))


@pytest.mark.parametrize("solver", [diffrax.Euler(), nk.SOSRI(), diffrax.SPaRK()])
def test_a_solver_that_does_not_fit_both_equations_is_refused(solver):
    with pytest.raises(ValueError, match="`solver` must be one of diffrax.ReversibleHeun"):
        gan_of(solver=solver)


def test_what_is_within_its_bounds_stays():
    layer = Affine(4, 3, gain=1e-3, key=jr.key(0))
    assert_tree_close(clip_weights({"a": [layer]})["a"][0], layer, rtol=0)


def test_training_keeps_the_discriminator_within_its_bounds_and_the_rest_free():
    xs = series_with_holes()
    gan = nk.train.fit(
        gan_of(), lambda gan, xs, step, *, key: (gan.distance(TS, xs, key=key), {}),
        lambda step: xs, num_updates=2, key=jr.key(0), progress=False,
        optimizer=nk.train.projected(optax.sgd(30.0), nk.models.SDEGAN.clipped),
    ).model  # fmt: skip
    kept = gan.discriminator
    assert_tree_close(clip_weights(kept), kept, rtol=1e-6)
    # Some weights have come to their bound, and those of the generator have none.
    assert np.isclose(np.max(np.abs(kept.first.layers[0].weight)), 1 / 3)
    weight = gan.generator.first.layers[0].weight
    assert np.max(np.abs(weight)) > 1 / len(weight)


def test_the_optimizer_projects_where_it_would_have_gone():
    optimizer = nk.train.projected(optax.sgd(1.0), lambda x: jnp.clip(x, -1.0, 1.0))
    params, gradient = jnp.array([0.0, 0.9, -5.0]), jnp.array([0.5, -0.5, 0.0])
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    assert_tree_close(params + updates, jnp.array([-0.5, 1.0, -1.0]), rtol=1e-6)
