"""Events: conditions watched after each accepted step."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import optimistix as optx
from diffrax import RESULTS
from jax import lax

from ... import tree
from ...shapes import Flag, State, Time
from ..programs.closure_convert import Converted


class Watched(eqx.Module):
    """What is known of the conditions after some step.

    The last accepted step is kept whole, since the event is looked for inside it.
    """

    values: list[Any]
    mask: list[Flag]
    t0: Time
    t1: Time
    info: Any


class Conditions(eqx.Module):
    """The conditions of an event, in the order of its leaves."""

    values: Converted = eqx.field(static=True)
    directions: tuple[bool | None, ...] = eqx.field(static=True)


def condition_values(event: diffrax.Event, args: Any, surroundings: dict[str, Any]) -> Callable:
    """The conditions as a function (t, y) -> list of values, called as diffrax calls them."""
    conditions = jax.tree.leaves(event.cond_fn, is_leaf=callable)

    def values(t: Time, y: State) -> list[Any]:
        return [jnp.asarray(condition(t, y, args, **surroundings)) for condition in conditions]

    return values


class InUsersTime(eqx.Module):
    """An event's condition that is told the user's time, of a solve that runs backwards too.

    There diffrax's loop tells conditions the time that it reflects so that it grows, with terms
    and ends reflected likewise. The step size controller is handed on as it comes.
    """

    condition: Callable

    def __call__(self, t: Time, y: State, args: Any, **around: Any) -> Any:
        reflected = [x for x in jax.tree.leaves(around["terms"], is_leaf=_is_reflected)]
        direction = next(x.direction for x in reflected if _is_reflected(x))
        turned = lambda t: None if t is None else t * direction
        unwrap = lambda x: x.term if _is_reflected(x) else x
        around["terms"] = jax.tree.map(unwrap, around["terms"], is_leaf=_is_reflected)
        around |= {name: turned(around[name]) for name in ("t0", "t1", "dt0")}
        is_sub = lambda x: isinstance(x, diffrax.SubSaveAt)
        times = lambda saveat: [
            sub.ts for sub in jax.tree.leaves(saveat.subs, is_leaf=is_sub) if sub.ts is not None
        ]
        around["saveat"] = eqx.tree_at(times, around["saveat"], replace_fn=turned)
        return self.condition(turned(t), y, args, **around)


def _is_reflected(x: Any) -> bool:
    return isinstance(x, diffrax.AbstractTerm) and hasattr(x, "direction")


def in_users_time(event: diffrax.Event | None) -> diffrax.Event | None:
    """The event, its conditions told the user's time."""
    if event is None:
        return None
    cond_fn = jax.tree.map(InUsersTime, event.cond_fn, is_leaf=callable)
    return diffrax.Event(cond_fn, event.root_finder, event.direction)


def directions_of(event: diffrax.Event) -> tuple[bool | None, ...]:
    structure = jax.tree.structure(event.cond_fn, is_leaf=callable)
    return tuple(structure.flatten_up_to(event.direction))


def look(
    conditions: Conditions,
    constants: list[Any],
    before: Watched,
    ends: tuple[Time, Time],
    lane: Any,
    info: Any,
    accepted: Flag,
) -> tuple[Watched, RESULTS]:
    """Evaluate the conditions at the end of an accepted step; the first that is met ends the lane.

    A number meets its condition by changing sign over the step, in the direction asked for; a
    boolean by being true.
    """
    values = conditions.values(constants, lane.t, lane.y)
    mask, had_event = [], jnp.array(False)
    for new, old, direction in zip(values, before.values, conditions.directions, strict=True):
        met = accepted & _is_met(new, old, direction)
        mask.append(met & ~had_event)
        had_event = met | had_event
    after = Watched(values, mask, *ends, info)
    result = RESULTS.where(had_event, RESULTS.event_occurred, lane.result)
    return tree.where(accepted, after, before), result


def _is_met(new: Any, old: Any, direction: bool | None) -> Flag:
    if new.dtype == jnp.bool_:
        return new
    if direction is None:
        return jnp.sign(old) != jnp.sign(new)
    if direction:
        return (jnp.sign(old) <= 0) & (jnp.sign(new) > 0)
    return (jnp.sign(old) > 0) & (jnp.sign(new) <= 0)


def settle(
    event: diffrax.Event,
    conditions: Callable,
    interpolation: Callable[..., diffrax.AbstractLocalInterpolation],
    outcome: Any,
) -> tuple[Time, State, RESULTS]:
    """Where a solve that watched for events ends: time, state, result.

    With a root finder, the time inside the last step at which the condition that was met is zero,
    by the step's own interpolation; the derivative of that time is that of the root. A boolean
    condition is met at the end of the step.

    The root is that of one number: as a list of numbers, zero for all conditions but one, it would
    be a least-squares problem, in which conditions that were not met take part.
    """
    watched, ended = outcome.watched, jnp.any(jnp.array(outcome.watched.mask))
    as_it_is = (outcome.t, outcome.y, outcome.result)
    finder = event.root_finder
    if finder is None:
        return as_it_is

    def find() -> tuple[Time, State, RESULTS]:
        inside = interpolation(t0=watched.t0, t1=watched.t1, **watched.info)

        def value(t: Time, _: Any) -> Any:
            # Where no number says where, at the end of the step.
            chosen = watched.t1 - t
            for mask, v in zip(watched.mask, conditions(t, inside.evaluate(t)), strict=True):
                if v.dtype != jnp.bool_:
                    with jax.numpy_dtype_promotion("standard"):
                        chosen = jnp.where(mask, v, chosen)
            return chosen

        bounds = {"lower": watched.t0, "upper": watched.t1}
        root = optx.root_find(value, finder, y0=watched.t1, options=bounds, throw=False)
        # An event before the first step leaves no step to look into.
        y = tree.where(outcome.num_steps == 0, outcome.y, inside.evaluate(root.value))
        found = root.result == optx.RESULTS.successful
        result = RESULTS.where(found, outcome.result, RESULTS.promote(root.result))
        return root.value, y, result

    return lax.cond(eqxi.unvmap_any(ended), find, lambda: as_it_is)
