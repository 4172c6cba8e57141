"""Vector fields against the same networks written out by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.close import close_to_rounding

from ndekit.fields import MLP, Affine, lipswish


def by_hand(field, t, y, with_time):
    """The network with time literally concatenated to the inputs, in NumPy's float64."""
    y = np.asarray(y, np.float64)
    for i, layer in enumerate(field.layers):
        weight = np.asarray(layer.weight, np.float64)
        if with_time(i):
            weight = np.concatenate([weight, np.asarray(layer.time_weight, np.float64)[None]])
            y = np.concatenate([y, np.full((*y.shape[:-1], 1), t)], axis=-1)
        y = y @ weight + np.asarray(layer.bias, np.float64)
        if i < len(field.layers) - 1:
            y = np.tanh(y)
    if field.final != "linear":
        y = np.tanh(y)
    if field.final == "scaled_tanh":
        y = float(field.scale) * y
    return y.astype(np.float32)


TIMES = {
    "none": lambda i: False,
    "concat": lambda i: i == 0,
    "concat_each_layer": lambda i: True,
}


@pytest.mark.parametrize("final", ["scaled_tanh", "tanh", "linear"])
@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_mlp_is_the_network_written_out(time, final, depth, batch, getkey):
    field = MLP(4, 7, depth, time=time, final=final, near_zero=False, key=getkey())
    y = jr.normal(getkey(), (*batch, 4))
    rate = field(jnp.array(0.3), y, None)
    assert close_to_rounding(rate, by_hand(field, 0.3, y, TIMES[time]))


@pytest.mark.parametrize("out", [6, (2, 3), ()])
def test_mlp_gives_the_shape_asked_for(out, getkey):
    key = getkey()
    field = MLP(4, 7, 1, out=out, final="linear", near_zero=False, key=key)
    shape = (out,) if isinstance(out, int) else out
    y = jr.normal(getkey(), (5, 4))
    rate = field(0.0, y)
    assert rate.shape == (5, *shape)
    assert close_to_rounding(rate.reshape(5, -1), by_hand(field, 0.0, y, TIMES["none"]))


@given(x=st.floats(-50, 50))
@settings(max_examples=50, deadline=None)
def test_lipswish_is_no_steeper_than_one(x):
    assert abs(jax.grad(lipswish)(x)) <= 1 + 1e-3


def test_near_zero_is_a_hundredth_of_the_last_weights(getkey):
    key = getkey()
    plain = MLP(3, 8, 2, final="linear", near_zero=False, key=key)
    small = MLP(3, 8, 2, final="linear", near_zero=True, key=key)
    y = jr.normal(getkey(), (3,))
    assert close_to_rounding(small(0.0, y), plain(0.0, y) / 100)


def test_parameters_count_as_in_paper_a(getkey):
    # [x, t] 785 -> 100, [., t] 101 -> 784: (785 + 1) * 100 + (101 + 1) * 784
    field = MLP(784, 100, 1, time="concat_each_layer", final="tanh", near_zero=False, key=getkey())
    count = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(field, eqx.is_array)))
    assert count == 786 * 100 + 102 * 784


def test_initial_weights_fill_glorots_range(getkey):
    layer = Affine(200, 100, with_time=True, key=getkey())
    drawn = np.concatenate([layer.weight, layer.time_weight[None]])
    limit = np.sqrt(6 / 301)
    assert 0.99 * limit < np.abs(drawn).max() <= limit
    # A uniform variable on [-l, l] has variance l^2 / 3; 20100 draws pin it to about 1 %.
    assert abs(drawn.var() / (limit**2 / 3) - 1) < 0.03
    assert not np.any(np.asarray(layer.bias))


def test_bounded_field_has_the_scale_as_its_bound(getkey):
    field = MLP(3, 8, 1, near_zero=False, key=getkey())
    field = eqx.tree_at(lambda f: f.scale, field, jnp.array(2.5))
    rate = field(0.0, 1e6 * jnp.ones(3))
    assert jnp.all(jnp.abs(rate) <= 2.5)


def test_every_parameter_has_a_gradient(getkey):
    field = MLP(3, 8, 2, time="concat_each_layer", key=getkey())
    y = jr.normal(getkey(), (5, 3))
    grads = eqx.filter_grad(lambda f: jnp.sum(f(0.7, y) ** 2))(field)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(grads))


def test_dtype_is_kept(x64, getkey):
    field = MLP(3, 8, 1, time="concat", dtype=jnp.float32, key=getkey())
    assert field(jnp.array(0.5), jnp.ones(3, jnp.float32)).dtype == jnp.float32


def test_batched_state_is_one_product_of_matrices(getkey):
    field = MLP(16, 32, 1, time="concat_each_layer", key=getkey())
    text = str(jax.make_jaxpr(lambda t, y: field(t, y))(0.5, jnp.ones((8, 16))))
    assert text.count("dot_general") == 2
    assert "concatenate" not in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(size=0), "`size` must be at least 1, got 0."),
        (dict(depth=-1), "`depth` must be at least 0, got -1."),
    ],
)
def test_bad_sizes_are_refused(options, said, getkey):
    with pytest.raises(ValueError, match=said):
        MLP(**{"size": 2, "width": 4, "depth": 1, **options}, key=getkey())


def test_time_is_asked_for(getkey):
    with pytest.raises(ValueError, match="needs a time"):
        Affine(2, 3, with_time=True, key=getkey())(jnp.ones(2))
