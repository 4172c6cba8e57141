"""Adaptive steps along noise that must also meet times of the user's: `ClipStepSizeController`."""

import diffrax
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from diffrax import ClipStepSizeController
from support.close import assert_tree_close
from support.marks import slow_but

import ndekit as nk

JUMP, SLOW = 0.4, pytest.mark.slow


def pid(tolerance=1e-3):
    return diffrax.PIDController(rtol=tolerance, atol=tolerance)


def rate_at(t, args):
    return jnp.where(t < JUMP, args, -3 * args)


def solve(controller, *, key=None, t0=0.0, t1=1.0, args=1.0, **options):
    """Growth at a rate that jumps, with noise of its own size: dy = r(t) y dt + y / 2 o dW."""
    path = nk.BrownianMotion((2,), jr.key(0) if key is None else key)
    drift = diffrax.ODETerm(lambda t, y, args: rate_at(t, args) * y)
    noise = diffrax.ControlTerm(lambda t, y, args: jnp.diag(y / 2), path)
    options = dict(max_steps=4096, solver=diffrax.Heun()) | options
    dt0 = 0.1 if t1 > t0 else -0.1
    return nk.diffeqsolve(
        diffrax.MultiTerm(drift, noise), t0=t0, t1=t1, dt0=dt0, y0=jnp.ones(2), args=args,
        stepsize_controller=controller, **options,
    )  # fmt: skip


def neighbours(t):
    t = jnp.asarray(t)
    return eqxi.prevbefore(t), eqxi.nextafter(t)


@pytest.mark.parametrize("backwards", [False, pytest.param(True, marks=SLOW)])
def test_a_solve_goes_round_a_jump_on_the_path_of_its_cells(backwards, x64):
    t0, t1 = (1.0, 0.0) if backwards else (0.0, 1.0)
    key, saveat = jr.key(1), diffrax.SaveAt(steps=True)
    around = solve(
        ClipStepSizeController(pid(), jump_ts=[JUMP]), key=key, t0=t0, t1=t1, saveat=saveat
    )
    before, behind = neighbours(JUMP)
    number = int(around.stats["num_accepted_steps"])
    assert bool(jnp.any(around.ts[:number] == (before if backwards else behind)))
    ends = [jnp.asarray(0.0), before, behind, jnp.asarray(1.0)]
    if backwards:
        # The solve's time, and so its cells, are reflected.
        ends = [-end for end in reversed(ends)]
    w = nk.BrownianMotion((2,), key, ts=jnp.stack(ends)).evaluate(ends[0], ends[-1])
    grown = JUMP - 3 * (1 - JUMP)
    exact = jnp.exp(-grown - w / 2) if backwards else jnp.exp(grown + w / 2)
    assert_tree_close(around.ys[number - 1], exact, rtol=5e-3)


def test_the_step_behind_a_jump_is_told_of_it():
    controller = ClipStepSizeController(pid(10.0), jump_ts=[JUMP])
    ts = solve(controller, saveat=diffrax.SaveAt(steps=True)).ts
    (index,) = np.flatnonzero(np.asarray(ts) == np.asarray(neighbours(JUMP)[1]))
    saveat = diffrax.SaveAt(made_jump=True, t1=True)
    told = [
        solve(controller, saveat=saveat, max_steps=int(index) + more, throw=False).made_jump
        for more in range(3)
    ]
    assert [bool(x) for x in told] == [False, True, False]


@pytest.mark.parametrize(
    "step_ts",
    [pytest.param([0.31, 0.62], marks=SLOW), [-1.0, 0.0, 0.31, 0.31, 0.62, 1.0, 7.0]],
)
def test_times_to_step_to_are_times_to_save_at(step_ts, x64):
    clipped = solve(
        ClipStepSizeController(pid(), step_ts=step_ts), saveat=diffrax.SaveAt(steps=True)
    )
    saved = solve(pid(), saveat=diffrax.SaveAt(ts=[0.31, 0.62, 1.0]))
    for t, y in zip(saved.ts, saved.ys, strict=True):
        (index,) = np.flatnonzero(np.asarray(clipped.ts) == float(t))
        assert_tree_close(clipped.ys[index], y, rtol=1e-14)
    assert clipped.stats["num_steps"] == saved.stats["num_steps"]


@SLOW
def test_the_walk_comes_back_to_rejected_times_anyway(x64):
    remembers = ClipStepSizeController(pid(), store_rejected_steps=100)
    saveat = diffrax.SaveAt(steps=True)
    assert_tree_close(
        solve(remembers, saveat=saveat).ys, solve(pid(), saveat=saveat).ys, rtol=1e-14
    )


class TakesAll(ClipStepSizeController):
    """A controller of a user's own."""

    def adapt_step_size(self, *args):
        _, *rest = super().adapt_step_size(*args)
        return True, args[1], *rest[1:]


def test_a_user_s_own_clipping_controller_has_its_way():
    controller = TakesAll(pid(1e-5), step_ts=[0.31])
    sol = solve(controller, throw=False, max_steps=64)
    assert sol.stats["num_rejected_steps"] == 0
    assert solve(CLIPS["steps"](pid(1e-2))).stats["num_rejected_steps"] > 0


CLIPS = {
    "steps": lambda inner: ClipStepSizeController(inner, step_ts=[0.31, 0.62]),
    "jumps": lambda inner: ClipStepSizeController(inner, jump_ts=[0.2, JUMP]),
    "twice": lambda inner: ClipStepSizeController(
        ClipStepSizeController(inner, step_ts=[0.31], store_rejected_steps=9), jump_ts=[JUMP]
    ),
    "nowhere": lambda inner: ClipStepSizeController(inner, step_ts=[], jump_ts=[]),
}


@pytest.mark.parametrize("name", slow_but(["twice"], CLIPS))
@pytest.mark.parametrize(
    "adjoint", [pytest.param(nk.ReplayAdjoint(), marks=SLOW), nk.ReplayAdjoint(checkpoints=3)]
)
def test_gradients_equal_finite_differences(name, adjoint, x64):
    keys = jr.split(jr.key(3), 2)
    last = jax.jit(
        lambda rate: jnp.sum(
            jax.vmap(
                lambda key: solve(CLIPS[name](pid(1e-2)), key=key, args=rate, adjoint=adjoint).ys
            )(keys)
        )
    )
    slope = (last(1 + 1e-6) - last(1 - 1e-6)) / 2e-6
    assert_tree_close(jax.grad(last)(1.0), slope, rtol=1e-6)


@SLOW
def test_steps_to_given_times_are_undone(x64):
    def gradient(adjoint):
        last = lambda rate: jnp.sum(
            solve(
                CLIPS["steps"](pid(1e-2)), args=rate, adjoint=adjoint,
                solver=diffrax.ReversibleHeun(),
            ).ys
        )  # fmt: skip
        return jax.grad(last)(1.0)

    assert_tree_close(gradient(nk.ReversibleAdjoint()), gradient(nk.ReplayAdjoint()), rtol=1e-9)


@pytest.mark.parametrize(
    "at", slow_but(["just before t0"], ["t0", "t1", "just before t0", "beyond"])
)
@pytest.mark.parametrize("bits", slow_but([32], [32, 64]))
def test_jumps_at_the_ends_of_a_solve(at, bits, x64):
    dtype = jnp.float32 if bits == 32 else jnp.float64
    t0, t1 = jnp.asarray(0.25, dtype), jnp.asarray(1.0, dtype)
    jump = {"t0": t0, "t1": t1, "just before t0": eqxi.nextafter(t0), "beyond": t1 + 1}[at]
    controller = ClipStepSizeController(pid(1e-2), jump_ts=jump[None])
    path = nk.BrownianMotion(jax.ShapeDtypeStruct((), dtype), jr.key(0))
    drift = diffrax.ODETerm(lambda t, y, args: jnp.where(t < jump, y, -y))
    noise = diffrax.ControlTerm(lambda t, y, args: jnp.ones_like(y) / 4, path)
    sol = nk.diffeqsolve(
        diffrax.MultiTerm(drift, noise), diffrax.Heun(), t0, t1, jnp.asarray(0.1, dtype),
        jnp.asarray(1.0, dtype), stepsize_controller=controller, max_steps=128,
        saveat=diffrax.SaveAt(t1=True, ts=jnp.stack([t0, t1])),
    )  # fmt: skip
    assert sol.result == diffrax.RESULTS.successful
    assert bool(jnp.all(jnp.isfinite(sol.ys)))
    grows = at in ("t1", "beyond")
    assert bool(sol.ys[-1] > 1.3) == grows
    assert_tree_close(sol.ys[-2], sol.ys[-1], rtol=1e-6)


def test_a_solve_goes_on_with_the_state_of_its_controller():
    controller = CLIPS["twice"](pid())
    saveat = diffrax.SaveAt(t1=True, controller_state=True, solver_state=True, made_jump=True)
    first = solve(controller, t1=0.5, saveat=saveat)
    second = solve(
        controller, t0=0.5, controller_state=first.controller_state,
        solver_state=first.solver_state, made_jump=first.made_jump,
    )  # fmt: skip
    assert second.result == diffrax.RESULTS.successful
    like = lambda tree: jax.tree.map(jnp.shape, tree)
    t0, y0 = jnp.asarray(0.0), jnp.ones(2)
    rate = lambda terms, t, y, args: y
    _, begun = controller.init(None, t0, t0 + 1, y0, t0 + 0.1, None, rate, 1.0)
    assert like(first.controller_state) == like(begun)


@pytest.mark.parametrize("which", ["step_ts", "jump_ts"])
def test_a_derivative_by_given_times_is_refused(which):
    last = lambda t: jnp.sum(solve(ClipStepSizeController(pid(), **{which: t[None]})).ys)
    with pytest.raises(ValueError, match="nowhere differentiable"):
        jax.grad(last)(jnp.asarray(JUMP))
