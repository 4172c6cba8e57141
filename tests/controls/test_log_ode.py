"""What equations make of log-signatures: where they are exact, and how fast they become so."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.linalg import expm
from support.close import assert_tree_close

import ndekit as nk
from ndekit.controls import Windows, logsignature


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def polygon(seed=0, rows=13, channels=2):
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.uniform(0.1, 1.0, rows)), rng.normal(size=(rows, channels))


def bracket(v, w):
    """[v, w] = Dw v - Dv w, of two fields."""
    return lambda y: jax.jvp(w, (y,), (v(y),))[1] - jax.jvp(v, (y,), (w(y),))[1]


def combined(fields, levels):
    """The field that the levels of one window make of `fields`."""
    one, *higher = levels
    d = range(len(fields))
    terms = [(one[i], fields[i]) for i in d]
    if higher:
        two = higher[0]
        terms += [(two[i, j] / 2, bracket(fields[i], fields[j])) for i in d for j in d if i != j]
    if len(higher) > 1:
        three = higher[1]
        nested = lambda i, j, k: bracket(bracket(fields[i], fields[j]), fields[k])
        terms += [(three[i, j, k] / 3, nested(i, j, k)) for i in d for j in d for k in d if i != j]
    return lambda y: sum(weight * field(y) for weight, field in terms)


def flow(field, y, steps=1):
    """Along the field for one unit of time."""
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: field(y)), diffrax.Tsit5(), 0.0, 1.0, 1.0 / steps, y
    ).ys[0]


@functools.partial(jax.jit, static_argnums=(0, 3))
def window_by_window(fields, signature, y, steps=1):
    step = lambda y, levels: (flow(combined(fields, levels), y, steps), None)
    return jax.lax.scan(step, y, signature.levels)[0]


def heisenberg():
    zero, one = lambda y: jnp.zeros(()), lambda y: jnp.ones(())
    return (
        lambda y: jnp.stack([one(y), zero(y), zero(y)]),
        lambda y: jnp.stack([zero(y), one(y), y[0]]),
    )


HEISENBERG = heisenberg()
MANY = {
    "whole": Windows.of(99.0), "every": Windows.every(5), "of": Windows.of(0.77),
    "at": Windows.at([-1.0, 1.1, 2.3, 20.0]),
}  # fmt: skip


@pytest.mark.parametrize("name", MANY)
def test_depth_two_is_exact_on_the_heisenberg_group(name):
    ts, xs = polygon()
    series, y0 = nk.data.Series(ts, xs), jnp.array([0.3, -0.2, 0.1])
    dx = np.diff(xs, axis=0)
    before = 0.3 + np.concatenate([[0.0], np.cumsum(dx[:, 0])[:-1]])
    exact = y0 + np.array([*dx.sum(axis=0), np.sum((before + dx[:, 0] / 2) * dx[:, 1])])
    end = lambda depth: window_by_window(HEISENBERG, logsignature(series, depth, MANY[name]), y0)
    assert_tree_close(end(2), exact, 1e-12, 1e-12)
    assert_tree_close(end(3), exact, 1e-12, 1e-12)
    # Without the area all is lost but the increment.
    assert_tree_close(end(1)[:2], exact[:2], 1e-12)
    assert abs(end(1)[2] - exact[2]) > 0.05


def generator(matrices, levels):
    """The linear field of one window: [V_i, V_j] y = (A_j A_i - A_i A_j) y."""
    bracket = lambda a, b: b @ a - a @ b
    one, *higher = levels
    d = range(len(matrices))
    total = sum(one[i] * matrices[i] for i in d)
    if higher:
        total += sum(higher[0][i, j] / 2 * bracket(matrices[i], matrices[j]) for i in d for j in d)
    if len(higher) > 1:
        nested = lambda i, j, k: bracket(bracket(matrices[i], matrices[j]), matrices[k])
        total += sum(higher[1][i, j, k] / 3 * nested(i, j, k) for i in d for j in d for k in d)
    return total


@functools.partial(jax.jit, static_argnums=3)
def by_exponentials(matrices, series, y0, depth, windows=None):
    found = logsignature(series, depth, MANY["every"] if windows is None else windows)
    step = lambda y, levels: (expm(generator(matrices, levels)) @ y, None)
    return jax.lax.scan(step, y0, found.levels)[0]


def exact_end(matrices, xs, y):
    """One exponential for each straight piece."""
    for dx in np.diff(xs, axis=0):
        y = expm(jnp.einsum("i,ijk->jk", dx, matrices)) @ y
    return y


@pytest.mark.parametrize("size", [2, 3, 4])
def test_depth_is_exact_for_triangular_matrices_that_are_one_larger(size):
    ts, xs = polygon(1, channels=3)
    rng = np.random.default_rng(2)
    matrices = jnp.triu(jnp.asarray(rng.normal(size=(3, size, size))), k=1)
    y0 = jnp.asarray(rng.normal(size=size))
    exact = exact_end(matrices, xs, y0)
    ends = [by_exponentials(matrices, nk.data.Series(ts, xs), y0, depth) for depth in (1, 2, 3)]
    for depth, end in enumerate(ends, start=1):
        if depth >= size - 1:
            assert_tree_close(end, exact, 1e-12, 1e-12)
        else:
            assert np.max(np.abs(end - exact)) > 1e-2


@pytest.mark.parametrize(("depth", "order"), [(1, 2), (2, 4), (3, 4)])
def test_the_error_falls_with_the_length_of_windows(depth, order):
    """Orders of Magnus' series along a smooth path (Iserles and Norsett 1999): the window's length
    to the depth at least, and what an odd power adds cancels.
    """
    ts = np.linspace(0.0, 1.0, 257)
    xs = np.stack([np.sin(3 * ts), ts + 0.3 * np.cos(5 * ts), ts**2], axis=1)
    rng = np.random.default_rng(3)
    matrices, y0 = jnp.asarray(rng.normal(size=(3, 3, 3))), jnp.ones(3)
    exact = exact_end(matrices, xs, y0)
    end = lambda n: by_exponentials(
        matrices, nk.data.Series(ts, xs), y0, depth, Windows.at(np.linspace(0.0, 1.0, n + 1))
    )
    errors = [np.linalg.norm(end(n) - exact) for n in (8, 16, 32)]
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(np.abs(slopes - order) < 0.25), (errors, slopes)


def fields_of(weights):
    return tuple(
        lambda y, w=w: jnp.tanh(w @ y + 0.1 * i)  # noqa: B023
        for i, w in enumerate(weights)
    )


def test_depth_one_from_reading_to_reading_is_the_controlled_equation_itself():
    """One step of Heun's method for each piece, both ways: the same numbers."""
    ts, xs = polygon(4)
    series = nk.data.Series(ts, xs)
    weights = jnp.asarray(np.random.default_rng(5).normal(size=(2, 3, 3)))
    y0 = jnp.array([0.1, -0.2, 0.3])
    matrix = lambda t, y, args: jnp.tanh(jnp.einsum("ijk,k->ji", args, y))
    path = nk.controls.linear(series)
    along = nk.diffeqsolve(
        diffrax.ControlTerm(matrix, path), diffrax.Heun(), path.t0, path.t1, None, y0, weights,
        stepsize_controller=diffrax.StepTo(path.knots),
    ).ys[0]  # fmt: skip

    def step(y, dx):
        first = matrix(0, y, weights) @ dx
        return y + (first + matrix(0, y + first, weights) @ dx) / 2, None

    by_windows = jax.lax.scan(step, y0, logsignature(series, 1, Windows.every(1)).levels[0])[0]
    assert_tree_close(by_windows, along, 1e-12, 1e-13)


@pytest.mark.slow
def test_a_nonlinear_equation_is_solved_better_with_each_level():
    ts = np.linspace(0.0, 1.0, 65)
    xs = np.stack([np.sin(4 * ts), np.cos(4 * ts)], axis=1)
    series, y0 = nk.data.Series(ts, xs), jnp.array([0.4, -0.3])
    exact = window_by_window(FIELDS, logsignature(series, 1, Windows.every(1)), y0)
    windows = Windows.every(16)
    errors = [
        np.max(np.abs(window_by_window(FIELDS, logsignature(series, d, windows), y0, 4) - exact))
        for d in (1, 2, 3)
    ]
    assert errors[1] < errors[0] / 5 and errors[2] < errors[1], errors


FIELDS = (
    lambda y: jnp.stack([jnp.sin(y[1]), jnp.cos(y[0])]),
    lambda y: jnp.stack([jnp.tanh(y[0] + y[1]), y[0] * y[1]]),
)
