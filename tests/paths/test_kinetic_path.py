"""The path of least kinetic energy, against closed forms."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close
from support.gaussian_paths import PATHS, read, two_points_mmse

from ndekit.paths import KineticOptimal

TS = np.linspace(0, 1, 21)


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def energy(name_or_path, mmse):
    """The kinetic energy by its integral over time, from the expected square of the velocity."""
    ts = (np.arange(2000) + 0.5) / 2000
    if isinstance(name_or_path, str):
        here = read(name_or_path, ts)
    else:
        path = name_or_path
        here = dict(a=path.a(ts), m=path.m(ts), dadt=path.dadt(ts), dmdt=path.dmdt(ts))
    a, m, dadt, dmdt = (jnp.asarray(here[k]) for k in ("a", "m", "dadt", "dmdt"))
    # E |v|^2 = E |x_1' a' + x_0 m'|^2 less what averaging given x_t takes away.
    lost = (dadt - a * dmdt / m) ** 2 * jax.vmap(mmse)(a / m)
    return float(jnp.mean(dadt**2 + dmdt**2 - lost))


def test_for_gaussian_data_it_is_the_trigonometric_path_without_energy():
    path = KineticOptimal.of(lambda s: 1 / (1 + s**2))
    assert path.energy < 1e-10
    assert_tree_close(np.asarray(path.a(TS)), np.sin(np.pi * TS / 2), 1e-7, 1e-7)
    assert_tree_close(np.asarray(path.m(TS)), np.cos(np.pi * TS / 2), 1e-7, 1e-7)


def test_for_a_single_point_straight_lines_are_best():
    path = KineticOptimal.fit(jnp.array([[1.0, -1.0]]), key=jr.key(0), num_samples=64)
    assert_tree_close(float(path.energy), 2.0, 1e-12)
    assert_tree_close(np.asarray(path.a(TS)), TS, 1e-9, 1e-12)
    assert_tree_close(np.asarray(path.m(TS)), 1 - TS, 1e-9, 1e-12)


def test_for_two_points_the_energy_is_the_length_of_a_chord_and_no_path_has_less():
    path = KineticOptimal.of(two_points_mmse)
    # The running angle by a finer sum of another kind.
    nodes, weights = np.polynomial.legendre.leggauss(400)
    angles = 0.25 * np.pi * (nodes + 1)
    mmse = np.asarray(jax.vmap(two_points_mmse)(jnp.tan(jnp.asarray(angles))))
    length = 0.25 * np.pi * np.sum(weights * np.sqrt(np.maximum(1 - mmse / np.cos(angles) ** 2, 0)))
    least = 2 - 2 * np.cos(length)
    assert_tree_close(float(path.energy), least, 1e-4)
    assert_tree_close(energy(path, two_points_mmse), least, 5e-3)
    for name in ("CondOT", "Trigonometric", "Polynomial"):
        assert energy(name, two_points_mmse) > 1.02 * least, name


def test_a_path_fitted_to_points_is_that_of_their_mmse():
    points = jnp.array([[1.0], [-1.0]])
    fitted = KineticOptimal.fit(points, key=jr.key(0), num_samples=20_000)
    exact = PATHS["KineticOptimal"]()
    assert_tree_close(float(fitted.energy), float(exact.energy), 0.05)
    assert energy(fitted, two_points_mmse) < 1.02 * float(exact.energy)


def test_points_that_are_not_normalised_are_refused():
    with pytest.raises(ValueError, match="`x1` must have a mean square of 1 .* got 4"):
        KineticOptimal.fit(2 * jnp.array([[1.0], [-1.0]]), key=jr.key(0))
    with pytest.raises(ValueError, match=r"`x1` must be floating points of shape \(n, ...\)"):
        KineticOptimal.fit(jnp.ones(3), key=jr.key(0))
    with pytest.raises(ValueError, match="`num_samples` must be at least 1"):
        KineticOptimal.fit(jnp.ones((2, 1)), key=jr.key(0), num_samples=0)


@pytest.mark.slow
def test_on_a_checkerboard_the_energies_are_those_measured_for_it():
    draw = np.random.default_rng(0)
    x = draw.uniform(-2, 2, 3000)
    y = draw.uniform(size=3000) - 2 * draw.integers(0, 2, 3000) + np.floor(x) % 2
    points = np.stack([x, y], axis=1)
    points = (points - points.mean(0)) / points.std()
    points = jnp.asarray(points / np.sqrt(np.mean(points**2)))
    from ndekit.paths.posterior import posterior_variance

    mmse = jax.jit(posterior_variance(points, key=jr.key(0), num=2000))
    table = jnp.linspace(-4.0, 6.0, 400)
    values = jax.lax.map(lambda log: mmse(jnp.exp(log)), table)
    smooth = lambda s: jnp.interp(jnp.log(s), table, values)
    least = float(KineticOptimal.of(smooth).energy)
    # Measured before, by another program and other points.
    assert_tree_close(least, 0.133, 0.1)
    for name, before in {"CondOT": 0.554, "Trigonometric": 0.196, "VP": 0.423}.items():
        assert_tree_close(energy(name, smooth), before, 0.1)
