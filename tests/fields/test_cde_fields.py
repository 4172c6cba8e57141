"""The fields of controlled differential equations against what they say in formulas."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from support.brackets import in_fields, lie_element
from support.close import assert_tree_close, close_to_rounding

from ndekit.fields import CDEField, LinearField, LogField
from ndekit.fields.cde import linearized


@pytest.fixture(autouse=True)
def float64(x64):
    pass


FIELDS = {
    "network": lambda key: CDEField(4, 3, 8, 2, final_gain=1.0, key=key),
    "network without tanh": lambda key: CDEField(
        4, 3, 8, 1, final="linear", final_gain=1.0, key=key
    ),
    "no hidden layer": lambda key: CDEField(4, 3, 8, 0, final_gain=1.0, key=key),
    "with time": lambda key: CDEField(4, 3, 8, 1, with_time=True, final_gain=1.0, key=key),
    "low rank": lambda key: CDEField(4, 3, 8, 1, rank=2, final_gain=1.0, key=key),
    "blocks": lambda key: LinearField(4, 3, block_size=2, scale=1.0, key=key),
    "affine": lambda key: with_offsets(LinearField(4, 3, block_size=2, affine=True, key=key)),
    "dense": lambda key: LinearField(4, 3, block_size=4, scale=1.0, key=key),
    "diagonal": lambda key: LinearField(4, 3, block_size=1, scale=1.0, key=key),
    "skew": lambda key: LinearField(4, 3, block_size=4, skew=True, scale=1.0, key=key),
}


def with_offsets(field):
    offsets = jnp.sin(jnp.arange(field.offsets.size)).reshape(field.offsets.shape)
    return eqx.tree_at(lambda f: f.offsets, field, offsets)


@pytest.fixture(params=FIELDS)
def field(request, getkey):
    return FIELDS[request.param](getkey())


def test_prod_is_the_matrix_times_the_increment(field, getkey):
    y, dx = jr.normal(getkey(), (5, 4)), jr.normal(getkey(), (5, 3))
    matrices = field(0.3, y, None)
    assert matrices.shape == (5, 4, 3)
    assert close_to_rounding(field.prod(0.3, y, dx), jnp.einsum("bhc,bc->bh", matrices, dx))
    assert close_to_rounding(field(0.3, y[0], None), matrices[0])
    assert close_to_rounding(field.prod(0.3, y[0], dx[0]), matrices[0] @ dx[0])


def test_columns_are_linearized_one_by_one(field, getkey):
    y, us = jr.normal(getkey(), (4,)), jr.normal(getkey(), (3, 4))
    value, push = field.linearized(0.3, y)
    jacobian = jax.jacfwd(lambda y: field(0.3, y, None))(y)
    assert close_to_rounding(value, field(0.3, y, None))
    assert close_to_rounding(push(us), jnp.einsum("hcy,cy->ch", jacobian, us))
    assert close_to_rounding(linearized(field, 0.3, y)[1](us), push(us))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_log_field_is_the_sum_of_brackets_by_jacobians(field, depth, getkey):
    y = jr.normal(getkey(), (4,))
    element, coefficients = lie_element(3, depth)
    columns = lambda i: lambda y: field(0.3, y, None)[:, i]
    expected = in_fields(columns, coefficients, y)
    rate = LogField(field, depth)(0.3, y, element)
    assert_tree_close(rate, expected, rtol=1e-9, atol=1e-10)
    # A field that knows nothing but its matrix.
    plain = LogField(lambda t, y, args: field(t, y, args), depth)(0.3, y, element)
    assert_tree_close(plain, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_generator_is_the_matrix_of_the_log_field(field, depth, getkey):
    if not isinstance(field, LinearField):
        pytest.skip("the field is not linear")
    y = jr.normal(getkey(), (4,))
    element, _ = lie_element(3, depth)
    omega = field.generator(element)
    column = field.in_blocks(y)
    if field.offsets is not None:
        column = jnp.concatenate([column, jnp.ones_like(column[:1])])
    rate = jnp.einsum("ijn,jn->in", omega, column)
    if field.offsets is not None:
        assert close_to_rounding(rate[-1], jnp.zeros_like(rate[-1]))
        rate = rate[:-1]
    assert_tree_close(rate.reshape(4), LogField(field, depth)(0.0, y, element), rtol=1e-9)


def test_generator_of_many_windows_is_that_of_each(getkey):
    field = LinearField(6, 3, block_size=2, key=getkey())
    elements = [lie_element(3, 3, seed)[0] for seed in range(4)]
    together = type(elements[0])(levels=jax.tree.map(lambda *x: jnp.stack(x), *[
        e.levels for e in elements
    ]))  # fmt: skip
    each = jnp.stack([field.generator(element) for element in elements])
    assert close_to_rounding(field.generator(together), each)


def test_deeper_levels_do_change_the_field(getkey):
    """The tests above would say nothing of brackets that vanish."""
    field = FIELDS["network"](getkey())
    y = jr.normal(getkey(), (4,))
    element, _ = lie_element(3, 3)
    rates = [LogField(field, depth)(0.0, y, element) for depth in (1, 2, 3)]
    assert np.linalg.norm(rates[1] - rates[0]) > 1e-3
    assert np.linalg.norm(rates[2] - rates[1]) > 1e-3


def test_skew_blocks_keep_the_norm_of_the_state(getkey):
    field = LinearField(8, 3, block_size=4, skew=True, scale=1.0, key=getkey())
    y = jr.normal(getkey(), (8,))
    assert jnp.all(jnp.abs(y @ field(0.0, y)) < 1e-12)


def test_the_state_of_blocks_does_not_mix(getkey):
    """Entries i * blocks + n belong to block n."""
    field = LinearField(6, 1, block_size=2, key=getkey())
    jacobian = jax.jacfwd(lambda y: field(0.0, y)[:, 0])(jnp.ones(6))
    same = np.arange(6)[:, None] % 3 == np.arange(6) % 3
    assert np.array_equal(np.asarray(jacobian) != 0, same)


def test_low_rank_is_no_more_than_that(getkey):
    field = CDEField(6, 5, 8, 1, rank=2, final_gain=1.0, key=getkey())
    singular = np.linalg.svd(field(0.0, jr.normal(getkey(), (6,))), compute_uv=False)
    assert singular[1] > 1e-3 and singular[2] < 1e-12


def test_low_rank_never_builds_the_matrix(getkey):
    field = CDEField(60, 50, 8, 1, rank=2, key=getkey())
    program = jax.make_jaxpr(lambda y, dx: field.prod(0.0, y, dx))(jnp.ones(60), jnp.ones(50))
    shapes = [v.aval.shape for eqn in program.jaxpr.eqns for v in eqn.outvars]
    assert max(int(np.prod(shape)) for shape in shapes) < 60 * 50


def test_field_of_tanh_is_bounded_and_starts_small(getkey):
    field = CDEField(4, 3, 16, 1, key=getkey())
    assert jnp.all(jnp.abs(field(0.0, 1e6 * jnp.ones(4))) <= 1)
    assert 0 < jnp.max(jnp.abs(field(0.0, jnp.ones(4)))) < 0.2


BAD = {
    "no state": (lambda key: CDEField(0, 3, 8, 1, key=key), "hidden_size"),
    "half a channel": (lambda key: CDEField(4, 1.5, 8, 1, key=key), "channels"),
    "no rank": (lambda key: CDEField(4, 3, 8, 1, rank=0, key=key), "rank"),
    "another end": (lambda key: CDEField(4, 3, 8, 1, final="relu", key=key), "final"),
    "negative gain": (lambda key: CDEField(4, 3, 8, 1, final_gain=-1.0, key=key), "final_gain"),
    "blocks do not fit": (lambda key: LinearField(6, 3, key=key), "multiple of `block_size`"),
    "scale": (lambda key: LinearField(8, 3, scale=float("nan"), key=key), "scale"),
    "depth 0": (lambda key: LogField(CDEField(4, 3, 8, 1, key=key), 0), "at least 1"),
    "depth 4": (lambda key: LogField(CDEField(4, 3, 8, 1, key=key), 4), "1, 2 or 3"),
    "too few levels": (
        lambda key: LogField(CDEField(4, 3, 8, 1, key=key), 2)(
            0.0, jnp.ones(4), lie_element(3, 1)[0]
        ),
        "as many levels",
    ),
    "other channels": (
        lambda key: LogField(CDEField(4, 3, 8, 1, key=key), 2)(
            0.0, jnp.ones(4), lie_element(2, 2)[0]
        ),
        "2 channels",
    ),
    "generator of other channels": (
        lambda key: LinearField(4, 3, key=key).generator(lie_element(2, 2)[0]), "2 channels"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name, getkey):
    make, message = BAD[name]
    with pytest.raises((ValueError, TypeCheckError), match=message):
        make(getkey())
