"""One field along several paths: the same samples, by another way."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from support.close import assert_tree_close
from support.gaussian_paths import PATHS, bent

import ndekit as nk
from ndekit.paths import Cosine, Polynomial, Shifted, convert, scale_time

MEANS = np.array([[1.5, 0.0], [-1.0, 1.0], [0.0, -1.2]])
SPREADS = np.array([0.3, 0.5, 0.2])
MEAN, SPREAD = 0.7, 0.4


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def best_guess(path, t, x):
    """E[x1 | x] for a mixture of three Gaussians."""
    a, m = path.a(t), path.m(t)
    means, spreads = jnp.asarray(MEANS), jnp.asarray(SPREADS)
    variances = (a * spreads) ** 2 + m**2
    away = x[None] - a * means
    logits = -0.5 * jnp.sum(away**2, axis=1) / variances - jnp.log(variances)
    guesses = means + (a * spreads**2 / variances)[:, None] * away
    return jax.nn.softmax(logits) @ guesses


def mixture_field(path):
    def field(t, x, args):
        return convert(path, t, x, best_guess(path, t, x), src="data", dst="velocity")

    return field


def end_of(field, path, start, sigma_max=20.0, sigma_min=0.01):
    t0, t1 = path.t_of_sigma(sigma_max), path.t_of_sigma(sigma_min)
    program = jax.jit(lambda t, x: field(t, x, None))
    sol = scipy.integrate.solve_ivp(
        lambda t, x: np.asarray(program(t, x)), (float(t0), float(t1)),
        np.asarray(path.a(t0) * start), method="DOP853", rtol=1e-10, atol=1e-12,
    )  # fmt: skip
    return sol.y[:, -1] / float(path.a(t1))


SOLVED = ("CondOT", "VP", "LearnedPath")


def test_every_path_between_the_same_levels_of_noise_ends_in_the_same_sample():
    start = jnp.array([12.0, -7.0])  # x / a at the noise end
    ends = {name: end_of(mixture_field(PATHS[name]()), PATHS[name](), start) for name in SOLVED}
    moved = scale_time(mixture_field(PATHS["CondOT"]()), PATHS["CondOT"](), PATHS["VP"]())
    ends["moved"] = end_of(moved, PATHS["VP"](), start)
    for name, end in ends.items():
        worst = np.max(np.abs(end - ends["CondOT"]))
        assert worst < 1e-8, f"{name}: {worst}"
    assert not np.allclose(ends["CondOT"], MEANS[0], atol=0.05)  # it went somewhere of its own


FIRST = ("VP", "EDM", "Shifted CondOT", "LearnedPath")


@pytest.mark.parametrize("dst", [
    pytest.param(name, marks=() if name in FIRST else pytest.mark.slow)
    for name in PATHS if name not in ("CondOT", "own")
])  # fmt: skip
def test_a_moved_field_is_the_field_of_the_other_path(dst):
    src, dst = nk.paths.CondOT(), PATHS[dst]()
    moved, direct = scale_time(mixture_field(src), src, dst), mixture_field(dst)

    @jax.jit
    @jax.vmap
    def both(t, x):
        return moved(t, x), direct(t, x, None)

    draw = np.random.default_rng(0)
    ts, xs = draw.uniform(0.02, 0.98, 50), draw.normal(size=(50, 2))
    got, expected = both(jnp.asarray(ts), jnp.asarray(xs))
    assert_tree_close(got, expected, 1e-6, 1e-8)


def test_a_field_is_moved_to_a_diagonal_path_exactly():
    src = nk.paths.CondOT()
    dst = bent(nk.paths.LearnedPath(0.01, 20.0, size=2))
    assert dst.a(0.3).shape == (2,) and dst.sigma(0.3).shape == ()
    moved, direct = scale_time(mixture_field(src), src, dst), mixture_field(src)
    x, t = jnp.array([0.4, -1.0]), jnp.asarray(0.3)

    # Along a solution of the source, scaled: the velocity is its derivative.
    def trajectory(t):
        src_t = src.t_of_sigma(dst.sigma(t))
        return src_t, dst.a(t) / src.a(src_t)

    @jax.jit
    def both(t):
        src_t, scale = trajectory(t)
        slopes = jax.jacfwd(trajectory)(t)
        expected = slopes[1] * x + scale * slopes[0] * direct(src_t, x, None)
        return moved(t, scale * x), expected

    got, expected = both(t)
    assert_tree_close(got, expected, 1e-8)


def test_gradients_reach_the_path_that_a_field_is_moved_to():
    src, dst = nk.paths.CondOT(), bent(nk.paths.LearnedPath(0.1, 10.0, num_knots=5))
    x = jnp.array([0.4, -1.0])

    def size(warp):
        path = eqx.tree_at(lambda p: p.warp, dst, warp)
        return jnp.sum(scale_time(mixture_field(src), src, path)(0.3, x) ** 2)

    slope = jax.jit(jax.grad(size))(dst.warp)
    step = 1e-6 * jnp.eye(len(dst.warp))
    around = jax.jit(jax.vmap(size))
    numeric = (around(dst.warp[None] + step) - around(dst.warp[None] - step)) / 2e-6
    assert_tree_close(slope, numeric, 1e-5, 1e-8)


@pytest.mark.parametrize("name", ["CondOT", "VP", "EDM"])
@pytest.mark.parametrize("solver", [diffrax.Euler(), diffrax.Tsit5()], ids=["Euler", "Tsit5"])
def test_of_gaussian_data_one_step_is_exact_in_the_normalised_variable(name, solver):
    path = PATHS[name]()
    deviation = lambda t: jnp.sqrt((path.a(t) * SPREAD) ** 2 + path.m(t) ** 2)
    t0, t1 = path.t_of_sigma(20.0), path.t_of_sigma(0.01)

    def field(t, z, args):
        # z = (x - a mean) / deviation, by the velocity of x that the best guess gives.
        s, slope = jax.jvp(deviation, (t,), (jnp.ones_like(t),))
        x = path.a(t) * MEAN + s * z
        guess = MEAN + path.a(t) * SPREAD**2 / s**2 * (x - path.a(t) * MEAN)
        v = convert(path, t, x, guess, src="data", dst="velocity")
        return (v - path.dadt(t) * MEAN - slope * z) / s

    z0 = jnp.array([0.8, -1.7])
    sol = nk.diffeqsolve(diffrax.ODETerm(field), solver, t0, t1, t1 - t0, z0)
    # What is left is rounding, multiplied by the velocity's demand near the data.
    assert_tree_close(sol.ys[0], z0, 1e-9)


@pytest.mark.parametrize("name", ["CondOT", "Trigonometric", "VP"])
def test_of_a_single_point_one_step_is_exact_in_noise_level(name):
    path, point = PATHS[name](), jnp.array([0.3, -1.0])
    t0, t1 = path.t_of_sigma(20.0), path.t_of_sigma(0.01)

    def field(sigma, y, args):  # y = x / a
        t = path.t_of_sigma(sigma)
        return convert(path, t, path.a(t) * y, point, src="data", dst="noise")

    y0 = jnp.array([14.0, 3.0])
    sol = nk.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Euler(), path.sigma(t0), path.sigma(t1),
        path.sigma(t1) - path.sigma(t0), y0,
    )  # fmt: skip
    assert_tree_close(sol.ys[0], point + (y0 - point) * 0.01 / 20.0, 1e-10)


@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("path", [Polynomial(2), Polynomial(3), Cosine()], ids=str)
def test_a_shifted_path_has_numbers_at_its_ends_where_the_path_has(path, shift):
    """Found: 0 over 0 where nothing moves, and the root of a time that rounding put beyond 1."""
    shifted = Shifted(path, shift)
    for t in (0.0, 1.0):
        for part in ("a", "m", "dadt", "dmdt"):
            own, found = (float(getattr(p, part)(t)) for p in (path, shifted))
            assert np.isfinite(found) or not np.isfinite(own), (t, part)
        assert abs(float(shifted.a(t)) - float(path.a(t))) < 1e-12
    assert abs(float(Shifted(path, 1.0).dadt(0.0)) - float(path.dadt(0.0))) < 1e-12
