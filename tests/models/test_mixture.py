"""Mixtures of Gaussians against SciPy, Gaussian formulas, quadrature, and solves to their law."""

import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats
from support.close import assert_tree_close
from support.gaussian_paths import ENDS, PATHS

import ndekit as nk
from ndekit.models import GaussianMixture

MEANS = np.array([[2.0, 0.0], [-1.0, 1.5], [0.0, -2.0]])
WEIGHTS = np.array([0.5, 0.3, 0.2])
STDS = {
    "one": np.array(0.6),
    "each mode": np.array([0.5, 0.7, 0.9]),
    "each coordinate": np.array([[0.5, 1.0], [0.7, 0.2], [0.9, 0.4]]),
}
POINTS = np.random.default_rng(0).normal(size=(5, 2)) * 1.5
# Where it has noise and data alone, in turn; elsewhere all is smooth.
TIMES = (0.0, 0.3, 0.9, 1.0)


def law_of(stds, dtype=jnp.float32):
    return GaussianMixture(jnp.asarray(MEANS, dtype), stds, WEIGHTS)


def densities(means, stds, x):
    """Of each point under each mode, by SciPy."""
    stds = np.broadcast_to(stds.reshape(*stds.shape, *[1] * (2 - stds.ndim)), means.shape)
    return np.stack(
        [
            np.prod(scipy.stats.norm.pdf(x, mean, std), axis=-1)
            for mean, std in zip(means, stds, strict=True)
        ],
        axis=-1,
    )


@pytest.mark.parametrize("stds", STDS.values(), ids=STDS)
def test_the_density_is_the_sum_of_its_modes(stds):
    found = law_of(stds).log_prob(jnp.asarray(POINTS, jnp.float32))
    assert_tree_close(found, np.log(densities(MEANS, stds, POINTS) @ WEIGHTS), rtol=1e-5)


def test_samples_have_the_moments_of_the_law():
    stds = STDS["each coordinate"]
    x = np.asarray(law_of(stds).sample((40_000,), key=jr.key(1)), np.float64)
    mean = WEIGHTS @ MEANS
    second = WEIGHTS @ (MEANS**2 + stds**2)
    assert x.shape == (40_000, 2)
    assert np.all(np.abs(x.mean(0) - mean) < 5 * np.sqrt(second / 40_000))
    np.testing.assert_allclose(np.mean(x**2, axis=0), second, rtol=0.05)
    assert law_of(stds).sample(key=jr.key(1)).shape == (2,)


@functools.partial(jax.jit, static_argnums=(0, 1))
def predictions(name, shape):
    path, law = PATHS[name](), law_of(STDS[shape])
    x = jnp.asarray(POINTS, jnp.float32)
    return [
        {what: law.predict(path, t, x, what) for what in ("data", "noise", "velocity", "score")}
        for t in map(jnp.float32, TIMES)
    ]


@pytest.mark.parametrize("name", ["CondOT", "Trigonometric", "VP", "EDM", "LearnedPath"])
def test_predictions_are_those_of_bayes_rule(name):
    """The means of conditional Gaussians, written with weights from SciPy's densities."""
    stds, path = STDS["each coordinate"], PATHS[name]()
    for t, found in zip(TIMES, predictions(name, "each coordinate"), strict=True):
        a, m = (np.float64(part(jnp.float32(t))) for part in (path.a, path.m))
        if ENDS[name] == (np.inf, 0.0) or t not in (0.0, 1.0):
            assert np.all(np.isfinite(jax.tree.leaves(found))), (name, t)
        total = a**2 * stds**2 + m**2
        joint = densities(a * MEANS, np.sqrt(total), POINTS) * WEIGHTS
        share = (joint / joint.sum(-1, keepdims=True))[..., None]
        off = (POINTS[:, None] - a * MEANS) / total
        expected = {
            "data": np.sum(share * (MEANS + a * stds**2 * off), axis=1),
            "noise": np.sum(share * m * off, axis=1),
            "score": -np.sum(share * off, axis=1),
        }
        for what, value in expected.items():
            assert_tree_close(found[what], value, rtol=2e-4, atol=2e-4)
        if t in (0.3, 0.9):
            slopes = [np.float64(part(jnp.float32(t))) for part in (path.dadt, path.dmdt)]
            velocity = slopes[0] * expected["data"] + slopes[1] * expected["noise"]
            assert_tree_close(found["velocity"], velocity, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["VP", "Cosine", "CondOT"])
def test_the_velocity_at_the_data_is_the_limit(x64, name):
    """Where the slope of the noise is infinite, too."""
    path, x = PATHS[name](), jnp.asarray(POINTS)
    law = law_of(STDS["each mode"], jnp.float64)
    at_end = law.predict(path, 1.0, x)
    assert np.all(np.isfinite(at_end))
    assert_tree_close(law.predict(path, 1.0 - 1e-7, x), at_end, rtol=1e-4, atol=1e-4)


def test_the_score_is_the_slope_of_the_density_along_the_path():
    path, law = nk.paths.VP(), law_of(STDS["each coordinate"])
    for t in (0.3, 0.9):
        slope = jax.vmap(jax.grad(law.along(path, t).log_prob))(jnp.asarray(POINTS, jnp.float32))
        found = law.predict(path, t, jnp.asarray(POINTS, jnp.float32), "score")
        assert_tree_close(found, slope, rtol=1e-3, atol=1e-3)


def test_a_diagonal_path_is_its_scalar_path_with_other_units():
    scalar = nk.paths.LearnedPath(0.01, 50.0)
    scale = np.array([[0.3, 4.0]], np.float32)
    diagonal = nk.paths.LearnedPath(0.01, 50.0, size=2)
    rows = jnp.broadcast_to(jnp.log(scale), diagonal.log_scale.shape)
    diagonal = jax.tree.map(lambda x: x if x.ndim == 1 else rows, diagonal)
    law, x = law_of(STDS["each coordinate"]), jnp.asarray(POINTS, jnp.float32)
    for t in (0.2, 0.8):
        moved = law.predict(diagonal, t, x * scale)
        assert_tree_close(moved, scale * law.predict(scalar, t, x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["CondOT", "VP"])
def test_the_flow_of_the_velocity_ends_in_the_law(name):
    """`CNF` integrates the divergence; the mixture's density is known."""
    law, path = law_of(STDS["each coordinate"]), PATHS[name]()
    flow = nk.models.CNF(law.velocity(path), nk.models.StandardNormal(2), t1=0.999)
    x = jnp.asarray(POINTS, jnp.float32)
    found, expected = flow.log_prob(x), law.along(path, 0.999).log_prob(x)
    # VP starts with 0.7 % of the data in its noise.
    assert_tree_close(found, expected, rtol=1e-3, atol=1e-3 if name == "CondOT" else 2e-2)


def test_numbers_for_a_shape_without_axes_are_taken():
    law = GaussianMixture(jnp.array([-1.0, 1.0]), 0.5)
    expected = np.log(scipy.stats.norm.pdf(0.3, [-1, 1], 0.5).mean())
    assert abs(law.log_prob(jnp.array(0.3)) - expected) < 1e-5
    assert law.velocity(nk.paths.CondOT())(0.5, jnp.array(0.3)).shape == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((MEANS.astype(int), 1.0), "`means` must be floating points"),
        ((jnp.ones((0, 2)), 1.0), "`means` must be floating points"),
        ((jnp.asarray(MEANS), 0.0), "`stds` must be finite and positive"),
        ((jnp.asarray(MEANS), np.ones(2)), r"`stds` must have the shape \(\) or \(3,\) or \(3, 2"),
        ((jnp.asarray(MEANS), 1.0, [1.0, -1.0, 1.0]), "`weights` must be finite and not negative"),
        ((jnp.asarray(MEANS), 1.0, [0.0, 0.0, 0.0]), "with a positive sum"),
        ((jnp.asarray(MEANS), 1.0, [1.0]), "`weights` must have the shape"),
    ],
)
def test_bad_numbers_are_refused_by_name(given, said):
    with pytest.raises(ValueError, match=said):
        GaussianMixture(*given)


@pytest.mark.usefixtures("types_unchecked")
def test_points_and_names_that_do_not_fit_are_refused():
    law, path = law_of(STDS["one"]), nk.paths.CondOT()
    with pytest.raises(ValueError, match="`what` must be one of 'data', 'noise'"):
        law.predict(path, 0.5, jnp.ones(2), "eps")
    with pytest.raises(ValueError, match="`x` must be points of shape"):
        law.log_prob(jnp.ones(3))
