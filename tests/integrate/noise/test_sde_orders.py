"""Strong and weak orders of every SDE solver, with the confidence that a sample of paths allows."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import lineax as lx
import numpy as np
import pytest
import scipy.integrate
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk

AREA = diffrax.SpaceTimeLevyArea
DRIFT = np.array([[-1.0, 0.4], [0.3, -0.6]])
# dy = DRIFT y dt + sum over k of (B_k y + c_k) dW_k, for each kind as B and c.
ZERO = np.zeros((2, 2))
NOISES = {
    "diagonal": ([np.diag([0.7, 0.0]), np.diag([0.0, 0.5])], ZERO),
    "additive": ([ZERO, ZERO], np.array([[0.6, 0.0], [0.0, 0.8]])),
    # B_1 and B_2 do not commute: their bracket is as large as their product.
    "general": ([np.array([[0.0, 0.6], [0.2, 0.0]]), np.array([[0.5, 0.0], [0.0, -0.4]])], ZERO),
}
Y0 = np.array([1.0, 0.7])

# By kind of noise, the strong and the weak order that a scheme has at least.
ORDERS = {
    (diffrax.Euler(), "diagonal"): (0.5, 1.0),
    (diffrax.Euler(), "additive"): (1.0, 1.0),
    (diffrax.Euler(), "general"): (0.5, 1.0),
    (diffrax.EulerHeun(), "diagonal"): (1.0, 1.0),
    (diffrax.EulerHeun(), "general"): (0.5, 1.0),
    (diffrax.ItoMilstein(), "diagonal"): (1.0, 1.0),
    (diffrax.StratonovichMilstein(), "diagonal"): (1.0, 1.0),
    (diffrax.Heun(), "diagonal"): (1.0, 1.0),
    (diffrax.Heun(), "general"): (0.5, 1.0),
    (diffrax.Midpoint(), "diagonal"): (1.0, 1.0),
    (diffrax.Midpoint(), "general"): (0.5, 1.0),
    (diffrax.Ralston(), "diagonal"): (1.0, 1.0),
    (diffrax.Ralston(), "general"): (0.5, 1.0),
    (diffrax.ReversibleHeun(), "diagonal"): (0.5, 1.0),
    (diffrax.ReversibleHeun(), "additive"): (1.0, 2.0),
    (diffrax.ReversibleHeun(), "general"): (0.5, 1.0),
    (diffrax.SEA(), "additive"): (1.0, 1.0),
    (diffrax.SRA1(), "additive"): (1.5, 2.0),
    (diffrax.ShARK(), "additive"): (1.5, 2.0),
    (diffrax.GeneralShARK(), "diagonal"): (1.0, 1.0),
    (diffrax.GeneralShARK(), "general"): (0.5, 1.0),
    (diffrax.SlowRK(), "diagonal"): (1.5, 2.0),
    (diffrax.SlowRK(), "general"): (0.5, 1.0),
    (diffrax.SPaRK(), "diagonal"): (1.0, 1.0),
    (diffrax.SPaRK(), "general"): (0.5, 1.0),
    (nk.SOSRI(), "diagonal"): (1.5, 1.5),  # weakly 2; at these steps it is still on its way there
    (nk.SOSRI(), "additive"): (1.5, 2.0),
}
CASES = {f"{type(solver).__name__}-{kind}": (solver, kind) for solver, kind in ORDERS}


@pytest.fixture(autouse=True)
def float64(x64):
    pass


def end_of(solver, kind, h, path):
    matrices, offsets = (jnp.asarray(np.array(part)) for part in NOISES[kind])

    def diffusion(t, y, args):
        # diffrax's solvers for additive noise look whether it depends on `y`, not on its value.
        columns = (offsets if kind == "additive" else matrices @ y + offsets).T
        return columns if kind == "general" else lx.DiagonalLinearOperator(jnp.diag(columns))

    terms = diffrax.MultiTerm(
        diffrax.ODETerm(lambda t, y, args: jnp.asarray(DRIFT) @ y),
        diffrax.ControlTerm(diffusion, path),
    )
    y0 = jnp.asarray(Y0)
    return nk.diffeqsolve(terms, solver, 0.0, 1.0, h, y0, max_steps=1024).ys[-1]


def slope_with_error(sizes, samples, norm):
    """The slope of `norm(mean of samples)` in log-log, and its standard error by the bootstrap."""
    rng, logs = np.random.default_rng(0), np.log(sizes)
    groups = samples.reshape(len(sizes), 200, -1, *samples.shape[2:]).mean(axis=2)
    slope = lambda groups: np.polyfit(logs, np.log(norm(groups.mean(axis=1))), 1)[0]
    others = [slope(groups[:, rng.integers(200, size=200)]) for _ in range(200)]
    return slope(groups), np.std(others)


def reference_of(solver, kind):
    """A scheme for the same equation; another one, but for Ito's with noise that is general."""
    if kind == "additive":  # one equation in both senses
        return diffrax.SRA1() if isinstance(solver, diffrax.ShARK) else diffrax.ShARK()
    if not isinstance(solver, diffrax.AbstractItoSolver):
        return diffrax.SPaRK() if isinstance(solver, diffrax.SlowRK) else diffrax.SlowRK()
    if kind == "general":
        return diffrax.Euler()
    return diffrax.ItoMilstein() if isinstance(solver, nk.SOSRI) else nk.SOSRI()


@pytest.mark.parametrize("name", slow_but([], CASES))
def test_strong_order(name):
    """The root mean square distance at t = 1 from the end of 512 steps of another scheme along the
    same path.
    """
    solver, kind = CASES[name]
    order, _ = ORDERS[solver, kind]
    sizes = 2.0 ** -np.arange(2, 6)

    def squares(key):
        path = nk.BrownianMotion((2,), key, AREA, ts=jnp.array([0.0, 1.0]))
        fine = end_of(reference_of(solver, kind), kind, 2.0**-9, path)
        ends = jnp.stack([end_of(solver, kind, h, path) for h in sizes])
        return jnp.sum((ends - fine[None]) ** 2, axis=-1)

    found = jax.jit(jax.vmap(squares, out_axes=1))(jr.split(jr.key(0), 800))
    slope, error = slope_with_error(sizes, np.asarray(found), lambda squares: squares**0.5)
    assert error < 0.1
    assert slope > order - 0.1 - 3 * error
    # Without the areas of pairs of motions no scheme does better, if the noise does not commute.
    assert kind != "general" or slope < 0.75


def moments(solver, kind):
    """E y and E y y' at t = 1, from their differential equations."""
    matrices, offsets = NOISES[kind]
    drift, shift = DRIFT.copy(), np.zeros(2)
    if not isinstance(solver, diffrax.AbstractItoSolver):
        drift = drift + sum(0.5 * b @ b for b in matrices)
        shift = shift + sum(0.5 * b @ c for b, c in zip(matrices, offsets, strict=True))

    def rates(t, x):
        mean, second = x[:2], x[2:].reshape(2, 2)
        change = drift @ second + np.outer(shift, mean)
        noise = sum(
            b @ second @ b.T + np.outer(b @ mean, c) + np.outer(c, b @ mean) + np.outer(c, c)
            for b, c in zip(matrices, offsets, strict=True)
        )
        return np.concatenate([drift @ mean + shift, (change + change.T + noise).ravel()])

    start = np.concatenate([Y0, np.outer(Y0, Y0).ravel()])
    return scipy.integrate.solve_ivp(rates, (0, 1), start, rtol=1e-11, atol=1e-12).y[:, -1]


@pytest.mark.parametrize("name", slow_but(["Heun-general"], CASES))
def test_weak_order(name):
    """Means and second moments at t = 1 against the exact ones."""
    solver, kind = CASES[name]
    _, order = ORDERS[solver, kind]
    # With steps any shorter the sample hides what is left of a weak error of order 2.
    sizes = 2.0 ** -(np.arange(3) + (order < 2.0))
    exact = moments(solver, kind)

    def off(key, h):
        y = end_of(solver, kind, h, nk.BrownianMotion((2,), key, AREA))
        return jnp.concatenate([y, jnp.outer(y, y).ravel()]) - exact

    keys = jr.split(jr.key(1), 400_000)
    many = jax.jit(jax.vmap(off, in_axes=(0, None)), static_argnums=1)
    found = np.stack([np.asarray(many(keys, float(h))) for h in sizes])
    slope, error = slope_with_error(sizes, found, lambda off: np.linalg.norm(off, axis=-1))
    # The first error is seen clearly, or the slope would say nothing.
    assert np.linalg.norm(found[0].mean(0)) > 10 * found[0].std(0).max() / len(keys) ** 0.5
    assert 3 * error < order / 2
    assert slope > order - 0.1 - 3 * error


EXACT = {type(solver).__name__: solver for solver, _ in ORDERS}


@pytest.mark.parametrize(
    ("name", "order"),
    [
        pytest.param("Euler", 0.5, marks=pytest.mark.slow),
        pytest.param("ItoMilstein", 1.0, marks=pytest.mark.slow),
        ("SOSRI", 1.5),
        pytest.param("SPaRK", 1.0, marks=pytest.mark.slow),
        pytest.param("Heun", 1.0, marks=pytest.mark.slow),
    ],
)
def test_strong_order_against_the_exact_solution(name, order):
    """Root mean square error at t = 1 on geometric Brownian motion, over 400 paths."""
    solver, sizes = EXACT[name], 2.0 ** -np.arange(2, 6)
    ito = isinstance(solver, diffrax.AbstractItoSolver)

    def error(key, h):
        path = nk.BrownianMotion((), key, AREA, ts=jnp.array([0.0, 1.0]))
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, y, args: 0.1 * y),
            diffrax.ControlTerm(lambda t, y, args: 0.5 * y, path),
        )
        sol = nk.diffeqsolve(terms, solver, 0.0, 1.0, h, jnp.array(1.0), max_steps=64)
        rate = 0.1 - (0.125 if ito else 0.0)
        return sol.ys[-1] - jnp.exp(rate + 0.5 * path.evaluate(0.0, 1.0))

    run = jax.jit(jax.vmap(error, in_axes=(0, None)))
    keys = jr.split(jr.key(0), 400)
    errors = [float(jnp.sqrt(jnp.mean(run(keys, h) ** 2))) for h in sizes]
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    # For commutative noise a scheme may be of a higher order than it is in general.
    assert order - 0.2 < slope < order + 0.35


def test_a_step_of_sosri_integrates_the_path(x64):
    # dy = y dt + dW from 0: y(h) = W + I10 + O(h^2.5), with I10 = h (H + W / 2).
    t0, h = jnp.array(0.0), jnp.array(1e-4)
    path = nk.BrownianMotion((), jr.key(0), AREA)
    noise = diffrax.ControlTerm(lambda t, y, args: jnp.ones(()), path)
    terms = diffrax.MultiTerm(diffrax.ODETerm(lambda t, y, args: y), noise)
    y1, *_ = nk.SOSRI().step(terms, t0, h, jnp.zeros(()), None, None, False)
    levy = path.evaluate(t0, h, use_levy=True)
    assert_tree_close(y1 - levy.W, h * (levy.H + levy.W / 2), rtol=1e-2)
