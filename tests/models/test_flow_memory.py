"""The memory of a log density's gradient does not grow with the steps that are allowed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import pytest
from support.marks import slow_but

import ndekit as nk

BATCH, WIDTH = 1024, 32
STATE = BATCH * 3 * 4  # bytes of the points and their densities


def flow_of(kind, max_steps):
    network = nk.fields.MLP(2, width=WIDTH, depth=2, time="concat", key=jr.key(0))
    if kind == "CNF":
        return nk.models.CNF(network, nk.models.StandardNormal(2), max_steps=max_steps)
    return nk.models.Flow(network, nk.paths.CondOT(), 2, max_steps=max_steps)


def temporary_bytes(kind, max_steps):
    arrays, rest = eqx.partition(flow_of(kind, max_steps), eqx.is_inexact_array)

    def loss(arrays, xs):
        return jnp.mean(eqx.combine(arrays, rest).log_prob(xs))

    given = arrays, jnp.ones((BATCH, 2))
    compiled = jax.jit(jax.grad(loss)).lower(*given).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("kind", slow_but(("CNF",), ("CNF", "Flow")))
def test_the_gradients_memory_is_that_of_some_states_and_one_step(kind):
    few, many = (temporary_bytes(kind, most) for most in (64, 4096))
    # All states of 4,096 steps would be 48 MB.
    assert many - few < 0.05 * (4096 - 64) * STATE
    hidden = BATCH * WIDTH * 4
    # Six stages of three copies (the value, two directions) of the hidden layers, and their
    # derivatives: of one step, not of all.
    assert few < 4 * 6 * 3 * 2 * hidden
