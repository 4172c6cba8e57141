"""Simulated series against closed forms, other solvers and the dense normal distribution."""

import equinox as eqx
import jax.random as jr
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.stats
from support.close import assert_tree_close, close_to_solver

from ndekit.data import (
    black_scholes,
    brusselator,
    damped_pendulum,
    double_ou,
    double_ou_filter,
    drop_rows,
    ornstein_uhlenbeck,
    pad,
    spirals,
)

MAKERS = (black_scholes, ornstein_uhlenbeck, double_ou, brusselator, spirals, damped_pendulum)
EXPECTED = (black_scholes, ornstein_uhlenbeck)


def is_zero_on_average(samples, deviations=4.5):
    """Whether the mean of independent samples is as near to zero as it should be."""
    samples = np.asarray(samples, np.float64)
    return abs(samples.mean()) < deviations * samples.std() / np.sqrt(len(samples)) + 1e-7


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_same_key_gives_the_same_series(make):
    first, again, other = make(30, key=jr.key(1)), make(30, key=jr.key(1)), make(30, key=jr.key(2))
    assert eqx.tree_equal(first, again)
    assert not np.array_equal(first.paths, other.paths)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_readings_are_points_of_the_paths(make):
    made = make(30, key=jr.key(0))
    assert made.series.xs.dtype == made.paths.dtype == made.ts.dtype == np.float32
    for series, path in zip(made.series, made.paths, strict=True):
        series = series.trim()
        rows = np.searchsorted(made.ts, series.ts)
        assert np.array_equal(made.ts[rows], series.ts)
        assert np.array_equal(series.xs, np.where(series.mask, path[rows], 0))


def test_black_scholes_has_the_moments_of_a_log_normal():
    made = black_scholes(20_000, key=jr.key(0), drift=0.7, volatility=0.4, start=2.0, t1=2.0)
    for row in (1, 30, 100):
        t = made.ts[row]
        logs = np.log(made.paths[:, row, 0].astype(np.float64) / 2.0)
        centred = logs - (0.7 - 0.08) * t
        assert is_zero_on_average(centred)
        assert is_zero_on_average(centred**2 - 0.16 * t)
    assert is_zero_on_average(made.paths[:, -1, 0] - 2.0 * np.exp(1.4))


def test_ornstein_uhlenbeck_has_the_moments_of_the_equation():
    made = ornstein_uhlenbeck(
        20_000, key=jr.key(0), mean=-1.0, speed=0.8, volatility=0.5, start=2.0, t1=3.0
    )
    x = made.paths[..., 0].astype(np.float64)
    for row in (1, 30, 100):
        t = made.ts[row]
        centred = x[:, row] - (-1.0 + 3.0 * np.exp(-0.8 * t))
        variance = 0.25 / 1.6 * (1 - np.exp(-1.6 * t))
        assert is_zero_on_average(centred)
        assert is_zero_on_average(centred**2 - variance)
    early = x[:, 40] - x[:, 40].mean()
    late = x[:, 90] - x[:, 90].mean()
    between = 0.25 / 1.6 * (np.exp(-0.8 * 1.5) - np.exp(-0.8 * 3.9))
    assert is_zero_on_average(early * late - between)


def drift_of(make):
    return {
        black_scholes: (lambda x: 2.0 * x, lambda x: 0.3 * x),
        ornstein_uhlenbeck: (lambda x: 2.0 * (4.0 - x), lambda x: 0.3),
    }[make]


@pytest.mark.parametrize("make", EXPECTED, ids=lambda make: make.__name__)
def test_what_is_expected_is_the_mean_of_what_may_happen(make):
    """From a reading on, by small steps of the equation itself."""
    made = make(50, key=jr.key(3))
    series, path = made.series[0].trim(), made.expectation[0, :, 0]
    last = series.ts[-2]
    rows = np.flatnonzero((made.ts >= last) & (made.ts < series.ts[-1]))
    drift, diffusion = drift_of(make)
    rng = np.random.default_rng(0)
    normals = rng.standard_normal((20_000, 100 * (len(rows) - 1)))
    x, means = np.full(40_000, float(series.xs[-2, 0])), [float(series.xs[-2, 0])]
    for step, kick in enumerate(np.concatenate([normals, -normals]).T):  # pairs: less noise
        x = x + drift(x) * 1e-4 + diffusion(x) * 1e-2 * kick
        if (step + 1) % 100 == 0:
            means.append(x.mean())
    assert len(rows) > 3
    assert_tree_close(path[rows], np.array(means, np.float32), rtol=2e-3)


@pytest.mark.parametrize("make", EXPECTED, ids=lambda make: make.__name__)
def test_no_guess_from_the_past_explains_what_is_left(make):
    """An expectation given the past leaves an error that nothing of the past correlates with."""
    made = make(20_000, key=jr.key(4))
    for row in (20, 60, 100):
        error = (made.paths - made.expectation)[:, row, 0]
        assert is_zero_on_average(error)
        assert is_zero_on_average(error * made.expectation[:, row, 0])
        assert is_zero_on_average(error * made.paths[:, 0, 0])


def test_the_optimal_loss_is_the_variance_that_no_model_can_know():
    for make in EXPECTED:
        made = make(20_000, key=jr.key(5))
        ts, xs = made.series.ts.astype(np.float64), made.series.xs[..., 0].astype(np.float64)
        gap, x = np.diff(ts, axis=-1), xs[:, :-1]
        variance = (
            x**2 * np.exp(4 * gap) * np.expm1(0.09 * gap)
            if make is black_scholes
            else 0.09 / 4 * -np.expm1(-4 * gap)
        )
        read = made.series.mask[:, 1:, 0]
        expected = np.sum(variance, axis=-1, where=read) / np.maximum(read.sum(-1), 1)
        assert abs(made.optimal_loss / expected.mean() - 1) < 0.03
        # The published losses of the best predictor, on 4000 paths of the authors' own.
        published = {black_scholes: 0.1408, ornstein_uhlenbeck: 0.00665}[make]
        assert abs(made.optimal_loss / published - 1) < 0.08


def test_double_ou_is_read_as_published():
    made = double_ou(key=jr.key(0))
    rows, both = made.series.length, made.series.mask.all(axis=-1).sum()
    first, second = made.series.mask.sum(axis=(0, 1))
    assert rows.min() == 16 and rows.max() == 24 and abs(rows.mean() - 20) < 0.1
    assert abs(both / rows.sum() - 0.2) < 0.01
    assert abs(first / rows.sum() - 0.6) < 0.01 and abs(second / rows.sum() - 0.6) < 0.01
    assert made.series.ts.min() > 0
    mean = made.others["mean"]
    assert np.all(np.abs(mean - [1, -1]) <= 0.5) and np.all(mean.std(axis=0) > 0.28)
    assert np.all(double_ou(5, key=jr.key(0), spread=0.0).others["mean"] == [1, -1])


def dense(series, mean, speed, volatility, correlation):
    """Times, channels, readings, and the mean and covariance of them all together."""
    series = series.trim()
    rows, channels = np.nonzero(series.mask)
    t, x = series.ts[rows].astype(np.float64), series.xs[rows, channels].astype(np.float64)
    expected = mean[channels] * -np.expm1(-speed * t)
    apart, together = np.abs(t[:, None] - t), t[:, None] + t
    of_time = np.exp(-speed * apart) - np.exp(-speed * together)
    of_channel = np.where(channels[:, None] == channels, 1.0, correlation)
    return x, expected, volatility**2 / (2 * speed) * of_time * of_channel, rows, channels


PROCESS = dict(speed=0.7, volatility=0.3, correlation=0.6)


def test_the_filter_is_the_dense_normal_distribution():
    made = double_ou(20, key=jr.key(6), num_readings=8, **PROCESS)
    exact = double_ou_filter(made.series, made.others["mean"], **PROCESS)
    for i, series in enumerate(made.series):
        mean = made.others["mean"][i].astype(np.float64)
        x, expected, covariance, rows, channels = dense(series, mean, **PROCESS)
        density = scipy.stats.multivariate_normal.logpdf(x, expected, covariance)
        assert abs(exact.nll[i] + density) < 1e-8 * max(1.0, abs(density))
        # And its predictions: each reading given those of the rows before.
        marginal = 0.0
        for k in range(len(x)):
            past = rows < rows[k]
            weights = np.linalg.solve(covariance[np.ix_(past, past)], covariance[past, k])
            told = expected[k] + weights @ (x[past] - expected[past])
            variance = covariance[k, k] - weights @ covariance[past, k]
            found = exact.mean[i, rows[k], channels[k]], exact.variance[i, rows[k], channels[k]]
            assert_tree_close(found, (told, variance), rtol=1e-7, atol=1e-9)
            marginal -= scipy.stats.norm.logpdf(x[k], told, np.sqrt(variance))
        assert abs(exact.marginal_nll[i] - marginal) < 1e-6


def test_no_other_prediction_beats_the_filter():
    made = double_ou(2000, key=jr.key(7), spread=0.0)
    exact = double_ou_filter(made.series, [1.0, -1.0])
    errors = ((made.series.xs - exact.mean) / np.sqrt(exact.variance))[made.series.mask]
    assert is_zero_on_average(errors) and is_zero_on_average(errors**2 - 1)
    for wrong in (dict(mean=[1.0, -0.9]), dict(speed=1.1), dict(volatility=0.11),
                  dict(correlation=0.97)):  # fmt: skip
        other = double_ou_filter(made.series, **dict(mean=[1.0, -1.0]) | wrong)
        assert other.nll.mean() > exact.nll.mean()
        assert other.marginal_nll.mean() > exact.marginal_nll.mean()
    # Two readings of a row tell of each other, which the sum of the two does not know.
    assert exact.marginal_nll.mean() > exact.nll.mean()


def test_what_stands_in_the_padding_of_filtered_series_does_not_matter():
    made = double_ou(50, key=jr.key(8), num_readings=5)
    exact = double_ou_filter(made.series, made.others["mean"])
    for i, series in enumerate(made.series):
        alone = double_ou_filter(pad([series]), made.others["mean"][i])
        assert alone.nll[0] == exact.nll[i] and alone.marginal_nll[0] == exact.marginal_nll[i]


def brusselator_rate(t, z):
    return [1 - 2.4 * z[0] + 0.3 * z[0] ** 2 * z[1], 1.4 * z[0] - 0.3 * z[0] ** 2 * z[1]]


def test_a_brusselator_without_noise_is_the_ordinary_equation():
    made = brusselator(3, key=jr.key(0), volatility=0.0)
    for path in made.paths.astype(np.float64):
        exact = scipy.integrate.solve_ivp(
            brusselator_rate, (0, 50), path[0], t_eval=made.ts, rtol=1e-9, atol=1e-9
        )
        assert_tree_close(path, exact.y.T, rtol=0, atol=3e-3)


def test_the_noise_of_a_brusselator_is_as_said():
    noisy = brusselator(4000, key=jr.key(1), volatility=0.5, t1=0.01, num_steps=30)
    still = brusselator(4000, key=jr.key(1), volatility=1e-6, t1=0.01, num_steps=30)
    kicks = (noisy.paths - still.paths)[:, -1].astype(np.float64) / 0.05
    for covariance, pair in ((1.0, (0, 0)), (1.0, (1, 1)), (-0.99, (0, 1))):
        product = kicks[:, pair[0]] * kicks[:, pair[1]]
        assert abs(product.mean() - covariance) < 0.1


def test_a_brusselator_is_read_as_published():
    made = brusselator(key=jr.key(0))
    rows = made.series.length
    assert rows.min() == 20 and rows.max() == 30
    assert abs(made.series.mask.all(axis=-1).sum() / rows.sum() - 0.8) < 0.02
    start = made.paths[:, 0] - np.array([1.0, 1.4 / 0.3])
    assert is_zero_on_average(start) and is_zero_on_average((start**2).ravel() - 0.09)


def test_spirals_solve_a_linear_equation():
    made = spirals(6, key=jr.key(0), decay=0.2, frequency=1.5, t1=4.0, num_times=9)
    for path, label in zip(made.paths.astype(np.float64), made.others["label"], strict=True):
        turn = 1.5 if label else -1.5
        step = scipy.linalg.expm(0.5 * np.array([[-0.2, -turn], [turn, -0.2]]))
        assert_tree_close(path[1:], path[:-1] @ step.T, rtol=0, atol=1e-6)
    assert made.others["label"].sum() == 3
    angle = made.others["angle"]
    assert_tree_close(made.paths[:, 0], np.stack([np.cos(angle), np.sin(angle)], -1), 1e-5, 1e-6)


def test_a_pendulum_solves_its_equation():
    made = damped_pendulum(3, key=jr.key(0), frequency=1.7, damping=0.3)
    rate = lambda t, z: [z[1], -(1.7**2) * np.sin(z[0]) - 0.3 * z[1]]
    for path in made.paths.astype(np.float64):
        exact = scipy.integrate.solve_ivp(
            rate, (0, 10), path[0], t_eval=np.linspace(0, 10, 100), rtol=1e-10, atol=1e-10
        )
        assert close_to_solver(path.astype(np.float32), exact.y.T.astype(np.float32), 1e-8)
        assert path[0, 1] == 0


def test_a_pendulum_swings_in_harmony_where_it_swings_little():
    made = damped_pendulum(4, key=jr.key(0), largest_angle=1e-3, frequency=2.0, damping=0.4)
    t, slow = made.ts.astype(np.float64), np.sqrt(4.0 - 0.04)
    shape = np.exp(-0.2 * t) * (np.cos(slow * t) + 0.2 / slow * np.sin(slow * t))
    assert_tree_close(made.paths[..., 0], made.paths[:, :1, 0] * shape, rtol=0, atol=1e-8)


@pytest.mark.parametrize("make", [spirals, damped_pendulum], ids=lambda make: make.__name__)
def test_a_share_is_observed_and_noise_is_added(make):
    made = make(400, key=jr.key(0), observed=0.3, noise_std=0.1)
    assert np.all(made.series.length == 30) and made.series.mask.all()
    rows = np.searchsorted(made.ts, made.series.ts)
    noise = made.series.xs - np.take_along_axis(made.paths, rows[..., None], axis=1)
    assert is_zero_on_average(noise.ravel()) and is_zero_on_average(noise.ravel() ** 2 - 0.01)
    assert len(np.unique(rows)) == 100
    assert eqx.tree_equal(make(4, key=jr.key(0)).series.length, np.full(4, 100, np.int32))


BAD = {
    "num": (lambda key: black_scholes(0, key=key), "`num` must be at least 1"),
    "volatility": (lambda key: black_scholes(3, key=key, volatility=-1.0), "`volatility` must be"),
    "start": (lambda key: black_scholes(3, key=key, start=0.0), "`start` must be positive"),
    "drift": (lambda key: black_scholes(3, key=key, drift=np.nan), "`drift` must be a finite"),
    "observed": (lambda key: ornstein_uhlenbeck(3, key=key, observed=0.0), "`observed` must be"),
    "speed": (lambda key: ornstein_uhlenbeck(3, key=key, speed=0.0), "`speed` must be positive"),
    "t1": (lambda key: ornstein_uhlenbeck(3, key=key, t1=-1.0), "`t1` must be positive"),
    "correlation": (lambda key: double_ou(3, key=key, correlation=1.0), "between -1 and 1"),
    "spread": (lambda key: double_ou(3, key=key, spread=-0.1), "`spread` must be at least 0"),
    "readings": (lambda key: double_ou(3, key=key, num_steps=10), "at most 8.33.* got 20"),
    "b": (lambda key: brusselator(3, key=key, b=0.0), "`b` must be positive"),
    "points": (lambda key: brusselator(3, key=key, num_steps=29), "at most 24.1.* got 25"),
    "times": (lambda key: spirals(3, key=key, num_times=1), "`num_times` must be at least 2"),
    "noise": (lambda key: damped_pendulum(3, key=key, noise_std=-1.0), "`noise_std` must be"),
    "channels": (
        lambda key: double_ou_filter(black_scholes(3, key=key).series, [1.0, -1.0]),
        "two channels, read after time 0",
    ),
    "time 0": (
        lambda key: double_ou_filter(spirals(3, key=key).series, [1.0, -1.0]), "after time 0"
    ),
    "single": (
        lambda key: double_ou_filter(double_ou(3, key=key).series[0], [1.0, -1.0]), "leading axis"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name, types_unchecked):
    act, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        act(jr.key(0))


def test_thinned_paths_stay_paths():
    made = spirals(5, key=jr.key(0))
    thinned = drop_rows(made.series, 0.5, key=jr.key(1))
    for series, path in zip(thinned, made.paths, strict=True):
        assert np.array_equal(series.xs, path[np.searchsorted(made.ts, series.ts)])
