"""Fields of motion against closed forms, and the energy that they keep."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ellipj, ellipk
from support.close import assert_tree_close, close_to_rounding
from support.marks import slow_but

import ndekit as nk
from ndekit.fields import MLP, Gradient, Hamiltonian, Lagrangian, SecondOrder, SeparableEnergy

TS = jnp.linspace(0.0, 20.0, 41)
ACCURATE = diffrax.PIDController(rtol=1e-10, atol=1e-10)


def kinetic(t, p, args):
    return 0.5 * jnp.sum(p**2)


def potential(t, q, args):
    return -jnp.sum(jnp.cos(q))


PENDULUM = {
    "Hamiltonian": Hamiltonian(SeparableEnergy(kinetic, potential)),
    "Lagrangian": Lagrangian(lambda t, y, args: 0.5 * y[1] ** 2 + jnp.cos(y[0])),
    "inertia": Lagrangian(lambda t, y, args: jnp.cos(y[0]), inertia=1.0),
    "SecondOrder": SecondOrder(lambda t, y, args: -jnp.sin(y[..., :1])),
}


def solved(field, y0, ts, controller=ACCURATE):
    return nk.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Dopri8(), ts[0], ts[-1], None, y0,
        saveat=diffrax.SaveAt(ts=ts), stepsize_controller=controller, max_steps=100_000,
    ).ys  # fmt: skip


@pytest.mark.parametrize("name", slow_but(("Hamiltonian", "Lagrangian"), PENDULUM))
def test_pendulum_swings_as_jacobi_says(name, x64):
    """From rest at angle a: sin(q / 2) = k sn(K - t), k = sin(a / 2)."""
    angle, ts = 2.0, TS.astype(jnp.float64)
    k = np.sin(angle / 2)
    sn, cn, *_ = ellipj(ellipk(k**2) - np.asarray(ts), k**2)
    exact = np.stack([2 * np.arcsin(k * sn), -2 * k * cn], axis=1)
    ys = solved(PENDULUM[name], jnp.array([angle, 0.0]), ts)
    assert_tree_close(ys, exact, rtol=0, atol=1e-7)


@given(seed=st.integers(0, 1000))
def test_all_pendulums_have_the_same_rates(seed):
    y = 3 * jr.normal(jr.key(seed), (4, 2))
    q, v = np.asarray(y).T
    for rates in _rates_of_pendulums(y):
        assert close_to_rounding(rates, np.stack([v, -np.sin(q)], axis=1))


@jax.jit
def _rates_of_pendulums(y):
    return [field(0.0, y) for field in PENDULUM.values()]


def test_a_symplectic_solver_keeps_the_energy_for_ever_and_tsit5_loses_it():
    field, times = PENDULUM["Hamiltonian"], jnp.linspace(0.0, 1000.0, 1001)
    start = jnp.array([2.0]), jnp.array([0.0])
    options = dict(
        t0=0.0, t1=times[-1], saveat=diffrax.SaveAt(ts=times), max_steps=30_000,
        stepsize_controller=diffrax.ConstantStepSize(), adjoint=diffrax.ForwardMode(),
    )  # fmt: skip
    split = nk.diffeqsolve(
        field.terms(), diffrax.SemiImplicitEuler(), dt0=0.05, y0=start, **options
    )
    whole = nk.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), dt0=0.5, y0=jnp.concatenate(start), **options
    )
    energy = jax.vmap(lambda y: field.energy(0.0, y))
    off = {
        "symplectic": energy(jnp.concatenate(split.ys, axis=1)) - np.cos(np.pi - 2.0),
        "Tsit5": energy(whole.ys) - np.cos(np.pi - 2.0),
    }
    early = {name: float(np.abs(o[:100]).max()) for name, o in off.items()}
    late = {name: float(np.abs(o[-100:]).max()) for name, o in off.items()}
    assert late["symplectic"] < 1.1 * early["symplectic"] < 0.1
    assert late["Tsit5"] > 5 * early["Tsit5"]


def test_terms_are_the_field_in_halves(getkey):
    networks = [MLP(3, 8, 1, out=(), final="linear", near_zero=False, key=getkey()) for _ in "TV"]
    field = Hamiltonian(SeparableEnergy(*networks))
    y = jr.normal(getkey(), (6,))
    of_q, of_p = field.terms()
    halves = of_q.vf(0.3, y[3:], None), of_p.vf(0.3, y[:3], None)
    assert close_to_rounding(jnp.concatenate(halves), field(0.3, y))


@pytest.mark.slow
def test_gradients_go_through_the_symplectic_solver(x64, getkey):
    options = dict(out=(), final="linear", near_zero=False)
    networks = [MLP(1, 8, 1, **options, key=getkey()) for _ in "TV"]
    arrays, static = eqx.partition(networks, eqx.is_inexact_array)

    def end(arrays):
        terms = Hamiltonian(SeparableEnergy(*eqx.combine(arrays, static))).terms()
        sol = nk.diffeqsolve(
            terms, diffrax.SemiImplicitEuler(), 0.0, 1.0, 0.1,
            (jnp.array([1.0]), jnp.array([0.5])),
            stepsize_controller=diffrax.ConstantStepSize(),
        )  # fmt: skip
        return sol.ys[0][-1, 0]

    along = lambda h: jax.tree.map(lambda x: (1 + h) * x, arrays)
    slope = jax.jit(jax.grad(lambda h: end(along(h))))(0.0)
    ends = [jax.jit(lambda h: end(along(h)))(h) for h in (-1e-5, 1e-5)]
    assert abs(slope) > 1e-3
    assert_tree_close(slope, (ends[1] - ends[0]) / 2e-5, rtol=1e-6)


def test_a_learnt_energy_is_kept_along_its_own_solution(x64, getkey):
    field = Hamiltonian(MLP(4, 16, 2, out=(), final="linear", near_zero=False, key=getkey()))
    y0 = jr.normal(getkey(), (4,))
    ys = solved(field, y0, jnp.linspace(0.0, 5.0, 6))
    energies = jax.vmap(lambda y: field.energy(0.0, y))(ys)
    assert np.abs(ys[-1] - y0).max() > 0.1
    assert_tree_close(energies, np.full(6, energies[0]), rtol=0, atol=1e-8)


@pytest.mark.slow
def test_lagrangian_in_polar_coordinates_is_a_straight_line(x64):
    field = Lagrangian(lambda t, y, args: 0.5 * (y[2] ** 2 + (y[0] * y[3]) ** 2))
    ts = jnp.linspace(0.0, 3.0, 7)
    ys = solved(field, jnp.array([1.0, 0.0, 0.5, 2.0]), ts)  # at (1, 0) with velocity (0.5, 2)
    x, y = ys[:, 0] * np.cos(ys[:, 1]), ys[:, 0] * np.sin(ys[:, 1])
    assert_tree_close(np.stack([x, y]), np.stack([1 + 0.5 * ts, 2 * ts]), rtol=0, atol=1e-8)


def test_lagrangian_of_the_time_has_friction(x64):
    """Caldirola and Kanai: L = exp(g t) (v^2 - q^2) / 2 is a spring with friction g."""
    field = Lagrangian(lambda t, y, args: jnp.exp(args * t) * (y[1] ** 2 - y[0] ** 2) / 2)
    y = jnp.array([0.7, -0.4])
    for t in (0, 1.5, jnp.array(2.0)):
        assert close_to_rounding(jax.jit(field)(t, y, 0.3), np.array([-0.4, -0.7 + 0.3 * 0.4]))


def test_lagrangian_solves_with_a_full_mass_matrix(x64, getkey):
    """The double pendulum, against the formula in every textbook."""

    def lagrangian(t, y, args):
        a, b, u, w = y
        return u**2 + 0.5 * w**2 + u * w * jnp.cos(a - b) + 9.8 * (2 * jnp.cos(a) + jnp.cos(b))

    y = jr.normal(getkey(), (4,))
    a, b, u, w = np.asarray(y)
    s, c = np.sin(a - b), np.cos(a - b)
    mass = np.array([[2, c], [c, 1]])
    force = np.array([-(w**2) * s - 19.6 * np.sin(a), u**2 * s - 9.8 * np.sin(b)])
    exact = np.concatenate([[u, w], np.linalg.solve(mass, force)])
    assert close_to_rounding(jax.jit(Lagrangian(lagrangian))(0.0, y), exact)


@pytest.mark.parametrize("size", [1, 2])
def test_a_singular_mass_is_not_finite_and_ends_the_solve(size):
    """By division, and by a factorisation."""
    field = Lagrangian(lambda t, y, args: y[0] * y[-1] - y[0] ** 2)
    y = jnp.linspace(0.5, 1.0, 2 * size)
    assert not np.any(np.isfinite(jax.jit(field)(0.0, y)[size:]))
    sol = nk.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, 0.1, y, throw=False,
        stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3),
    )  # fmt: skip
    assert sol.result != diffrax.RESULTS.successful


def test_second_order_lifts_with_a_velocity_and_drops_it(getkey):
    q = jr.normal(getkey(), (3, 2))
    resting = SecondOrder(lambda t, y, args: y[..., :2])
    moving = SecondOrder(resting.acceleration, velocity=lambda q: 2 * q)
    assert np.array_equal(resting.lift(q), np.concatenate([q, 0 * q], axis=1))
    assert np.array_equal(moving.lift(q), np.concatenate([q, 2 * q], axis=1))
    assert np.array_equal(moving.drop(moving.lift(q)), q)
    assert np.array_equal(moving(0.0, moving.lift(q)), np.concatenate([2 * q, q], axis=1))


@pytest.mark.parametrize("ascend", [False, True])
def test_a_gradient_goes_one_way_and_never_around(ascend, getkey):
    height = MLP(3, 8, 2, out=(), final="linear", near_zero=False, key=getkey())
    field, ys = Gradient(height, ascend=ascend), jr.normal(getkey(), (20, 3))
    jacobians = jax.jit(jax.vmap(jax.jacfwd(lambda y: field(0.0, y))))(ys)
    assert close_to_rounding(jacobians, jacobians.mT) and np.any(jacobians != 0)
    climbing = lambda y: jnp.sum(jax.grad(height, 1)(0.0, y, None) * field(0.0, y))
    climbed = jax.jit(jax.vmap(climbing))(ys)
    assert np.all(climbed > 0 if ascend else climbed < 0)


@pytest.mark.slow
def test_the_potential_falls_along_a_solution_as_the_square_of_its_slope(x64, getkey):
    height = MLP(2, 16, 2, out=(), final="linear", near_zero=False, key=getkey())
    field, ts = Gradient(height), jnp.linspace(0.0, 3.0, 301)
    ys = solved(field, jr.normal(getkey(), (2,)), ts)
    heights = jax.vmap(lambda y: height(0.0, y))(ys)
    assert np.all(np.diff(heights) < 0)
    speeds = jnp.sum(jax.vmap(lambda y: field(0.0, y))(ys) ** 2, axis=1)
    fallen = np.trapezoid(speeds, ts)
    assert_tree_close(heights[0] - heights[-1], fallen, rtol=1e-4)


def scalar(t, y, args):
    return jnp.sum(y**2)


BAD = {
    "odd state": (lambda: Hamiltonian(scalar)(0.0, jnp.ones(3)), r"two halves.*\(3,\)"),
    "odd motion": (lambda: SecondOrder(scalar)(0.0, jnp.ones(3)), "two halves"),
    "odd Lagrangian": (lambda: Lagrangian(scalar)(0.0, jnp.ones(5)), "two halves"),
    "two energies": (lambda: Hamiltonian(lambda t, y, a: y)(0.0, jnp.ones(2)), r"energy.*\(2,\)"),
    "no potential": (lambda: Gradient(lambda t, y, a: y)(0.0, jnp.ones(2)), "potential must be"),
    "no action": (lambda: Lagrangian(lambda t, y, a: y)(0.0, jnp.ones(2)), "Lagrangian must be"),
    "other acceleration": (
        lambda: SecondOrder(lambda t, y, a: y)(0.0, jnp.ones(4)), r"\(2,\), but has \(4,\)"
    ),
    "no parts": (lambda: Hamiltonian(scalar).terms(), "SeparableEnergy"),
    "no state": (lambda: Gradient(scalar)(0.0, jnp.array(1.0)), "at least 1 axes"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name, types_unchecked):
    act, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        act()
