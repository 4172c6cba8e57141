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

from .. import tree
from ..shapes import Flag, State, Time
from .converted import Converted


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
    """
    watched, ended = outcome.watched, jnp.any(jnp.array(outcome.watched.mask))
    as_it_is = (outcome.t, outcome.y, outcome.result)
    finder = event.root_finder
    if finder is None:
        return as_it_is

    def find() -> tuple[Time, State, RESULTS]:
        inside = interpolation(t0=watched.t0, t1=watched.t1, **watched.info)

        def value(t: Time, _: Any) -> Any:
            to_end = watched.t1 - t
            values = conditions(t, inside.evaluate(t))
            numbers = [to_end if v.dtype == jnp.bool_ else v for v in values]
            # Only the condition that was met says where; without any, the end of the step.
            met = [
                jnp.where(mask, v, jnp.zeros_like(v))
                for mask, v in zip(watched.mask, numbers, strict=True)
            ]
            # In the event's own structure: of one condition some root finders want the bare number.
            structure = jax.tree.structure(event.cond_fn, is_leaf=callable)
            numbers = [jnp.where(ended, v, to_end.astype(v.dtype)) for v in met]
            return jax.tree.unflatten(structure, numbers)

        bounds = {"lower": watched.t0, "upper": watched.t1}
        root = optx.root_find(value, finder, y0=watched.t1, options=bounds, throw=False)
        # An event before the first step leaves no step to look into.
        y = tree.where(outcome.num_steps == 0, outcome.y, inside.evaluate(root.value))
        found = root.result == optx.RESULTS.successful
        result = RESULTS.where(found, outcome.result, RESULTS.promote(root.result))
        return root.value, y, result

    return lax.cond(eqxi.unvmap_any(ended), find, lambda: as_it_is)
