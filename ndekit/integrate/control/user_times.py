"""Times of a grid of steps that are the user's: a step that ends on one has its derivative.

The steps of diffrax's adaptive controller are constants of the gradient, and lie where they lie.
But some of them begin or end where the user said: at `t0`, at `t1`, at the times that a clipping
controller was given.
"""

from typing import Any

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp

from ...shapes import Flag, Time
from .controllers import clips_around


class OwnedTimes(eqx.Module):
    """The user's times of one solve, growing."""

    t0: Time
    t1: Time
    stops: Any  # sorted; `None` where no controller clips its steps


@jax.custom_jvp
def as_owned(t: Time, owned: OwnedTimes) -> Time:
    """`t`, with the derivative of the user's time that it equals; with none if there is no such."""
    return t


@as_owned.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Time, Time]:
    (t, owned), (_, d_owned) = primals, tangents
    return t, _moved(t, owned, d_owned)[1]


def is_clipped(t_end: Time, owned: OwnedTimes) -> Flag:
    """Whether a step ends where the user said."""
    at_stop = jnp.array(False) if owned.stops is None else jnp.any(t_end == owned.stops)
    return (t_end == owned.t1) | at_stop


def _moved(t: Time, owned: OwnedTimes, d: OwnedTimes) -> tuple[Flag, Time]:
    """Whether a time is the user's, and how far it moves as `owned` moves by `d`."""
    is_theirs, moved = jnp.zeros_like(t, bool), jnp.zeros_like(t)
    if owned.stops is not None and owned.stops.size > 0:
        last = owned.stops.size - 1
        index = jnp.minimum(jnp.searchsorted(owned.stops, t), last)
        is_theirs = owned.stops[index] == t
        moved = jnp.where(is_theirs, d.stops[index], moved)
    for own, d_own in ((owned.t1, d.t1), (owned.t0, d.t0)):
        is_theirs, moved = is_theirs | (t == own), jnp.where(t == own, d_own, moved)
    return is_theirs, moved


@jax.custom_jvp
def next_ends(
    ends: tuple[Time, Time], now: tuple[Time, Time], verdict: tuple[Flag, Flag], owned: OwnedTimes
) -> tuple[Time, Time]:
    """The ends of the attempt after one from `now[0]` to `now[1]`, with their derivatives.

    `verdict`: whether that was accepted, and whether it was clipped: whether its end was a time of
    the user, or followed from one. An accepted step ends where the next one starts. That one's own
    end is a constant, or a time of the user; or, after a clipped attempt that was rejected, a
    constant share of its length, so that the user's time moves what follows.
    """
    return ends


@next_ends.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    (ends, now, (accepted, clipped), owned), (_, d_now, _, d_owned) = primals, tangents
    (t, t_next), (start, end), (d_start, d_end) = ends, now, d_now
    # Behind a jump the next step starts elsewhere, at a time of the user too.
    _, jumped = _moved(t, owned, d_owned)
    d_t = jnp.where(accepted, jnp.where(t == end, d_end, jumped), d_start)
    length = jnp.where(end > start, end - start, 1)
    share, follows = (t_next - start) / length, clipped & ~accepted
    after_rejection = jnp.where(follows, d_start + share * (d_end - d_start), 0)
    is_theirs, moved = _moved(t_next, owned, d_owned)
    return ends, (d_t, jnp.where(is_theirs, moved, after_rejection))


def pulled_to_owned(ends: tuple[Time, ...], owned: OwnedTimes, ct: tuple) -> OwnedTimes:
    """The cotangents of the user's times, from those of ends of steps."""
    of_ends = lambda owned: tuple(as_owned(t, owned) for t in ends)
    return jax.vjp(of_ends, owned)[1](ct)[0]


def stops_of(controller: Any, state: Any) -> Any:
    """The times where a clipping controller ends and begins steps, from its first state: where it
    steps to, and both sides of its jumps.
    """
    clips, _ = clips_around(controller)
    found = []
    for _ in clips:
        if state.step_info is not None:
            found.append(state.step_info[1])
        if state.jump_info is not None:
            jumps = state.jump_info[1]
            found += [eqxi.prevbefore(jumps), eqxi.nextafter(jumps)]
        state = state.inner_state
    return jnp.sort(jnp.concatenate(found)) if found else None
