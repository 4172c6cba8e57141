"""What a state at some time knows of readings behind that time."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ndekit as nk

ROWS = 8
SCHEMES = {
    "linear": nk.controls.linear,
    "hermite": nk.controls.hermite,
    "rectilinear": nk.controls.rectilinear,
}


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def series(gaps):
    rng = np.random.default_rng(4)
    ts, xs = np.cumsum(rng.uniform(0.2, 1.0, ROWS)), rng.normal(size=(ROWS, 2))
    if gaps:
        xs[2:5, 0] = xs[5:7, 1] = xs[3, 1] = np.nan
    return nk.controls.channels(nk.data.Series(ts, xs), counts="each")


def states(path, ts):
    """The state of a controlled equation at times of the series; steps end on the corners."""
    weights = jnp.linspace(-1.0, 1.0, 3 * 5).reshape(3, 5)
    matrix = lambda t, y, args: jnp.tanh(y[:, None] + weights)
    places = jax.vmap(path.parameter)(ts)
    return nk.diffeqsolve(
        diffrax.ControlTerm(matrix, path).to_ode(), diffrax.Tsit5(), path.t0, path.t1, None,
        jnp.ones(3) + jnp.sum(path.evaluate(path.t0)), saveat=diffrax.SaveAt(ts=places),
        stepsize_controller=diffrax.StepTo(path.knots),
    ).ys  # fmt: skip


def what_is_known(scheme, ts, gaps):
    """`(saves, rows)`: how much each saved state changes with the values of each row."""
    given = series(gaps)

    def saved(values):
        xs = jnp.concatenate([given.xs[:, :3], jnp.where(given.mask[:, 3:], values, 0)], axis=1)
        path = SCHEMES[scheme](eqx.tree_at(lambda s: s.xs, given, xs))
        return states(path, ts)

    slopes = jax.jit(jax.jacrev(saved))(given.xs[:, 3:])
    return np.max(np.abs(slopes), axis=(1, 3)), np.asarray(given.ts)


def leaks(scheme, gaps, between):
    ts = np.asarray(series(gaps).ts)
    query = (ts[1:] + ts[:-1]) / 2 if between else ts
    slopes, ts = what_is_known(scheme, query, gaps)
    later = ts[None] > query[:, None]
    # A test of nothing but zeros would say nothing: each state knows of what has been read.
    assert np.all(np.max(np.where(later, 0, slopes), axis=1) > 1e-6)
    return np.max(np.where(later, slopes, 0))


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("between", [False, True])
def test_a_rectilinear_path_knows_nothing_of_later_readings(gaps, between):
    assert leaks("rectilinear", gaps, between) == 0.0


@pytest.mark.parametrize("scheme", ["linear", "hermite"])
def test_the_others_know_nothing_later_at_a_reading_if_none_is_missing(scheme):
    assert leaks(scheme, gaps=False, between=False) == 0.0


@pytest.mark.parametrize("scheme", ["linear", "hermite"])
def test_the_others_look_ahead_between_readings_and_across_gaps(scheme):
    assert leaks(scheme, gaps=False, between=True) > 1e-3
    assert leaks(scheme, gaps=True, between=False) > 1e-3


def test_a_start_that_is_the_first_reading_is_not_causal():
    given = nk.data.Series(np.arange(3.0), np.array([[np.nan], [1.0], [2.0]]))

    def first(xs, start):
        series = eqx.tree_at(lambda s: s.xs, given, xs)
        return nk.controls.rectilinear(series, time=None, start=start).evaluate(0.0)[0]

    by = lambda start: jax.grad(first)(jnp.asarray(given.xs), start)
    assert np.any(by(None) != 0) and np.all(by(0.0) == 0)


@pytest.mark.slow
def test_a_window_knows_nothing_of_readings_behind_its_end():
    given = series(gaps=True)
    windows = nk.controls.Windows.at(np.asarray(given.ts)[[0, 2, 3]] + np.array([0.0, 0.0, 0.1]))

    def levels(xs, control):
        signature = nk.controls.logsignature(
            eqx.tree_at(lambda s: s.xs, given, xs), 3, windows, control=control
        )
        return nk.controls.to_lyndon(signature)

    later = np.asarray(given.ts) > np.asarray(given.ts)[3] + 0.1
    slopes = lambda control: jax.jacrev(lambda xs: levels(xs, control))(given.xs)[..., later, 3:]
    assert np.all(slopes(nk.controls.rectilinear) == 0.0)
    assert np.any(slopes(nk.controls.linear) != 0.0)
