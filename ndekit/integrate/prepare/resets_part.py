"""Resets as parts of a problem: their times in growing time, their update as a program."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp

from ...shapes import Args, State, Time
from ..control.controllers import FIXED, frozen
from ..forward.problem import ResetOperands, Resetting
from ..programs.closure_convert import convert
from ..programs.counted_loops import is_on_host
from ..resets import Resets, ResetStates
from ..times import reflected
from .parts import Part


def growing(resets: Resets | None, direction: Any, ends: tuple[Time, Time]) -> Any:
    """The times of resets in the time that grows, padding behind them. `ends`: those of the solve,
    in that time.
    """
    if resets is None:
        return None
    t0, t1 = ends
    ts = jnp.asarray(resets.ts).astype(t0.dtype)
    if ts.shape[0] == 0:  # one that is not made
        return jnp.full(1, jnp.inf, ts.dtype)
    turned = reflected(ts, direction)
    # Of a solve over no time nobody knows the direction.
    beyond = jnp.isinf(ts) | ((t0 == t1) & (turned != t0))
    return jnp.where(beyond, jnp.inf, turned)


def resets_part(
    resets: Resets | None, ts: Any, controller: Any, args: Args, direction: Any, t0: Time,
    y0: State, begin: Callable | None = None, carry0: Any = (),
) -> Part:  # fmt: skip
    """What a problem has to know of its resets, at times `ts` that grow. `begin`: the solver's
    state at (t, y), after one that was before.
    """
    if resets is None:
        return Part({}, {})
    plain = type(controller) is diffrax.PIDController and controller.dtmax is None
    anew = resets.steps == "anew" and type(controller) not in FIXED
    if anew and not plain:
        raise ValueError(
            "`Resets(steps='anew')` begins with an attempt at the whole way to the next reset, "
            "which a controller with `dtmax`, or one around `diffrax.PIDController`, may forbid. "
            "Use `diffrax.PIDController` without `dtmax`, `StepsPerGap`, or `steps='continue'`."
        )
    update = update_of(resets, args, direction, y0)
    program, constants = convert(update, jnp.array(0), t0, y0)
    begins, of_begin = None, []
    if begin is not None and jax.tree.leaves(carry0):
        begins, of_begin = convert(begin, t0, y0, carry0)
    padded = jnp.concatenate([ts, jnp.full(1, jnp.inf, ts.dtype)])
    arrays = ResetOperands(constants, of_begin, frozen(padded))
    resetting = Resetting(program, begins, ts.shape[0], anew, plain)
    return Part(dict(resets=resetting), dict(resets=arrays), True)


def update_of(resets: Resets, args: Args, direction: Any, y0: State) -> Callable:
    """(index, t, y) -> y in growing time, checked to give what it takes."""

    def update(index: Any, t: Time, y: State) -> State:
        after = jax.tree.map(jnp.asarray, resets.update(index, t * direction, y, args))
        shape = lambda x: [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(x)]
        same = jax.tree.structure(after) == jax.tree.structure(y0)
        if not same or shape(after) != shape(y0):
            struct = lambda x: jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", x)
            raise ValueError(
                "`update` of `Resets` must return the structure, shapes and dtypes of `y0`, "
                f"{struct(y0)}, but returned {struct(after)}."
            )
        return after

    return update


def turns_with(resets: Resets | None, number: int | None) -> int | None:
    """How many attempts a solve makes of which `number` is known. A loop that counts also counts
    resets that nobody makes, which is worth it where asking is dear.
    """
    if resets is None or number is None:
        return number
    return None if is_on_host() else number + resets.ts.shape[-1]


def with_stops(stops: Any, ts: Any) -> Any:
    """The times of the user on which steps end, those of resets among them."""
    if ts is None:
        return stops
    return jnp.sort(ts if stops is None else jnp.concatenate([stops, ts]))


def at_start(
    resets: Resets | None, ts: Any, args: Args, direction: Any, t0: Time, y0: State
) -> Any:
    """`y0` after the first reset, if that is made there: what the first step is chosen for."""
    if resets is None:
        return y0
    after = update_of(resets, args, direction, y0)(jnp.array(0), t0, y0)
    return jax.tree.map(lambda a, b: jnp.where(ts[0] <= t0, a, b), after, y0)


def reset_states(resets: Resets | None, outcome: Any) -> ResetStates | None:
    if resets is None:
        return None
    made = outcome.resets
    rows = jax.tree.map(lambda x: x[: resets.ts.shape[0]], made.rows)
    return ResetStates(resets.ts, rows.before, rows.after, made.count)
