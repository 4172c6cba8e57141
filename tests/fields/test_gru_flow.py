"""The gated flow against its formula, and its bound."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from support.close import close_to_rounding

import ndekit as nk
from ndekit.fields import GRUFlow


def randomized(flow, key):
    """With biases that are not zero."""
    return eqx.tree_at(lambda f: f.bias, flow, jr.normal(key, flow.bias.shape))


def by_hand(flow, h, p):
    """In NumPy, gate by gate."""
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    n, full = len(h), flow.kind == "full"
    offset = np.asarray(flow.bias) + (0 if p is None else p @ np.asarray(flow.of_input))
    u_state = np.asarray(flow.of_state)
    z = sigmoid(h @ u_state[:, :n] + offset[:n])
    r = sigmoid(h @ u_state[:, n:] + offset[n : 2 * n]) if full else z
    u = np.tanh((r * h) @ np.asarray(flow.of_candidate) + offset[-n:])
    return (1 - z) * (u - h)


@pytest.mark.parametrize("kind", ["full", "minimal"])
@pytest.mark.parametrize("inputs", [0, 3])
def test_flow_is_the_formula(kind, inputs, getkey):
    flow = randomized(GRUFlow(5, input_size=inputs, kind=kind, key=getkey()), getkey())
    h = jr.normal(getkey(), (4, 5))
    p = jr.normal(getkey(), (4, inputs)) if inputs else None
    rates = flow(0.0, h, p)
    for i in range(4):
        mine = None if p is None else np.asarray(p[i])
        assert close_to_rounding(rates[i], by_hand(flow, np.asarray(h[i]), mine))
        assert close_to_rounding(flow(0.0, h[i], None if p is None else p[i]), rates[i])


@given(seed=st.integers(0, 1000), corner=st.lists(st.booleans(), min_size=5, max_size=5))
def test_field_points_inwards_on_the_faces_of_the_cube(seed, corner):
    keys = jr.split(jr.key(seed), 4)
    flow = randomized(GRUFlow(5, input_size=2, key=keys[0]), keys[1])
    signs = jnp.where(jnp.array(corner), 1.0, -1.0)
    inside = jr.uniform(keys[2], (5,), minval=-1.0, maxval=1.0)
    for face in range(5):
        h = inside.at[face].set(signs[face])
        assert flow(0.0, h, 5 * jr.normal(keys[3], (2,)))[face] * signs[face] <= 0


@pytest.mark.parametrize("kind", ["full", "minimal"])
@pytest.mark.parametrize("h", [0.1, 1.0])
def test_euler_steps_of_at_most_one_stay_in_the_cube(kind, h, getkey):
    flow = randomized(GRUFlow(6, kind=kind, key=getkey()), getkey())
    y0 = jnp.sign(jr.normal(getkey(), (20, 6)))
    sol = nk.diffeqsolve(
        diffrax.ODETerm(flow), diffrax.Euler(), 0.0, 20.0, h, y0,
        saveat=diffrax.SaveAt(ts=jnp.linspace(0.0, 20.0, 21)),
    )  # fmt: skip
    assert jnp.all(jnp.abs(sol.ys) <= 1)
    assert jnp.any(jnp.abs(sol.ys[-1] - y0) > 0.1)


def test_without_bias_and_inputs_zero_is_at_rest(getkey):
    flow = GRUFlow(5, bias=False, key=getkey())
    assert not np.any(flow(0.0, jnp.zeros(5)))
    assert flow.bias is None and flow.of_input is None
    assert np.any(randomized(GRUFlow(5, key=getkey()), getkey())(0.0, jnp.zeros(5)))


def test_weights_fill_glorots_range(getkey):
    flow = GRUFlow(100, input_size=50, key=getkey())
    for weights, size in ((flow.of_state, 100), (flow.of_candidate, 100), (flow.of_input, 50)):
        limit = np.sqrt(6 / (size + 100))
        assert 0.99 * limit < np.abs(weights).max() <= limit


def test_every_parameter_has_a_gradient(getkey):
    flow = GRUFlow(4, input_size=2, key=getkey())
    h, p = jr.normal(getkey(), (3, 4)), jr.normal(getkey(), (3, 2))
    gradients = eqx.filter_grad(lambda f: jnp.sum(f(0.0, h, p) ** 2))(flow)
    assert all(jnp.all(jnp.any(g != 0, axis=0)) for g in jax.tree.leaves(gradients))


BAD = {
    "no state": (lambda key: GRUFlow(0, key=key), "hidden_size"),
    "negative inputs": (lambda key: GRUFlow(4, input_size=-1, key=key), "input_size"),
    "another kind": (lambda key: GRUFlow(4, kind="tiny", key=key), "kind"),
    "no inputs": (lambda key: GRUFlow(4, input_size=2, key=key)(0.0, jnp.ones(4)), "but got none"),
    "other inputs": (
        lambda key: GRUFlow(4, input_size=2, key=key)(0.0, jnp.ones(4), jnp.ones(3)), r"\(3,\)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name, getkey):
    make, message = BAD[name]
    with pytest.raises((ValueError, TypeCheckError), match=message):
        make(getkey())
