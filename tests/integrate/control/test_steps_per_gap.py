"""Steps between the user's times: where they end, and their derivatives."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ndekit as nk

pytestmark = pytest.mark.usefixtures("types_unchecked", "x64")


def solve(ts, number, t0=0.0, t1=1.0, solver=None, **options):
    field = lambda t, y, args: jnp.sin(3 * t) * y
    return nk.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Heun() if solver is None else solver, t0, t1, None,
        jnp.ones(1), stepsize_controller=nk.StepsPerGap(ts, number), **options,
    )  # fmt: skip


@pytest.mark.parametrize("number", (1, 3))
@pytest.mark.parametrize("sign", (1, -1))
def test_gaps_are_divided_evenly(number, sign):
    """Times before, at and behind the ends, and padding, have no part; of equal ones, one."""
    ts = sign * np.array([-0.5, 0.0, 0.1, 0.4, 0.4, 1.0, 1.7, np.inf])
    sol = solve(ts, number, 0.0, sign * 1.0, saveat=diffrax.SaveAt(steps=True))
    knots = np.array([0.0, 0.1, 0.4, 1.0])
    parts = [np.linspace(a, b, number + 1)[1:] for a, b in zip(knots[:-1], knots[1:], strict=True)]
    found = np.asarray(sol.ts)[np.isfinite(sol.ts)]
    np.testing.assert_allclose(found, sign * np.concatenate(parts), rtol=1e-14)
    assert found[-1] == sign


@pytest.mark.parametrize("solver", (diffrax.Tsit5(), diffrax.ReversibleHeun()))
def test_derivative_by_the_times(solver):
    """That of the same steps by `StepTo`."""
    ts = jnp.array([0.1, 0.4])

    def by_steps(ts):
        knots = jnp.concatenate([jnp.zeros(1), ts, jnp.ones(1)])
        grid = [knots[:1]]
        for a, b in zip(knots[:-1], knots[1:], strict=True):
            grid.append(a + (b - a) * jnp.array([0.5, 1.0]))
        field = lambda t, y, args: jnp.sin(3 * t) * y
        return nk.diffeqsolve(
            diffrax.ODETerm(field), solver, 0.0, 1.0, None, jnp.ones(1),
            stepsize_controller=diffrax.StepTo(jnp.concatenate(grid)),
        ).ys[-1, 0]  # fmt: skip

    ours = lambda ts: solve(ts, 2, solver=solver).ys[-1, 0]
    np.testing.assert_allclose(ours(ts), by_steps(ts), rtol=1e-13)
    np.testing.assert_allclose(jax.grad(ours)(ts), jax.grad(by_steps)(ts), rtol=1e-9, atol=1e-14)


def test_each_lane_has_its_own():
    ts = jnp.array([[0.1, 0.4], [0.9, np.inf]])
    sols = jax.vmap(lambda ts: solve(ts, 2, saveat=diffrax.SaveAt(steps=True)))(ts)
    np.testing.assert_array_equal(sols.stats["num_steps"], [6, 4])
    np.testing.assert_allclose(sols.ts[1, :4], [0.45, 0.9, 0.95, 1.0], rtol=1e-14)


def test_resets_between_them_cut_steps_and_change_no_other():
    resets = nk.Resets(jnp.array([0.3]), lambda i, t, y, args: 2 * y)
    sol = solve(jnp.array([0.4]), 1, resets=resets, saveat=diffrax.SaveAt(steps=True))
    np.testing.assert_allclose(sol.ts[:3], [0.3, 0.4, 1.0], rtol=1e-14)
    assert sol.stats["num_steps"] == 3


def test_bad_input():
    with pytest.raises(ValueError, match="number"):
        nk.StepsPerGap(jnp.ones(2), 0)
    with pytest.raises(ValueError, match="axis of times"):
        nk.StepsPerGap(1.0)
    with pytest.raises(ValueError, match="`dt0` must be `None`"):
        nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: y), diffrax.Heun(), 0.0, 1.0, 0.1, jnp.ones(1),
            stepsize_controller=nk.StepsPerGap(jnp.ones(1) * 0.5),
        )  # fmt: skip
