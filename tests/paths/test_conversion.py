"""What a network predicts, turned into what it does not."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.close import ROUNDING, assert_tree_close
from support.gaussian_paths import PATHS, Table, all_paths, read, read_ends

import ndekit as nk
from ndekit.paths import convert

KINDS = ("data", "noise", "velocity", "score")
PAIRS = list(itertools.product(KINDS, KINDS))
NOISE, DATA = np.array([0.7, -1.3, 0.2]), np.array([1.1, 0.4, -2.0])


@jax.jit
def truth(here):
    """The point at a time, and all that is true of it."""
    path, t = Table(here), jnp.zeros((), here["a"].dtype)
    noise, data = jnp.asarray(NOISE, t.dtype), jnp.asarray(DATA, t.dtype)
    x, velocity = path.sample(t, noise, data), path.velocity(t, noise, data)
    return x, dict(data=data, noise=noise, velocity=velocity, score=-noise / path.m(t))


@jax.jit
def convert_all(here, x, values):
    """Every conversion, and what it multiplies `x` and the value by."""
    path, t = Table(here), jnp.zeros((), x.dtype)
    probes = jnp.stack([x, jnp.ones_like(x), jnp.zeros_like(x)])
    with_probes = lambda v: jnp.stack([v, jnp.zeros_like(v), jnp.ones_like(v)])
    return {
        (src, dst): convert(path, t, probes, with_probes(values[src]), src=src, dst=dst)
        for src, dst in PAIRS
    }


many = lambda f, *args: jax.tree.map(np.asarray, jax.vmap(f)(*args))


@all_paths
def test_conversions_are_true_and_as_exact_as_their_condition_in_float64_and_float32(x64, name):
    # Times that float32 has, so that both precisions speak of the same one.
    ts = np.random.default_rng(0).uniform(size=1000).astype(np.float32)
    wide, narrow = read(name, ts.astype(np.float64)), read(name, ts)
    x, values = many(truth, wide)
    found = many(convert_all, wide, x, values)
    # The exact answer to what float32 is asked, not to what was rounded before.
    rounded = jax.tree.map(lambda v: v.astype(np.float32), (x, values))
    got = many(convert_all, narrow, *rounded)
    exact = many(convert_all, wide, *jax.tree.map(lambda v: v.astype(np.float64), rounded))
    # Exponents of up to 10, and a sum of 256 shares.
    operations = dict(SubVP=2, LearnedPath=2, KineticOptimal=16).get(name, 1)
    for src, dst in PAIRS:
        result, by_x, by_value = np.moveaxis(found[src, dst], 1, 0)
        size = np.abs(by_x * x) + np.abs(by_value * values[src]) + np.abs(values[dst])
        error = np.abs(result - values[dst]) / (1e3 * np.finfo(np.float64).eps * size)
        assert np.all(error <= 1), f"{src} to {dst}: {np.max(error)} times in float64"
        result = got[src, dst][:, 0]
        assert result.dtype == np.float32
        allowed = operations * ROUNDING * np.finfo(np.float32).eps * size
        error = np.abs(result - exact[src, dst][:, 0]) / allowed
        assert np.all(error <= 1), f"{src} to {dst}: {np.max(error)} times in float32"


def expected_at_an_end(here, src, dst, noise, data):
    """By the words of the docstring: the value given, and what comes of it; `None` for infinite."""
    a, m, dadt, dmdt, g2 = (float(here[k]) for k in ("a", "m", "dadt", "dmdt", "g2"))
    none = 0 * noise
    x = a * data + m * noise
    velocity = _times(dadt, data) + _times(dmdt, noise)
    score = -noise / m if m > 0 else np.ones_like(noise)
    given = dict(data=data, noise=noise, velocity=velocity, score=score)[src]
    if m == 0 and src == "score":
        noise, velocity = none, dadt / a * x + 0.5 * g2 * score
    if a == 0 and (src in ("noise", "score") or (src == "velocity" and dadt == dmdt == 0)):
        data, velocity = none, _times(dmdt, noise)
    if m == 0 and src == "data":
        noise, velocity, score = none, _times(dadt, data), none
    if m == 0 and src == "noise":
        score = None if np.any(noise) else none
        velocity = None if np.isinf(dmdt) and np.any(noise) else velocity
    if m == 0 and src == "velocity":
        score = 2 * (velocity - dadt / a * x) / g2 if g2 > 0 else None
    if a == 0 and src == "data" and np.isinf(dadt) and np.any(data):
        velocity = None
    return x, given, dict(data=data, noise=noise, velocity=velocity, score=score)[dst]


def _times(slope, part):
    return np.where(part == 0, 0, slope) * part


@pytest.mark.parametrize("t", [0, 1])
@all_paths
def test_at_an_end_conversions_are_true_or_undetermined_and_never_nan(name, t):
    here = read_ends(name)[t]
    # A velocity is finite only if the part is nothing whose slope is infinite.
    for noise in (0 * NOISE, NOISE):
        for data in (0 * DATA, DATA):
            check_an_end(here, noise.astype(np.float32), data.astype(np.float32))


def check_an_end(here, noise, data):
    finite = np.all(np.isfinite(_times(here["dadt"], data) + _times(here["dmdt"], noise)))
    for src in KINDS if finite else ("data", "noise", "score"):
        for dst in KINDS:
            x, given, expected = expected_at_an_end(here, src, dst, noise, data)
            values = {kind: given for kind in KINDS}
            got = np.asarray(convert_all(here, x, values)[src, dst][0])
            assert not np.any(np.isnan(got)), (src, dst)
            if src == dst or (expected is None and not np.any(noise)):
                continue  # nothing over nothing, up to rounding
            if expected is None:
                assert np.all(~np.isfinite(got) | (given == 0)), (src, dst)
            else:
                size = np.abs(x) + np.abs(expected) + np.abs(data) + np.abs(noise)
                demand = max(1.0, 1 / (here["m"] or 1)) ** 2 * max(1.0, 1 / (here["a"] or 1))
                assert np.all(np.abs(got - expected) <= 1e-5 * demand * size), (src, dst)


@pytest.mark.parametrize("t", [0, 1])
@all_paths
def test_derivatives_by_the_point_and_the_value_are_finite_at_the_ends(name, t):
    here = read_ends(name)[t]
    for found, slopes in derivatives(here, DATA.astype(np.float32), NOISE.astype(np.float32)):
        if np.isfinite(found):
            assert all(np.all(np.isfinite(part)) for part in slopes)


@jax.jit
def derivatives(here, x, value):
    def total(x, value, src, dst):
        return jnp.sum(convert(Table(here), jnp.zeros(()), x, value, src=src, dst=dst))

    return [jax.value_and_grad(total, (0, 1))(x, value, src, dst) for src, dst in PAIRS]


@pytest.mark.parametrize("name", ["CondOT", "VP", "LogVariance", "EDM", "LearnedPath"])
def test_the_score_and_the_velocity_of_gaussian_data_follow_from_the_best_guess(x64, name):
    path, mean, spread = PATHS[name](), 0.7, 0.4
    t, x = jnp.asarray(0.6), jnp.array([0.3, -2.0])
    a, m = path.a(t), path.m(t)
    variance = (a * spread) ** 2 + m**2
    guess = mean + a * spread**2 / variance * (x - a * mean)
    score = -(x - a * mean) / variance
    assert_tree_close(convert(path, t, x, guess, src="data", dst="score"), score, 1e-10)
    # Of the flow that keeps (x - a mean) / deviation.
    deviation = lambda t: jnp.sqrt((path.a(t) * spread) ** 2 + path.m(t) ** 2)
    growth = jax.grad(lambda t: jnp.log(deviation(t)))(t)
    velocity = path.dadt(t) * mean + growth * (x - a * mean)
    assert_tree_close(convert(path, t, x, guess, src="data", dst="velocity"), velocity, 1e-10)


def test_a_conversion_is_differentiable_by_time_and_by_the_path(x64):
    def found(t, beta, end):
        path = nk.paths.VP(beta, end)
        return convert(path, t, jnp.asarray(DATA), jnp.asarray(NOISE), src="noise", dst="velocity")

    at = (0.4, 0.1, 20.0)
    for i, slope in enumerate(jax.jacfwd(found, (0, 1, 2))(*map(jnp.asarray, at))):
        step = lambda h, i=i: found(*(v + h * (i == j) for j, v in enumerate(at)))
        assert_tree_close(slope, (step(1e-6) - step(-1e-6)) / 2e-6, 1e-6)


def test_a_prediction_that_is_none_is_refused():
    path, x = nk.paths.CondOT(), jnp.ones(2)
    with pytest.raises(ValueError, match="`src` must be one of 'data', 'noise', .* got 'eps'"):
        convert(path, 0.5, x, x, src="eps", dst="data")
    with pytest.raises(ValueError, match="`dst` must be one of"):
        convert(path, 0.5, x, x, src="data", dst="x1")
    with pytest.raises(ValueError, match=r"`value` must have the shape of `x`, \(2,\), got \(3,\)"):
        convert(path, 0.5, x, jnp.ones(3), src="data", dst="noise")
    with pytest.raises(ValueError, match="`t` must be at least 0 and at most 1, got 500"):
        convert(path, 500, x, x, src="data", dst="noise")


test_a_prediction_that_is_none_is_refused = pytest.mark.usefixtures("types_unchecked")(
    test_a_prediction_that_is_none_is_refused
)
