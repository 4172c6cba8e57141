"""Fields with a structure: gates of the time, more room, places of a grid, nodes of a graph."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.ndimage import correlate
from support.close import close_to_rounding

import ndekit as nk
from ndekit.fields import MLP, Augmented, ConcatSquash, ConvField, GatedAffine, Graph, UNet
from ndekit.fields.time_features import time_features

# One program instead of one for each operation.
rate = eqx.filter_jit(lambda field, t, y: field(t, y))


def squash_by_hand(field, t, y):
    """In NumPy's float64, with a gate for each unit."""
    y = np.asarray(y, np.float64)
    for i, layer in enumerate(field.layers):
        parts = layer.affine.weight, layer.affine.bias, layer.gate_weight, layer.gate_bias
        weight, bias, gate_weight, gate_bias = (np.asarray(part, np.float64) for part in parts)
        gate = 1 / (1 + np.exp(-(t * gate_weight + gate_bias)))
        y = (y @ weight + bias) * gate + t * np.asarray(layer.time_weight, np.float64)
        if i < len(field.layers) - 1:
            y = np.tanh(y)
    return y.astype(np.float32)


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("batch", [(), (5,)])
def test_concat_squash_is_the_formula(depth, batch, getkey):
    field = ConcatSquash(3, 7, depth, near_zero=False, key=getkey())
    y = jr.normal(getkey(), (*batch, 3))
    for t in (0.0, 0.7):
        assert close_to_rounding(field(t, y), squash_by_hand(field, t, y))


def test_gates_open_and_shut_with_the_time(getkey):
    layer = GatedAffine(2, 3, key=getkey())
    gates = lambda g: (g.gate_weight, g.gate_bias, g.time_weight)
    values = (jnp.array([100.0, -100.0, 0.0]), jnp.array([-50.0, 50.0, 0.0]), jnp.zeros(3))
    layer, y = eqx.tree_at(gates, layer, values), jr.normal(getkey(), (2,))
    plain = layer.affine(y)
    assert close_to_rounding(layer(y, 0.0), plain * jnp.array([0.0, 1.0, 0.5]))
    assert close_to_rounding(layer(y, 1.0), plain * jnp.array([1.0, 0.0, 0.5]))


def test_an_untrained_concat_squash_is_a_hundredth(getkey):
    key, y = getkey(), jr.normal(getkey(), (3,))
    small, plain = (ConcatSquash(3, 8, 2, near_zero=near, key=key) for near in (True, False))
    assert close_to_rounding(100 * small(0.4, y), plain(0.4, y))


@pytest.mark.parametrize("learnt", [False, True])
def test_what_is_lifted_is_dropped_again(learnt, getkey):
    field = Augmented(MLP(5, 4, 1, key=getkey()), 2, learnt=learnt)
    if learnt:
        assert not np.any(field.start)
        field = eqx.tree_at(lambda f: f.start, field, jnp.array([1.0, -2.0]))
    y = jr.normal(getkey(), (4, 3))
    z = field.lift(y)
    assert np.array_equal(field.drop(z), y)
    assert np.array_equal(z[:, 3:], np.tile([1.0, -2.0] if learnt else [0.0, 0.0], (4, 1)))
    assert np.array_equal(field(0.0, z), field.field(0.0, z))


def test_learnt_numbers_have_a_gradient_through_the_lift(getkey):
    field = Augmented(MLP(3, 8, 1, near_zero=False, key=getkey()), 1, learnt=True)
    x = jr.normal(getkey(), (4, 2))
    loss = lambda field: jnp.sum(field.drop(field(0.0, field.lift(x))) ** 2)
    assert np.all(eqx.filter_jit(eqx.filter_grad(loss))(field).start != 0)


def flow(field, y):
    return nk.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, 0.02, y,
        stepsize_controller=diffrax.ConstantStepSize(),
    ).ys[-1]  # fmt: skip


def test_on_the_plane_a_ring_stays_around_its_disc(getkey):
    """A flow is a continuous map with an inverse: the ring still winds around the centre."""
    angles = jnp.linspace(0, 2 * jnp.pi, 2001)
    ring = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    field = MLP(2, 16, 2, final="linear", time="concat", near_zero=False, key=getkey())
    y0 = jnp.concatenate([ring, jnp.zeros((1, 2))])
    moved = flow(lambda t, y, args: 3 * field(t, y), y0)
    about = np.asarray(moved[:-1] - moved[-1:])
    turned = np.unwrap(np.arctan2(about[:, 1], about[:, 0]))
    assert np.abs(moved - y0).max() > 0.5 and np.abs(np.diff(turned)).max() < 1.0
    assert np.rint((turned[-1] - turned[0]) / (2 * np.pi)) == 1


def test_with_a_third_number_a_plane_lies_between_disc_and_ring(getkey):
    field = Augmented(
        lambda t, z, args: jnp.zeros_like(z).at[:, 2].set(z[:, 0] ** 2 + z[:, 1] ** 2), 1
    )
    x = jr.normal(getkey(), (200, 2))
    x = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    inside, outside = (flow(field, field.lift(radius * x)) for radius in (0.5, 1.0))
    assert inside[:, 2].max() < 0.5 < outside[:, 2].min()


@pytest.mark.parametrize(("dims", "border"), [(1, "zeros"), (2, "circular")])
def test_one_convolution_is_scipy_s(dims, border, getkey):
    field = ConvField(2, 3, 0, dims=dims, border=border, near_zero=False, key=getkey())
    y, weight = jr.normal(getkey(), (2, *[6] * dims)), np.asarray(field.layers[0].weight)
    mode = {"zeros": "constant", "circular": "wrap"}[border]
    exact = np.stack(
        [sum(correlate(np.asarray(y[j]), row[j], mode=mode) for j in (0, 1)) for row in weight]
    )
    exact += 0.4 * np.asarray(field.time_weights[0]).reshape(2, *[1] * dims)
    assert close_to_rounding(rate(field, 0.4, y), exact)


@pytest.mark.parametrize("shift", [(0, 3), (2, 0), (3, 2)])
def test_where_the_state_is_shifted_so_are_the_rates(shift, getkey):
    y, key = jr.normal(getkey(), (2, 12, 12)), getkey()
    # What was as far from the border as three convolutions see, and still is.
    own = jnp.zeros((12, 12), bool).at[3:-3, 3:-3].set(True)
    inside = np.asarray(jnp.roll(own, shift, axis=(0, 1)) & own)
    for border in ("circular", "zeros"):
        field = ConvField(2, 4, 2, border=border, near_zero=False, key=key)
        there = np.asarray(rate(field, 0.3, jnp.roll(y, shift, axis=(1, 2))))
        expected = np.asarray(jnp.roll(rate(field, 0.3, y), shift, axis=(1, 2)))
        assert close_to_rounding(there[:, inside], expected[:, inside])
        assert close_to_rounding(there, expected) == (border == "circular")


def test_features_of_the_time_are_sines_and_cosines():
    found = time_features(0.3, 6, 16.0, jnp.float32)
    phases = 0.3 * np.array([1.0, 4.0, 16.0])
    assert close_to_rounding(found, np.concatenate([np.sin(phases), np.cos(phases)]).astype("f"))


def test_unet_sees_the_time_and_starts_small(getkey):
    key, y = getkey(), jr.normal(getkey(), (1, 4, 4))
    small, plain = (UNet(1, 4, 1, groups=2, near_zero=near, key=key) for near in (True, False))
    early, late = rate(plain, 0.1, y), rate(plain, 0.9, y)
    assert np.abs(early - late).max() > 1e-2
    assert close_to_rounding(100 * rate(small, 0.1, y), early)


@pytest.mark.slow
def test_unet_sees_all_of_a_small_image(getkey):
    field = UNet(1, 8, 2, groups=2, near_zero=False, key=getkey())
    y = jr.normal(getkey(), (1, 8, 8))
    corner = jax.jit(jax.grad(lambda y: field(0.1, y)[0, 0, 0]))(y)
    assert np.all(corner != 0)


def random_graph(key, nodes=5):
    one, other = jr.split(key)
    there = jr.bernoulli(one, 0.4, (nodes, nodes)).at[2].set(False)
    return np.asarray(jnp.where(there, jr.normal(other, (nodes, nodes)), 0.0))


@pytest.mark.parametrize("aggregate", ["mean", "sum"])
def test_nodes_in_another_order_have_the_same_rates(aggregate, getkey):
    matrix, order = random_graph(getkey()), np.array([3, 0, 4, 2, 1])
    options = dict(aggregate=aggregate, key=getkey())
    y = jr.normal(getkey(), (5, 2))
    rates = rate(Graph(matrix, 2, 6, 1, **options), 0.3, y)
    there = rate(Graph(matrix[order][:, order], 2, 6, 1, **options), 0.3, y[order])
    assert close_to_rounding(there, rates[order])


def test_a_node_hears_its_neighbours_and_itself_alone(getkey):
    matrix = random_graph(getkey())
    field = Graph(matrix, 2, 6, 1, key=getkey())
    heard = jax.jit(jax.jacfwd(lambda y: field(0.3, y)))(jr.normal(getkey(), (5, 2)))
    hears = np.abs(np.asarray(heard)).sum(axis=(1, 3)) > 0
    assert np.array_equal(hears, (matrix != 0) | np.eye(5, dtype=bool))


def test_messages_are_those_written_out(getkey):
    matrix = random_graph(getkey())
    y, key = jr.normal(getkey(), (5, 2)), getkey()
    for aggregate in ("mean", "sum"):
        field = Graph(matrix, 2, 6, 1, aggregate=aggregate, key=key)
        total = np.zeros((5, 6), np.float32)
        for i, j in np.argwhere(matrix):
            said = np.asarray(field.message(0.3, jnp.concatenate([y[i], y[j]])))
            total[i] += matrix[i, j] * said
        if aggregate == "mean":
            total = total / np.maximum(np.abs(matrix).sum(axis=1, keepdims=True), 1e-30)
        expected = field.update(0.3, jnp.concatenate([y, jnp.asarray(total)], axis=1))
        assert close_to_rounding(rate(field, 0.3, y), expected)


def test_the_adjacency_is_no_parameter(getkey):
    field = Graph(random_graph(getkey()), 2, 6, 1, key=getkey())
    plain = eqx.filter((field.message, field.update), eqx.is_array)
    assert len(jax.tree.leaves(eqx.filter(field, eqx.is_array))) == len(jax.tree.leaves(plain))


BAD = {
    "even kernel": (lambda key: ConvField(1, 2, 1, kernel=4, key=key), "`kernel` must be odd"),
    "border": (lambda key: ConvField(1, 2, 1, border="mirror", key=key), "`border` must be one"),
    "no channels": (lambda key: ConvField(1, 2, 1, key=key)(0.0, jnp.ones((4, 4))), "3 axes"),
    "groups": (lambda key: UNet(1, 6, 1, groups=4, key=key), "multiple of `groups`"),
    "odd image": (
        lambda key: UNet(1, 4, 2, groups=2, key=key)(0.0, jnp.ones((1, 6, 8))), "multiples of 4"
    ),
    "not square": (lambda key: Graph(np.ones((2, 3)), 1, 2, 1, key=key), r"square.*\(2, 3\)"),
    "NaN": (lambda key: Graph(np.full((2, 2), np.nan), 1, 2, 1, key=key), "finite"),
    "aggregate": (lambda key: Graph(np.eye(2), 1, 2, 1, aggregate="max", key=key), "`aggregate`"),
    "other nodes": (
        lambda key: Graph(np.eye(2), 1, 2, 1, key=key)(0.0, jnp.ones((3, 1))), "2 nodes"
    ),
    "not lifted": (
        lambda key: Augmented(MLP(3, 2, 1, key=key), 2)(0.0, jnp.ones(2)), "by `lift`"
    ),
    "extra": (lambda key: Augmented(MLP(3, 2, 1, key=key), 0), "`extra` must be at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name, types_unchecked, getkey):
    act, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        act(getkey())
