"""`fit` takes every optimiser of optax, and gives it what it asks for."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from support.close import assert_tree_close
from support.marks import slow_but

from ndekit.train import fit

contrib = optax.contrib
X = np.asarray(jr.normal(jr.key(0), (32, 3)))
MODEL = {"w": 0.5 * jr.normal(jr.key(1), (3, 4)), "v": 0.5 * jr.normal(jr.key(2), (4,))}
RATE = 0.01

# Transformations that need to know what no loop over batches does: gradients of each example, a
# state that is not made by `init` alone, or no rate at all.
NAMES = (
    "adabelief adadelta adagrad adafactor adam adamax adamaxw adamw adan amsgrad fromage lamb lars "
    "lion nadam nadamw novograd optimistic_adam_v2 optimistic_gradient_descent "
    "polyak_sgd radam rmsprop rprop sgd sign_sgd signum sm3 yogi"
).split()
WITH_RATE = "acprop ademamix adopt dadapt_adamw dog dowg madgrad momo momo_adam muon sophia".split()
OPTIMIZERS = {
    **{name: lambda name=name: getattr(optax, name)(RATE) for name in NAMES},
    **{name: lambda name=name: getattr(contrib, name)(RATE) for name in WITH_RATE},
    "cocob": contrib.cocob,
    "prodigy": contrib.prodigy,
    "lbfgs": optax.lbfgs,
    "backtracking": lambda: optax.lbfgs(linesearch=optax.scale_by_backtracking_linesearch(20)),
    "plateau": lambda: optax.chain(
        optax.adam(RATE), contrib.reduce_on_plateau(accumulation_size=3)
    ),
    "noise": lambda: optax.noisy_sgd(RATE, key=jr.key(7)),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(
        learning_rate=optax.cosine_decay_schedule(RATE, 100)
    ),
    "several steps": lambda: optax.MultiSteps(optax.chain(optax.adam(RATE), optax.polyak_sgd()), 3),
    "sharpness": lambda: contrib.sam(
        optax.sgd(RATE), optax.chain(contrib.normalize(), optax.sgd(0.1))
    ),
    "schedule-free": lambda: contrib.schedule_free_sgd(RATE),
    "mechanic": lambda: contrib.mechanize(optax.adam(RATE)),
    "partition": lambda: optax.partition(
        {"a": optax.adam(RATE), "b": optax.polyak_sgd()}, {"w": "a", "v": "b"}
    ),
    "low precision": lambda: optax.adam(RATE, mu_dtype=jnp.bfloat16),
}


def loss_of(model, x):
    return jnp.mean((jnp.tanh(x @ model["w"]) @ model["v"] - x[:, 0]) ** 2)


def loss_fn(model, batch, step, *, key):
    return loss_of(model, batch), {}


def batch_fn(step):
    return X[8 * (step % 4) :][:8]


def run(optimizer, num_updates, **options):
    return fit(
        MODEL, loss_fn, batch_fn, optimizer=optimizer, num_updates=num_updates,
        updates_per_call=4, key=jr.key(3), progress=False, **options,
    )  # fmt: skip


def by_hand(optimizer, num_updates):
    """As optax's documentation has it."""
    optimizer = optax.with_extra_args_support(optimizer)

    @jax.jit
    def update(model, state, x):
        value, grad = jax.value_and_grad(loss_of)(model, x)
        more = dict(value=value, grad=grad, value_fn=lambda model: loss_of(model, x))
        changes, state = optimizer.update(grad, state, model, **more)
        return optax.apply_updates(model, changes), state

    model, state = MODEL, optimizer.init(MODEL)
    with jax.numpy_dtype_promotion("standard"):
        for step in range(num_updates):
            model, state = update(model, state, batch_fn(step))
    return model


# One of each way to ask for more than a gradient, or to keep a state; the others are much alike.
FAST = (
    "adam adafactor sm3 polyak_sgd muon momo_adam lbfgs backtracking plateau noise injected "
    "sharpness schedule-free mechanic partition"
).split() + ["several steps", "low precision"]


@pytest.mark.parametrize("name", slow_but(FAST, OPTIMIZERS))
def test_every_optimiser_trains_and_goes_on_bit_for_bit(name, tmp_path):
    whole = run(OPTIMIZERS[name](), 12)
    run(OPTIMIZERS[name](), 8, checkpoint_dir=tmp_path)
    resumed = run(OPTIMIZERS[name](), 12, checkpoint_dir=tmp_path)
    assert jax.tree.all(
        jax.tree.map(lambda a, b: bool(jnp.all(a == b)), resumed.model, whole.model)
    )
    assert any(bool(jnp.any(whole.model[leaf] != MODEL[leaf])) for leaf in MODEL)


@pytest.mark.parametrize("name", ["adam", "lbfgs", "backtracking", "polyak_sgd", "plateau", "momo"])
def test_an_optimiser_sees_what_it_sees_in_a_loop_by_hand(name):
    found = run(OPTIMIZERS[name](), 8).model
    assert_tree_close(found, by_hand(OPTIMIZERS[name](), 8), rtol=1e-4, atol=1e-5)


def test_the_loss_that_an_optimiser_asks_for_is_of_the_same_batch_and_key():
    """A line search along noise would find another function each time it looks."""
    seen = []

    def update(grads, state, params=None, *, value, value_fn, **others):
        jax.debug.callback(lambda *pair: seen.append(pair), value, value_fn(params))
        return jax.tree.map(jnp.negative, grads), state

    def noisy(model, batch, step, *, key):
        return loss_of(model, batch + jr.normal(key, batch.shape)), {}

    optimizer = optax.GradientTransformationExtraArgs(lambda params: (), update)
    fit(
        MODEL, noisy, batch_fn, optimizer=optimizer, num_updates=3, key=jr.key(3), progress=False
    )  # fmt: skip
    jax.effects_barrier()
    assert len({float(value) for value, _ in seen}) == 3
    for value, again in seen:
        np.testing.assert_allclose(value, again, rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "lbfgs"])
def test_an_optimiser_that_does_not_ask_evaluates_nothing_more(name):
    """The traces of the loss: one for the update, and more for a line search alone."""
    traces = []

    def counted(model, batch, step, *, key):
        traces.append(step)
        return loss_fn(model, batch, step, key=key)

    fit(
        MODEL, counted, batch_fn, optimizer=OPTIMIZERS[name](), num_updates=4, key=jr.key(3),
        progress=False,
    )  # fmt: skip
    assert (len(traces) == 1) == (name == "adam")


@pytest.mark.parametrize("wrong", [optax.adam, 0.1, "adam", None])
def test_what_is_no_optimiser_is_refused(wrong, types_unchecked):
    with pytest.raises(ValueError, match="`optimizer` must be an optax transformation such as"):
        run(wrong, 1)
