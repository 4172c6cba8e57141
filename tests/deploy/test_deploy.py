"""Fixed steps after training: the least that will do, and learnt corrections."""

import dataclasses

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import ndekit as nk
from ndekit.deploy.fixed_steps import with_fixed_steps


def oscillator(t, y, args):
    return jnp.stack([y[..., 1], -y[..., 0]], axis=-1)


def ode_of(field=oscillator, **options):
    accurate = diffrax.PIDController(rtol=1e-6, atol=1e-6)
    return nk.models.NeuralODE(field, controller=accurate, t1=3.0, **options)


Y0 = np.array([[1.0, 0.0], [0.3, -0.7], [-0.5, 0.5]], np.float32)


def error_of(solver, num_steps):
    """Against cos and sin, by diffrax."""
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(oscillator), solver, 0.0, 3.0, 3.0 / num_steps, jnp.asarray(Y0)
    )
    turn = np.array([[np.cos(3.0), -np.sin(3.0)], [np.sin(3.0), np.cos(3.0)]])
    assert sol.ys is not None
    return float(np.abs(np.asarray(sol.ys[0]) - Y0 @ turn).max())


def test_too_few_steps_that_blow_up_are_an_error_like_another():
    # Eight steps lead to a state whose cube is infinite; it is stable from some hundred on.
    falls = lambda t, y, args: -30.0 * y**3
    report = nk.deploy.fix_steps(
        ode_of(falls), jnp.asarray(1 + 0.01 * Y0), 0.05, solvers=(diffrax.Euler(), diffrax.Heun())
    )
    assert all(scheme.num_steps > 8 for scheme in report.found)


def test_a_model_of_several_solves_that_cannot_be_called():
    odes = {"first": ode_of(), "second": ode_of(lambda t, y, args: -y)}
    both = lambda model, y: jax.tree.map(lambda ode: ode(y), model, is_leaf=callable)
    saved = lambda model, y: [sol.ys for sol in both(model, y).values()]
    y0, bosh = jnp.asarray(Y0), (diffrax.Bosh3(),)
    # Only `predict` says how such a model is run; of what is saved alone nothing can be counted.
    report = nk.deploy.fix_steps(odes, y0, 0.05, predict=saved, solvers=bosh)
    assert report.adaptive_evals != report.adaptive_evals and "nan" not in str(report)
    largest = lambda a, b: jnp.max(jnp.array([jnp.max(jnp.abs(a[k].ys - b[k].ys)) for k in a]))
    counted = nk.deploy.fix_steps(odes, y0, 0.05, predict=both, error=largest, solvers=bosh)
    each = [float(ode(y0).stats["num_evals"]) for ode in odes.values()]
    assert counted.best == report.best and counted.adaptive_evals == sum(each) / 2


@pytest.mark.parametrize("max_error", [0.05, pytest.param(1e-3, marks=pytest.mark.slow)])
def test_the_least_steps_of_each_solver_and_the_cheapest_of_all(max_error):
    report = nk.deploy.fix_steps(ode_of(), jnp.asarray(Y0), max_error)
    for scheme in report.found:
        assert error_of(scheme.solver, scheme.num_steps) < 1.02 * max_error
        if scheme.num_steps > 1:
            assert error_of(scheme.solver, scheme.num_steps - 1) > 0.98 * max_error
    assert report.best.evals == min(scheme.evals for scheme in report.found)
    # Nothing cheaper, by brute force.
    for solver, each, first in ((diffrax.Heun(), 2, 0), (diffrax.Tsit5(), 6, 1)):
        for num_steps in range(1, (report.best.evals - first) // each):
            if each * num_steps + first < report.best.evals:
                assert error_of(solver, num_steps) > 0.98 * max_error
    sol = report.model(jnp.asarray(Y0))
    assert int(sol.stats["num_steps"]) == report.best.num_steps
    assert int(sol.stats["num_evals"]) == report.best.evals
    assert sol.stats["num_rejected_steps"] == 0
    assert type(report.best.solver).__name__ in str(report)
    assert report.adaptive_evals > report.best.evals


@pytest.mark.parametrize("num_steps", [1, 7, 100, 256])
def test_as_many_steps_as_said(num_steps):
    for span in (1.0, 3.0, 0.1):
        ode = dataclasses.replace(ode_of(), t1=span)
        fixed = with_fixed_steps(ode, diffrax.Heun(), num_steps)
        assert int(fixed(jnp.asarray(Y0)).stats["num_steps"]) == num_steps


def test_a_classifier_by_its_changed_classes():
    field_key, head_key, x_key = jr.split(jr.key(0), 3)
    field = nk.fields.MLP(4, width=16, depth=1, near_zero=False, key=field_key)
    model = nk.models.ODEClassifier(
        eqx.nn.Identity(), nk.models.NeuralODE(field), nk.fields.Affine(4, 3, key=head_key)
    )
    x = jr.normal(x_key, (64, 4))
    changed = lambda a, b: jnp.mean(jnp.argmax(a, -1) != jnp.argmax(b, -1))
    report = nk.deploy.fix_steps(model, x, 0.02, error=changed)
    before, after = model(x)[0], report.model(x)[0]
    assert changed(after, before) <= 0.02
    assert report.best.evals < report.adaptive_evals
    # In lanes, by its own way to predict.
    in_lanes = lambda model, x: jax.vmap(lambda x: model(x)[0])(x)
    assert nk.deploy.fix_steps(model, x, 0.02, predict=in_lanes, error=changed).best.evals > 0


def test_bad_input_is_refused():
    y0 = jnp.asarray(Y0)
    with pytest.raises(ValueError, match="holds no"):
        nk.deploy.fix_steps(nk.fields.MLP(2, 4, 1, key=jr.key(0)), y0, 0.1)
    with pytest.raises(ValueError, match="positive"):
        nk.deploy.fix_steps(ode_of(), y0, 0.0)
    with pytest.raises(ValueError, match="No scheme"):
        nk.deploy.fix_steps(ode_of(), y0, 1e-3, solvers=[diffrax.Euler()], max_steps=8)
    with pytest.raises(ValueError, match="explicit Runge-Kutta solvers, but `ReversibleHeun` is"):
        nk.deploy.fix_steps(ode_of(), y0, 0.1, solvers=[diffrax.Heun(), diffrax.ReversibleHeun()])
    with pytest.raises(ValueError, match="num_steps"):
        correction = nk.deploy.Correction(2, width=4, key=jr.key(0))
        nk.deploy.distill(ode_of(), y0, num_steps=0, correction=correction, key=jr.key(0))


def test_a_hypersolver_is_the_scheme_and_its_correction():
    scale = 0.3
    correction = lambda h, y, rate: scale * y + 2 * rate * h
    solver = nk.deploy.Hypersolver(diffrax.Heun(), correction)
    term = diffrax.ODETerm(oscillator)
    for solve in (nk.diffeqsolve, diffrax.diffeqsolve):
        sol = solve(term, solver, 0.0, 0.5, 0.25, jnp.asarray(Y0))
        y = jnp.asarray(Y0)
        for _ in range(2):
            rate = oscillator(0.0, y, None)
            middle = oscillator(0.0, y + 0.25 * rate, None)
            y = y + 0.125 * (rate + middle) + 0.25**3 * (scale * y + 0.5 * rate)
        np.testing.assert_allclose(sol.ys[0], y, rtol=1e-5)


def test_distilling_lowers_the_error_of_the_same_steps():
    field = lambda t, y, args: jnp.stack([y[..., 1], -jnp.sin(2 * y[..., 0])], axis=-1)
    ode = ode_of(field)
    train, test = jr.normal(jr.key(0), (2, 64, 2))
    correction = nk.deploy.Correction(2, width=32, key=jr.key(1))
    fast, record = nk.deploy.distill(
        ode, train, num_steps=6, correction=correction, num_updates=600, key=jr.key(2),
        optimizer=optax.adam(optax.cosine_decay_schedule(5e-3, 600)),
        updates_per_call=50, progress=False,
    )  # fmt: skip
    losses = nk.train.column(record.history, "loss")[1]
    assert losses[-1] < 0.2 * losses[0]
    truth = ode(test).ys
    plain = with_fixed_steps(ode, diffrax.Heun(), 6)(test).ys
    off = lambda ys: float(jnp.sqrt(jnp.mean((ys - truth) ** 2)))
    assert off(fast(test).ys) < 0.5 * off(plain)
    assert fast(test).stats["num_steps"] == 6
