"""Laws of all Gaussian paths, and their published formulas."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.close import assert_tree_close
from support.gaussian_paths import ENDS, PATHS, all_paths, read

import ndekit as nk

CONSTANT_A = ("VE", "EDM")
WITHOUT_NUMBERS = ("Trigonometric", "Polynomial", "own")


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def random_times(num=1000):
    return np.sort(np.random.default_rng(0).uniform(size=num))


@jax.jit
def read_with_inverse(path, t):
    """All that a path says at a time, together, so that it is compiled once."""
    sigma = path.sigma(t)
    back, slope = jax.value_and_grad(path.t_of_sigma)(sigma)
    return dict(
        a=path.a(t), m=path.m(t), dadt=path.dadt(t), dmdt=path.dmdt(t), sigma=sigma,
        rho=path.rho(t), lam=path.lam(t), g2=path.squared_diffusion(t), back=back, slope=slope,
    )  # fmt: skip


def read_all(path, ts):
    path = jax.tree.map(jnp.asarray, path)
    read_many = jax.jit(jax.vmap(read_with_inverse, in_axes=(None, 0)))
    return jax.tree.map(np.asarray, read_many(path, jnp.asarray(ts)))


@all_paths
def test_a_path_goes_from_noise_to_data_and_its_slopes_and_inverse_are_its_own(name):
    ts = random_times()
    # Close enough for a difference, far enough for its rounding.
    h = 1e-6 * np.minimum(ts, 1 - ts)
    path = PATHS[name]()
    found = read_all(path, np.concatenate([ts, ts - h, ts + h, [0.0, 1.0]]))
    here, left, right, ends = (
        {k: v[part] for k, v in found.items()}
        for part in (slice(0, 1000), slice(1000, 2000), slice(2000, 3000), slice(3000, None))
    )
    assert np.all(np.diff(here["sigma"]) < 0)
    if name != "LearnedPath":  # its scale is free
        rises = np.diff(here["a"])
        assert np.all(rises == 0) if name in CONSTANT_A else np.all(rises > 0)
        assert np.all(np.diff(here["m"]) < 0)
    assert np.all(ends["a"] >= 0) and np.all(ends["m"] >= 0)

    slope = lambda quantity: (right[quantity] - left[quantity]) / ((ts + h) - (ts - h))
    rtol, atol = 1e-5, 1e-6
    if name == "KineticOptimal":  # a piecewise curve: the second derivative jumps
        rtol, atol = 1e-3, 1e-3
    assert_tree_close(here["dadt"], slope("a"), rtol, atol)
    assert_tree_close(here["dmdt"], slope("m"), rtol, atol)
    log_slope = -slope("lam")
    assert_tree_close(here["g2"], -2 * here["m"] ** 2 * log_slope, rtol, atol)

    assert_tree_close(here["back"], ts, 1e-9)
    assert_tree_close(here["slope"] * here["sigma"] * log_slope, np.ones(1000), 10 * rtol)
    assert_tree_close(ends["back"], np.array([0.0, 1.0]), 0.0, 1e-9)
    assert_tree_close(ends["sigma"], np.array(ENDS[name]), 1e-12, 1e-12)
    assert_tree_close(here["sigma"] * here["rho"], np.ones(1000), 1e-12)
    assert_tree_close(here["lam"], -np.log(here["sigma"]), 1e-9, 1e-9)


@pytest.mark.parametrize("name", [name for name in PATHS if name not in WITHOUT_NUMBERS])
def test_slopes_by_a_path_s_own_numbers_are_the_limit_at_both_ends(name):
    """Where m is like a root of 1 - t its slope by t is infinite, but not by what is learnt."""
    path = jax.tree.map(jnp.asarray, PATHS[name]())
    numbers, static = eqx.partition(path, eqx.is_inexact_array)

    @jax.jit
    def slopes(t):
        read = lambda numbers: jnp.stack(_amplitudes(eqx.combine(numbers, static), t))
        return jax.jacrev(read)(numbers)

    for end, inside in ((0.0, 1e-12), (1.0, 1 - 1e-12)):
        found, near = (jax.tree.leaves(slopes(t)) for t in (end, inside))
        for at_end, beside in zip(found, near, strict=True):
            assert_tree_close(at_end, beside, 1e-4, 1e-4 * (1 + np.abs(beside).max()))


def _amplitudes(path, t):
    return path.a(t), path.m(t)


@pytest.mark.parametrize("name", ["VP", "Shifted VP", "Cosine", "Shifted LogVariance"])
def test_what_is_finite_at_an_end_is_the_limit_there(name):
    found = read(name, np.array([0.0, 1e-10, 1 - 1e-10, 1.0]))
    for quantity in ("a", "m", "dadt", "dmdt", "g2"):
        at_0, near_0, near_1, at_1 = found[quantity]
        for end, near in ((at_0, near_0), (at_1, near_1)):
            if np.isfinite(end):
                assert_tree_close(end, near, 1e-4, 1e-4)
            else:
                assert abs(near) > 1e3 and np.sign(near) == np.sign(end)


@all_paths
def test_the_velocity_is_the_derivative_of_the_sample(name):
    path = PATHS[name]()
    x0, x1 = jnp.array([1.0, -0.5]), jnp.array([0.3, 2.0])
    t = jnp.asarray(0.37)
    moves = jax.jvp(lambda t: path.sample(t, x0, x1), (t,), (jnp.ones_like(t),))[1]
    assert_tree_close(path.velocity(t, x0, x1), moves, 1e-9)


def test_the_published_formulas():
    ts = random_times(50)
    s = 1 - ts
    published = {
        "VP": (np.exp(-(s**2) * 19.9 / 4 - s * 0.1 / 2), None),
        "SubVP": (np.exp(-(s**2) * 19.9 / 4 - s * 0.1 / 2), None),
        "VE": (np.ones(50), 0.01 * 5000**s),
        "EDM": (np.ones(50), (80 ** (1 / 7) + ts * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7),
        "Cosine": (
            np.cos((s + 0.008) / 1.008 * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2), None,
        ),
        "LogVariance": (np.sqrt((4**ts - 1) / 3), None),
        "Shifted CondOT": (1 - 3 * s / (1 + 2 * s), 3 * s / (1 + 2 * s)),
    }  # fmt: skip
    for name, (a, m) in published.items():
        if m is None:
            m = 1 - a**2 if name == "SubVP" else np.sqrt(1 - a**2)
        path = PATHS[name]()
        assert_tree_close(np.asarray(path.a(ts)), a, 1e-9)
        assert_tree_close(np.asarray(path.m(ts)), m, 1e-9)


def test_vp_is_the_limit_of_ddpm():
    num = 200_000
    betas = (0.1 + 19.9 * (np.arange(num) + 0.5) / num) / num
    signal = np.sqrt(np.cumprod(1 - betas))
    steps = np.array([1000, 80_000, 199_999])
    found = nk.paths.VP().a(1 - (steps + 1.0) / num)
    assert_tree_close(np.asarray(found), signal[steps], 1e-3)


def test_the_levels_of_noise_that_papers_stop_at():
    vp, sub = nk.paths.VP(), nk.paths.SubVP()
    assert_tree_close(float(vp.sigma(0.0)), 152.2, 1e-3)
    assert_tree_close(float(vp.a(0.0)), 6.6e-3, 1e-2)
    assert_tree_close(float(vp.sigma(1 - 1e-3)), 1.05e-2, 1e-2)
    assert_tree_close(float(sub.sigma(1 - 1e-3)), 1.1e-4, 1e-2)


@pytest.mark.parametrize("variance", [0.25, 1 - 1e-9, 1.0, 1 + 1e-7, 9.0])
def test_log_variance_is_linear_in_time(variance):
    path, ts = nk.paths.LogVariance(variance), random_times(20)
    assert_tree_close(np.asarray(path.a(ts) ** 2 * variance + path.m(ts) ** 2), variance**ts, 1e-12)
    slope = jax.grad(lambda v: nk.paths.LogVariance(v).a(0.3))(variance)
    near = [nk.paths.LogVariance(variance * (1 + h)).a(0.3) for h in (-1e-5, 1e-5)]
    assert_tree_close(float(slope), float(near[1] - near[0]) / (2e-5 * variance), 1e-4)


def test_a_shift_multiplies_the_noise_and_keeps_the_curve():
    vp = nk.paths.VP()
    path = nk.paths.Shifted(vp, 4.0)
    ts = random_times(50)
    apply = lambda f: np.asarray(jax.vmap(f)(jnp.asarray(ts)))
    assert_tree_close(apply(path.m) / apply(path.a), 4 * apply(vp.sigma), 1e-10)
    assert_tree_close(apply(path.a) ** 2 + apply(path.m) ** 2, np.ones(50), 1e-10)


def test_a_level_that_a_path_does_not_have_is_refused():
    path = nk.paths.VE(0.01, 50.0)
    with pytest.raises(ValueError, match=r"`sigma` must be between 0.01 and 50.* got 51"):
        path.t_of_sigma(51.0)
    with pytest.raises(ValueError, match="`sigma` must"):
        path.t_of_sigma(-1.0)
    assert jnp.isnan(jax.jit(path.t_of_sigma)(51.0))
    for ending in (PATHS["LearnedPath"](), PATHS["own"]()):
        assert jnp.isnan(jax.jit(type(ending).t_of_sigma)(ending, 51.0))


def test_levels_in_the_wrong_order_are_refused():
    for kind in (nk.paths.VE, nk.paths.EDM, nk.paths.LearnedPath):
        with pytest.raises(ValueError, match="`sigma_max` must be above 2"):
            kind(2.0, 1.0)
    assert jax.jit(lambda s: nk.paths.VE(s, 50.0).sigma(1.0))(0.5) == 0.5


class Diagonal(nk.paths.AbstractGaussianPath):
    """As a user may write one: a scale for each coordinate behind the axes of the times."""

    scales: jax.Array

    def a(self, t):
        return jnp.expand_dims(jnp.asarray(t), -1) * self.scales

    def m(self, t):
        return jnp.expand_dims(1 - jnp.asarray(t), -1) * self.scales

    def ratio(self, t):
        return jnp.asarray(t), 1 - jnp.asarray(t)

    def t_of_ratio(self, a, m):
        return a / (a + m)


@pytest.mark.parametrize("number", [2, 3])
def test_a_shifted_path_with_a_scale_for_each_coordinate_at_many_times(number):
    with jax.numpy_rank_promotion("allow"):
        path = nk.paths.Shifted(Diagonal(jnp.array([1.0, 2.0])), 3.0)
        ts = jnp.linspace(0.1, 0.9, number)
        for quantity in (path.a, path.m):
            assert_tree_close(quantity(ts), jnp.stack([quantity(t) for t in ts]), 1e-12)
