"""A series that is padded by repeating its last time is the series, whatever stands behind it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk

TS = np.array([0.0, 0.4, 0.7], np.float32)
XS = np.array([[0.1, -0.3], [0.2, 0.5], [0.3, 0.1]], np.float32)
SIZES = dict(latent=2, context=3, width=4, key=jr.key(0))


def padded(ts, xs, number, filler):
    """The series with so many more entries, NaN or something else in their place."""
    more = np.full((*xs.shape[:-2], number, xs.shape[-1]), filler, np.float32)
    return np.concatenate([ts, np.repeat(ts[-1:], number)]), np.concatenate([xs, more], axis=-2)


def bound(model, ts, xs):
    return model.loss(ts, xs, noise_std=0.3, key=jr.key(1))[0]


def score(model, ts, xs):
    return model.distance(ts, jnp.stack([xs, 2 * xs]), key=jr.key(1))


def saved(model, ts, xs):
    """What a solve saves at the times that are the series' own."""
    return jnp.sum(jnp.sin(model(xs[0], ts=ts, key=jr.key(1)).ys[: len(TS)]))


def field(seed, **options):
    return nk.fields.MLP(2, width=4, depth=1, near_zero=False, key=jr.key(seed), **options)


# name: (model, number of a series)
MODELS = {
    "latent": (nk.models.LatentSDE(2, dt0=0.1, **SIZES), bound),
    "latent, missing": (nk.models.LatentSDE(2, dt0=0.1, missing=True, **SIZES), bound),
    "matched": (nk.models.MatchedLatentSDE(2, dt0=0.1, draws=2, **SIZES), bound),
    "matched, missing": (nk.models.MatchedLatentSDE(2, dt0=0.1, missing=True, **SIZES), bound),
    "gan": (nk.models.SDEGAN(2, hidden=3, width=4, depth=1, dt0=0.1, key=jr.key(0)), score),
    "ode": (nk.models.NeuralODE(field(0)), saved),
    "sde": (nk.models.NeuralSDE(field(0), field(1, final="sigmoid"), dt0=0.1), saved),
}


@eqx.filter_jit
def value_and_gradient(model, number_of, ts, xs):
    return eqx.filter_value_and_grad(lambda model: number_of(model, ts, xs))(model)


QUICK = [name for name in MODELS if name != "latent"]


@pytest.mark.parametrize("name", slow_but(QUICK, MODELS))
def test_padding_changes_neither_values_nor_gradients(name):
    model, number_of = MODELS[name]
    alone = value_and_gradient(model, number_of, TS, XS)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(alone))
    for filler in (np.nan, np.inf, 7.0):
        found = value_and_gradient(model, number_of, *padded(TS, XS, 2, filler))
        assert_tree_close(found, alone, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "name", slow_but(["matched, missing"], ["latent, missing", "matched, missing"])
)
def test_series_of_several_lengths_go_in_lanes(name):
    model, number_of = MODELS[name]
    series = [(TS[:2], XS[:2]), (TS, XS), (TS + 0.2, -XS)]
    lanes = [padded(ts, xs, 4 - len(ts), np.nan) for ts, xs in series]
    ts, xs = (np.stack(part) for part in zip(*lanes, strict=True))
    in_lanes = lambda model, ts, xs: jnp.sum(
        jax.vmap(number_of, in_axes=(None, 0, 0))(model, ts, xs)
    )
    together = value_and_gradient(model, in_lanes, ts, xs)
    each = [value_and_gradient(model, number_of, *one) for one in series]
    summed = jax.tree.map(lambda *parts: sum(parts), *each)
    assert_tree_close(together, summed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["latent, missing", "matched, missing"])
def test_a_lane_of_one_observation_is_finite(name):
    found = value_and_gradient(*MODELS[name], *padded(TS[:1], XS[:1], 2, np.nan))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))


def test_missing_numbers_are_still_refused_before_the_padding():
    model, _ = MODELS["latent"]
    holes = XS.copy()
    holes[1, 0] = np.nan
    for given in (holes, padded(TS, holes, 1, 0.0)[1]):
        ts = padded(TS, XS, len(given) - len(TS), 0.0)[0]
        with pytest.raises(ValueError, match="missing numbers"):
            bound(model, jnp.asarray(ts), jnp.asarray(given))


@pytest.mark.parametrize("ts", [[0.0, 0.4, 0.4, 0.7], [0.3, 0.3, 0.3, 0.3], [0.0, 0.7, 0.4, 0.4]])
def test_times_that_repeat_elsewhere_are_refused(ts):
    model, _ = MODELS["latent"]
    with pytest.raises(ValueError, match="may then repeat the last time as padding"):
        bound(model, jnp.array(ts), jnp.asarray(padded(TS, XS, 1, 0.0)[1]))
