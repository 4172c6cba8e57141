"""`jax.export`: no callback to the host stands in its way."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import ndekit as nk


def last(y0, rate, ts=None):
    sol = nk.diffeqsolve(
        diffrax.ODETerm(lambda t, y, rate: -rate * y), diffrax.Tsit5(), 0.0, 1.0, 0.1, y0, rate,
        stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-6), throw=False,
        saveat=diffrax.SaveAt(t1=True) if ts is None else diffrax.SaveAt(ts=ts),
        costs={"steps": nk.StepCount()},
    )  # fmt: skip
    return jnp.sum(sol.ys) + sol.costs["steps"]


Y0, RATE, TS = np.ones(3, np.float32), np.float32(2), np.linspace(0, 1, 5, dtype=np.float32)
FUNCTIONS = {
    "value": (last, (Y0, RATE)),
    "gradient": (jax.grad(last, argnums=(0, 1)), (Y0, RATE)),
    "gradient in lanes": (
        jax.vmap(jax.grad(last, argnums=(0, 1)), in_axes=(0, None)), (np.ones((4, 3), "f"), RATE)
    ),
    "times not known": (last, (Y0, RATE, TS)),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_exported_solve_gives_what_the_solve_gives(name):
    function, args = FUNCTIONS[name]
    exported = export.export(jax.jit(function))(*args)
    assert not exported.ordered_effects and not exported.unordered_effects
    assert "callback" not in exported.mlir_module()
    for ours, wanted in zip(
        jax.tree.leaves(exported.call(*args)),
        jax.tree.leaves(jax.jit(function)(*args)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, wanted, rtol=1e-6)


def test_times_out_of_order_save_nothing_where_nothing_is_thrown():
    ts = jnp.array([0.5, 0.2])
    solve = jax.jit(
        lambda ts: nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 1.0, 0.1, jnp.ones(1),
            saveat=diffrax.SaveAt(ts=ts), throw=False,
        ).ys
    )  # fmt: skip
    assert not np.any(np.isfinite(solve(ts)))
