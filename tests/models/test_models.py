"""Models against closed forms, and against diffrax's own loop."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close, close_to_rounding, close_to_solver

from ndekit.fields import MLP, Affine
from ndekit.integrate import AbstractStepCost
from ndekit.models import NeuralODE, ODEClassifier


class Decay(eqx.Module):
    rate: jax.Array

    def __call__(self, t, y, args):
        return -self.rate * y


class One(AbstractStepCost):
    def of_step(self, step):
        return jnp.ones_like(step.h)


TIGHT = diffrax.PIDController(rtol=1e-5, atol=1e-6)


def test_end_state_is_the_closed_form():
    ode = NeuralODE(Decay(jnp.array(2.0)), controller=TIGHT, t1=1.5)
    sol = ode(jnp.array([1.0, -3.0]))
    assert sol.ys.shape == (1, 2)
    assert close_to_solver(sol.ys[0], np.exp(np.float32(-3.0)) * np.array([1.0, -3.0]), rtol=1e-5)


@pytest.mark.parametrize("ts", [[0.0, 0.4, 1.0, 2.0], [1.0, 1.5], [2.0, 1.0, 0.0]])
def test_given_times_the_first_state_belongs_to_the_first_of_them(ts):
    ode = NeuralODE(Decay(jnp.array(0.7)), controller=TIGHT)
    sol = ode(jnp.array([2.0]), jnp.array(ts))
    expected = 2.0 * np.exp(-0.7 * (np.array(ts) - ts[0]))
    assert close_to_solver(sol.ys[:, 0], expected, rtol=1e-5)


def test_backward_in_time_undoes_forward():
    forward = NeuralODE(Decay(jnp.array(1.0)), controller=TIGHT)
    backward = NeuralODE(Decay(jnp.array(1.0)), controller=TIGHT, t0=1.0, t1=0.0)
    y0 = jnp.array([1.0, 2.0])
    assert close_to_solver(backward(forward(y0).ys[-1]).ys[-1], y0, rtol=1e-5)


def test_args_reach_the_field():
    ode = NeuralODE(lambda t, y, args: -args * y, controller=TIGHT)
    sol = ode(jnp.ones(1), args=jnp.array(3.0))
    assert close_to_solver(sol.ys[-1], np.exp(np.float32([-3.0])), rtol=1e-5)


def test_gradient_by_a_parameter_is_the_closed_form():
    def end(rate):
        return NeuralODE(Decay(rate), controller=TIGHT)(jnp.ones(1)).ys[-1, 0]

    # d/da exp(-a) = -exp(-a)
    assert close_to_solver(jax.grad(end)(jnp.array(1.3)), -np.exp(np.float32(-1.3)), rtol=1e-5)


def test_costs_are_read_back_and_count_accepted_steps():
    ode = NeuralODE(Decay(jnp.array(40.0)), controller=TIGHT, costs={"ones": One()})
    sol = ode(jnp.ones(1))
    assert int(sol.costs["ones"]) == int(sol.stats["num_accepted_steps"]) > 10
    assert set(sol.costs) == {"ones"}
    assert NeuralODE(Decay(jnp.array(1.0)))(jnp.ones(1)).costs == {}


def make(getkey, **options):
    field = MLP(3, 8, 1, near_zero=False, time="concat_each_layer", key=getkey())
    return NeuralODE(field, controller=TIGHT, **options)


def test_vmap_gives_each_sample_its_own_steps(getkey):
    ode = NeuralODE(lambda t, y, args: -y * jnp.abs(args), controller=TIGHT)
    rates = jnp.array([0.1, 30.0])
    sols = jax.vmap(ode, in_axes=(0, None, 0))(jnp.ones((2, 1)), None, rates)
    alone = [ode(jnp.ones(1), args=rate).stats["num_accepted_steps"] for rate in rates]
    assert sols.stats["num_accepted_steps"].tolist() == [int(n) for n in alone]
    assert alone[0] < alone[1]


def test_a_batched_state_shares_its_steps(getkey):
    ode = make(getkey)
    y0 = jr.normal(getkey(), (5, 3))
    shared = ode(y0)
    assert shared.stats["num_steps"].shape == ()
    own = jax.vmap(ode)(y0)
    assert own.stats["num_steps"].shape == (5,)
    assert close_to_solver(shared.ys[-1], own.ys[:, -1], rtol=1e-5)


def test_solution_is_diffraxs(getkey):
    ode = make(getkey)
    y0 = jr.normal(getkey(), (5, 3))
    sol = ode(y0)
    reference = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: ode.field(t, y, args)), diffrax.Tsit5(), 0.0, 1.0, None,
        y0, stepsize_controller=TIGHT,
    )  # fmt: skip
    assert sol.stats["num_accepted_steps"] == reference.stats["num_accepted_steps"]
    assert_tree_close(sol.ys, reference.ys, rtol=1e-5, atol=1e-6)


def test_running_out_of_steps_is_not_silent(getkey):
    ode = NeuralODE(Decay(jnp.array(1000.0)), controller=TIGHT, max_steps=4)
    with pytest.raises(Exception, match="maximum number of solver steps"):
        ode(jnp.ones(1))
    quiet = NeuralODE(Decay(jnp.array(1000.0)), controller=TIGHT, max_steps=4, throw=False)
    assert quiet(jnp.ones(1)).result == diffrax.RESULTS.max_steps_reached


def classifier(getkey):
    return ODEClassifier(eqx.nn.Identity(), make(getkey), Affine(3, 4, key=getkey()))


def test_classifier_is_head_of_solve_of_encoder(getkey):
    encoder = Affine(2, 3, key=getkey())
    model = ODEClassifier(encoder, make(getkey), Affine(3, 4, key=getkey()))
    x = jr.normal(getkey(), (6, 2))
    logits, solution = model(x)
    assert close_to_rounding(logits, model.head(model.ode(encoder(x)).ys[-1]))
    assert solution.stats["num_evals"] > 0


def test_classifier_works_unbatched_under_vmap(getkey):
    model = classifier(getkey)
    x = jr.normal(getkey(), (6, 3))
    logits, _ = jax.vmap(model)(x)
    assert close_to_solver(logits, model(x)[0], rtol=1e-5)


def test_every_parameter_of_a_classifier_learns(getkey):
    model = classifier(getkey)
    x = jr.normal(getkey(), (6, 3))
    grads = eqx.filter_grad(lambda m: jnp.sum(m(x)[0] ** 2))(model)
    leaves = jax.tree.leaves(grads)
    assert len(leaves) == 9  # 2 x (weight, time weight, bias), scale; head's weight and bias
    assert all(bool(jnp.any(leaf != 0)) and bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves)
