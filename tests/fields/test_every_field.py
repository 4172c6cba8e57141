"""Laws that every field of the package obeys: a field is `(t, y, args)`, whatever is inside."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from support.close import assert_tree_close, close_to_rounding, close_to_solver
from support.marks import slow_but

import ndekit as nk
from ndekit import fields
from ndekit.fields import MLP

RING = np.roll(np.eye(4), 1, axis=0) + 0.5 * np.roll(np.eye(4), -1, axis=0)
ENERGY = dict(out=(), final="linear", near_zero=False)


def separable(key):
    kinetic, potential = (MLP(2, 6, 1, key=k, **ENERGY) for k in jr.split(key))
    return fields.Hamiltonian(fields.SeparableEnergy(kinetic, potential))


def of_channels(field):
    """The field of a controlled equation along the control (t, t)."""
    return diffrax.ControlTerm(field, lambda t0, t1: (t1 - t0) * jnp.ones(2))


# What makes the field, and the shape of a sample; small, and away from the zero field.
FIELDS = {
    "MLP": (lambda k: MLP(3, 8, 2, time="concat", near_zero=False, key=k), (3,)),
    "GRUFlow": (lambda k: fields.GRUFlow(3, key=k), (3,)),
    "ConcatSquash": (lambda k: fields.ConcatSquash(3, 8, 2, near_zero=False, key=k), (3,)),
    "Augmented": (
        lambda k: fields.Augmented(MLP(4, 8, 1, near_zero=False, key=k), 2, learnt=True), (4,),
    ),
    "SecondOrder": (
        lambda k: fields.SecondOrder(MLP(4, 8, 1, out=2, near_zero=False, key=k)), (4,)
    ),
    "Gradient": (lambda k: fields.Gradient(MLP(3, 8, 2, key=k, **ENERGY)), (3,)),
    "Hamiltonian": (lambda k: fields.Hamiltonian(MLP(4, 8, 2, key=k, **ENERGY)), (4,)),
    "Hamiltonian-separable": (separable, (4,)),
    "Lagrangian": (
        lambda k: fields.Lagrangian(MLP(4, 8, 1, key=k, **ENERGY), inertia=3.0), (4,)
    ),
    "ConvField": (lambda k: fields.ConvField(2, 3, 1, near_zero=False, key=k), (2, 4, 4)),
    "UNet": (
        lambda k: fields.UNet(1, 2, 1, groups=1, near_zero=False, key=k), (1, 4, 4)
    ),
    "Preconditioned": (
        lambda k: fields.Preconditioned(
            MLP(3, 8, 2, time="concat", near_zero=False, key=k), nk.paths.VP(), 0.5
        ), (3,),
    ),
    "Graph": (lambda k: fields.Graph(RING, 2, 6, 1, key=k), (4, 2)),
}  # fmt: skip
# Fields that are matrices have laws of their own, in test_cde_fields.py and test_log_ode.py.
MATRICES = {"CDEField", "LinearField", "LogField"}
PARTS = {"Affine", "GatedAffine", "SeparableEnergy", "clip_weights", "lipswish"}
# Whose slope alone counts: the constant in each has no gradient.
CONSTANTS = {"Gradient": 1, "Hamiltonian": 1, "Hamiltonian-separable": 2, "Lagrangian": 1}
QUICK = ("ConcatSquash", "Hamiltonian", "Lagrangian", "Graph")


def made(name, key, dtype=jnp.float32):
    make, shape = FIELDS[name]
    field_key, state_key = jr.split(key)
    with jax.enable_x64(dtype == jnp.float64):
        field = make(field_key)
        y = 0.5 * jr.normal(state_key, (3, *shape), dtype)
    return field, y


def solve(field, y, t1=0.5):
    return nk.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Heun(), 0.0, t1, t1 / 4, y,
        stepsize_controller=diffrax.ConstantStepSize(),
    ).ys[-1]  # fmt: skip


def test_every_field_is_here():
    assert {name.split("-")[0] for name in FIELDS} | MATRICES | PARTS == set(fields.__all__)


@pytest.mark.parametrize("name", FIELDS)
def test_rates_have_the_state_s_shape_and_dtype(name, x64, getkey):
    for dtype in (jnp.float32, jnp.float64):
        field, ys = made(name, getkey(), dtype)
        rates = eqx.filter_eval_shape(field, jnp.array(0.3, dtype), ys[0], None)
        assert rates.shape == ys[0].shape and rates.dtype == dtype


@pytest.mark.parametrize("name", FIELDS)
def test_several_times_are_refused_or_of_no_account(name, getkey):
    """A field's own sizes among them: no time may be taken for one of a unit, or of a sample."""
    field, ys = made(name, getkey())
    rates = lambda t: jax.eval_shape(lambda t: field(t, ys, None), t)
    slope = jax.eval_shape(jax.jacfwd(lambda t: field(t, ys, None)), 0.3)
    assert slope.shape == ys.shape
    moves = np.any(jax.jit(jax.jacfwd(lambda t: field(t, ys, None)))(0.3))
    # Of one entry it is one time all the same.
    assert_tree_close(field(jnp.array([0.3]), ys, None), field(0.3, ys, None), rtol=1e-5, atol=1e-6)
    for shape in ((2,), (3,), (4,), (6,), (8,), (3, 2), ys.shape):
        try:
            assert rates(jnp.zeros(shape)).shape == ys.shape and not moves
        except ValueError as error:
            assert "one time, got shape" in str(error)


@pytest.mark.parametrize("name", ["MLP", "ConcatSquash", "Preconditioned"])
def test_samples_may_have_times_of_their_own(name, getkey):
    """As in flow matching, `field(t[:, None], y)`; with JAX's own promotion of ranks."""
    field, ys = made(name, getkey())
    ts = jnp.array([0.1, 0.5, 0.8])
    with jax.numpy_rank_promotion("allow"):
        together = field(ts[:, None], ys, None)
    apart = jax.vmap(lambda t, y: field(t, y, None))(ts, ys)
    assert_tree_close(together, apart, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FIELDS)
def test_leading_axes_are_samples(name, getkey):
    field, ys = made(name, getkey())
    lanes = jax.vmap(lambda y: field(0.3, y))
    one, together, apart = jax.jit(lambda y: (field(0.3, y[1]), field(0.3, y[None]), lanes(y)))(ys)
    assert close_to_rounding(together, apart[None])
    assert close_to_rounding(one, apart[1])
    assert np.abs(one).max() > 1e-3 and np.isfinite(apart).all()


@pytest.mark.parametrize("name", slow_but(QUICK, FIELDS))
def test_gradients_of_solves_are_finite_differences(name, x64, getkey):
    """Along one direction in parameters and first state at once; each lane of a vmap beside."""
    field, ys = made(name, getkey(), jnp.float64)
    arrays, static = eqx.partition((field, ys), eqx.is_inexact_array)
    if name == "Augmented":  # `start` is for `lift`, as below
        arrays = eqx.tree_at(lambda a: a[0].start, arrays, None)
        static = eqx.tree_at(lambda s: s[0].start, static, field.start, is_leaf=_is_none)
    leaves, tree = jax.tree.flatten(arrays)
    way = [jr.normal(getkey(), leaf.shape, leaf.dtype) for leaf in leaves]

    @eqx.filter_jit
    @eqx.debug.assert_max_traces(max_traces=1)
    def value_and_slope(leaves):
        def value(leaves):
            field, ys = eqx.combine(jax.tree.unflatten(tree, leaves), static)
            return jnp.sum(jax.vmap(lambda y: solve(field, y))(ys) ** 2)

        return jax.value_and_grad(value)(leaves)

    _, grads = value_and_slope(leaves)
    found = sum(jnp.vdot(g, w) for g, w in zip(grads, way, strict=True))
    h = 1e-5
    ends = [
        value_and_slope([x + s * h * w for x, w in zip(leaves, way, strict=True)])[0]
        for s in (-1, 1)
    ]
    assert_tree_close(found, (ends[1] - ends[0]) / (2 * h), rtol=1e-6)
    without = sum(not np.any(g) for g in grads)
    assert without == CONSTANTS.get(name, 0), "a parameter without a gradient"


def _is_none(node):
    return node is None


@pytest.mark.parametrize("name", slow_but(("MLP",), FIELDS))
def test_adaptive_solves_in_lanes_are_those_one_by_one(name, x64, getkey):
    field, ys = made(name, getkey(), jnp.float64)  # rounding does not decide about steps
    solve = lambda y: nk.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, None, y,
        stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
    ).ys[-1]  # fmt: skip
    one = jax.jit(solve)
    assert close_to_solver(jax.jit(jax.vmap(solve))(ys), jnp.stack([one(y) for y in ys]), 1e-6)
