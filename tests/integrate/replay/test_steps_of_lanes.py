"""Lanes that reject attempts at different times are replayed each by its own steps."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import ndekit as nk

LANES, STAGES = 7, 6
STIFFNESS = jnp.linspace(1.0, 30.0, LANES)


def network(t, y, args):
    weight, stiffness = args
    return stiffness * jnp.tanh(weight @ y + 0.3) * jnp.sin(4 * t)


def solve(weight, stiffness, field=network, **options):
    return nk.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 2.0, 0.5, jnp.array([1.0, -0.5, 0.2]),
        (weight, stiffness), stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3),
        max_steps=512, **options,
    )  # fmt: skip


def weights():
    return jr.normal(jr.key(0), (3, 3))


LOSSES = {
    "end": (dict(), lambda sol: jnp.sum(sol.ys**2)),
    "times": (
        dict(saveat=diffrax.SaveAt(ts=jnp.linspace(0.0, 2.0, 9))),
        lambda sol: jnp.sum(jnp.sin(sol.ys)),
    ),
    "steps": (
        dict(saveat=diffrax.SaveAt(steps=True)),
        lambda sol: jnp.sum(jnp.where(jnp.isfinite(sol.ys), sol.ys, 0) ** 2),
    ),
    "dense": (dict(saveat=diffrax.SaveAt(dense=True)), lambda sol: jnp.sum(sol.evaluate(1.3))),
    "costs": (
        dict(costs={"error": nk.StepError(), "local": nk.StepStiffness()}),
        lambda sol: jnp.sum(sol.ys) + sum(sol.costs.values()),
    ),
    "resets": (
        dict(resets=nk.Resets(jnp.array([0.4, 1.1]), lambda i, t, y, args: jnp.cos(y))),
        lambda sol: jnp.sum(sol.ys) + jnp.sum(sol.resets.before**2),
    ),
    "kept": (dict(adjoint=nk.ReplayAdjoint(keep="stages")), lambda sol: jnp.sum(sol.ys**2)),
}


@pytest.mark.parametrize("what", LOSSES)
def test_gradient_is_that_of_each_lane_alone(what):
    options, loss = LOSSES[what]
    one = lambda weight, stiffness: loss(solve(weight, stiffness, **options))
    together = jax.jit(jax.grad(lambda w, s: jnp.sum(jax.vmap(one, (None, 0))(w, s)), (0, 1)))
    alone = jax.jit(jax.grad(one, (0, 1)))
    each = [alone(weights(), stiffness) for stiffness in STIFFNESS]
    of_weight, of_stiffness = together(weights(), STIFFNESS)
    pairs = (of_weight, sum(g for g, _ in each)), (of_stiffness, [g for _, g in each])
    for found, wanted in pairs:
        largest = np.max(np.abs(np.asarray(wanted)))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * largest)


def test_turns_back_are_the_steps_of_the_slowest_lane():
    counts = []

    @jax.custom_vjp
    def noted(y):
        return y

    def pull(_, ct):
        jax.debug.callback(lambda ct: counts.append(1), ct[0])
        return (ct,)

    noted.defvjp(lambda y: (y, None), pull)
    field = lambda t, y, args: noted(network(t, y, args))
    ends = lambda w, s: jax.vmap(lambda s: solve(w, s, field).ys)(s)
    sol = jax.jit(jax.vmap(lambda s: solve(weights(), s).stats))(STIFFNESS)
    assert jnp.max(sol["num_rejected_steps"]) > 3  # or this test shows nothing
    gradient = eqx.filter_jit(jax.grad(lambda w: jnp.sum(ends(w, STIFFNESS) ** 2)))
    jax.block_until_ready(gradient(weights()))
    jax.effects_barrier()
    # The very first stage is pulled by itself.
    most = jnp.max(sol["num_accepted_steps"])
    assert len(counts) == (most * STAGES + 1) * LANES
