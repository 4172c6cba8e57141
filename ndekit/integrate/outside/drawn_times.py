"""Costs that are read beside a solve: of states at drawn times, and of a step made once more."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from diffrax import SaveAt, SubSaveAt
from jax import lax

from ... import tree
from ...shapes import State
from ..adjoint import ReplayAdjoint
from ..costs.contracts import AbstractPlacement, AbstractTrajectoryCost, Placements
from ..costs.one_step import Beginning, BeginningOfStep, OneStep
from ..solution import Solution
from ..times import direction_of, promote_times
from .step_made_again import Solve, StepAtTime, cost_of_step

Costs = Mapping[str, AbstractPlacement | AbstractTrajectoryCost]


def loses_steps(adjoint: Any) -> bool:
    """Whether derivatives reach what is saved and nothing else of the solve."""
    return isinstance(adjoint, diffrax.BacksolveAdjoint)


def read_beside(costs: Costs, adjoint: Any) -> dict[str, Any]:
    """Those of the costs that are not read while the steps are made."""
    in_loop = lambda cost: (
        (not loses_steps(adjoint) and cost.is_read_in_loop)
        if isinstance(cost, OneStep)
        else isinstance(cost, AbstractPlacement)
    )
    return {name: cost for name, cost in costs.items() if not in_loop(cost)}


def solve_and_look(
    solve: Callable[..., Solution], problem: tuple, costs: Costs, *, adjoint: Any, saveat: SaveAt,
    key: Any, **options: Any,
) -> Solution:  # fmt: skip
    """Solve by `solve`, `ndekit.diffeqsolve` for costs read in the loop, and read the others."""
    terms, solver, t0, t1, _, _, args = problem
    about = Solve.of(terms, solver, t0, t1, args, options["stepsize_controller"], key)
    beside = read_beside(costs, adjoint)
    in_loop: Placements = {
        name: cost
        for name, cost in costs.items()
        if name not in beside and isinstance(cost, AbstractPlacement)
    }
    again: Placements = {
        name: BeginningOfStep(cost.cost, cost.sample)
        for name, cost in beside.items()
        if isinstance(cost, OneStep) and not cost.draws_time
    }
    looks = {
        name: StepAtTime.drawn(about, cost) if isinstance(cost, OneStep) else cost
        for name, cost in beside.items()
        if name not in again
    }
    if loses_steps(adjoint) and again:
        for name, begin in _found_before(solve, problem, again, key, options).items():
            looks[name] = StepAtTime(about, beside[name], begin.t0, begin.t1)
        again = {}
    times = _drawn_times(looks, t0, t1, key)
    wider, narrow = _with_times(saveat, times, t0, t1, adjoint)
    sol = solve(
        *problem, saveat=wider, adjoint=adjoint, key=key, costs={**in_loop, **again}, **options
    )
    sol, states = narrow(sol)
    found = dict(sol.costs)
    for name in again:
        found[name] = cost_of_step(about, beside[name], found[name])
    for name, look in looks.items():
        found[name] = look.of_states(times[name], states[name])
    return dataclasses.replace(sol, costs={name: found[name] for name in costs})


def _found_before(
    solve: Callable, problem: tuple, again: Placements, key: Any, options: dict[str, Any]
) -> dict[str, Beginning]:
    """Where the drawn steps begin, by a solve that is not differentiated."""
    terms, solver, *rest = problem
    dynamic, fixed = eqx.partition((terms, rest), eqx.is_inexact_array)
    terms, rest = eqx.combine(lax.stop_gradient(dynamic), fixed)
    sol = solve(terms, solver, *rest, adjoint=ReplayAdjoint(), key=key, costs=again, **options)
    return lax.stop_gradient(sol.costs)


def _drawn_times(looks: Mapping[str, Any], t0: Any, t1: Any, key: Any) -> dict[str, Any]:
    own_key = None if key is None else jr.fold_in(key, 2)
    return {name: jnp.asarray(look.times(t0, t1, key=own_key)) for name, look in looks.items()}


def _with_times(
    saveat: SaveAt, times: dict[str, Any], t0: Any, t1: Any, adjoint: Any
) -> tuple[SaveAt, Callable]:
    """A `SaveAt` that saves at these times too, and how to take its solution apart."""
    if not times:
        return saveat, lambda sol: (sol, {})
    t0, t1 = promote_times(t0, t1)
    direction = direction_of(t0, t1)
    together = jnp.concatenate([ts.astype(t0.dtype) for ts in times.values()])
    order = jnp.argsort(together * direction)
    ends = (jnp.minimum(t0, t1), jnp.maximum(t0, t1))
    together = jnp.clip(together, *ends)
    back = jnp.argsort(order)

    def shared_out(ys: State) -> dict[str, State]:
        """The states saved at `together[order]`, by the names of the costs."""
        states, first = {}, 0
        for name, ts in times.items():
            own = back[first : first + len(ts)]
            states[name] = tree.rows(ys, own)
            first += len(ts)
        return states

    if loses_steps(adjoint):
        return _merged(saveat, together[order], direction, shared_out)
    subs = {"asked": saveat.subs, "looked": SubSaveAt(ts=together[order])}

    def narrow(sol: Solution) -> tuple[Solution, dict[str, State]]:
        states = shared_out(sol.ys["looked"])  # pyright: ignore
        where = lambda s: (s.ts, s.ys)
        return eqx.tree_at(where, sol, (sol.ts["asked"], sol.ys["asked"])), states  # pyright: ignore

    return eqx.tree_at(lambda s: s.subs, saveat, subs), narrow


def _merged(saveat: SaveAt, more: Any, direction: Any, shared_out: Callable) -> tuple:
    """For `BacksolveAdjoint`, which saves one list of times."""
    sub: Any = saveat.subs
    if not isinstance(sub, SubSaveAt):
        raise NotImplementedError(
            "Cannot use `adjoint=BacksolveAdjoint()` with `SaveAt(subs=...)`."
        )
    ts = jnp.zeros(0, more.dtype) if sub.ts is None else jnp.asarray(sub.ts, more.dtype)
    both = jnp.concatenate([ts, more])
    order = jnp.argsort(both * direction)
    # Where each has gone, behind `t0` if that is saved.
    place = jnp.argsort(order) + int(sub.t0)
    first = [0] * sub.t0
    last = [len(both) + int(sub.t0)] * sub.t1
    asked = jnp.concatenate([jnp.asarray(p, place.dtype) for p in (first, place[: len(ts)], last)])

    def narrow(sol: Solution) -> tuple[Solution, dict[str, State]]:
        rows = lambda at: tree.rows((sol.ts, sol.ys), at)
        looked = shared_out(rows(place[len(ts) :])[1])
        return eqx.tree_at(lambda s: (s.ts, s.ys), sol, rows(asked)), looked

    merged = SubSaveAt(t0=sub.t0, t1=sub.t1, ts=both[order], fn=sub.fn, steps=sub.steps)
    return eqx.tree_at(lambda s: s.subs, saveat, merged), narrow
