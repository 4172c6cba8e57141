"""Means of weights along a training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from support.close import assert_tree_close

import ndekit as nk
from ndekit.train import WeightAverage


def after(values, **options):
    average = WeightAverage(jnp.array(values[0]), **options)
    for value in values:
        average = average.seen(jnp.array(value))
    return average.into(jnp.array(0.0))


def test_all_models_weigh_alike():
    values = np.random.default_rng(0).normal(size=20).astype(np.float32)
    assert_tree_close(after(values), jnp.array(values.mean()), rtol=1e-5, atol=1e-6)


def test_models_before_the_start_are_left_out():
    values = np.random.default_rng(0).normal(size=20).astype(np.float32)
    assert_tree_close(after(values, start=15), jnp.array(values[15:].mean()), rtol=1e-5, atol=1e-6)
    assert_tree_close(after(values, start=30), jnp.array(values[-1]), rtol=0)


def test_a_mean_that_never_began_is_remarked_upon():
    def trained(start):
        def loss(model, batch, step, *, key, carry):
            return jnp.sum(model**2), {}, (carry[0], carry[1].seen(model))

        carry = (jnp.zeros(()), WeightAverage(jnp.ones(2), start=start))
        return nk.train.fit(
            jnp.ones(2), loss, lambda step: None, optimizer=optax.sgd(0.1), num_updates=5,
            key=jr.key(0), progress=False, carry=carry,
        )  # fmt: skip

    assert trained(4).remarks == ()
    (said,) = trained(5).remarks
    assert "leaves out the first 5 models, and 5 were seen" in said


def test_the_exponential_mean_begins_as_a_plain_one():
    values = [1.0, 2.0, 6.0]
    assert_tree_close(after(values[:2], decay=0.5), jnp.array(1.5), rtol=1e-6)
    assert_tree_close(after(values, decay=0.5), jnp.array(3.75), rtol=1e-6)


def test_what_is_no_weight_stays():
    field = nk.fields.MLP(2, 3, 1, key=jr.key(0))
    average = WeightAverage(field).seen(jax.tree.map(lambda x: x, field))
    averaged = average.into(field)
    assert averaged.activation is field.activation
    assert_tree_close(eqx.filter(averaged, eqx.is_array), eqx.filter(field, eqx.is_array), rtol=0)


@pytest.mark.parametrize(("option", "value"), [("start", -1), ("decay", 1.5), ("decay", -0.1)])
def test_bad_settings_are_refused(option, value):
    with pytest.raises(ValueError, match=f"`{option}` must be"):
        WeightAverage(jnp.zeros(2), **{option: value})


def test_a_training_hands_it_on_and_an_interrupted_one_too(tmp_path):
    def loss_fn(model, batch, step, *, key, carry):
        return jnp.sum((model - 1) ** 2), {}, carry.seen(model)

    def run(num_updates, **options):
        model = jnp.zeros(3)
        return nk.train.fit(
            model, loss_fn, lambda step: None, optimizer=optax.sgd(0.1), num_updates=num_updates,
            key=jr.key(0), carry=WeightAverage(model, start=4), progress=False, **options,
        )  # fmt: skip

    seen = [1 - 0.8**i for i in range(10)]
    whole = run(10)
    assert_tree_close(whole.carry.into(whole.model), jnp.full(3, np.mean(seen[4:])), rtol=1e-5)
    run(6, checkpoint_dir=tmp_path)
    assert_tree_close(run(10, checkpoint_dir=tmp_path).carry.weights, whole.carry.weights, rtol=0)
