"""Flows in closed form: no steps are taken between the rows of a series."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .. import tree
from ..data import Series
from ..shapes import State, Time
from .observations import Observation


class AbstractKnownFlow(eqx.Module):
    """A flow whose state after a time is known."""

    @abc.abstractmethod
    def __call__(self, gap: Time, y: State) -> State:
        """The state `gap` after `y`."""


class Stays(AbstractKnownFlow):
    """A state that stays as it is."""

    def __call__(self, gap: Time, y: State) -> State:
        return y


def along(
    flow: AbstractKnownFlow, read: Callable, y0: State, rows: Observation
) -> tuple[State, State]:
    """The states before and after each row."""

    def one(y: State, row: Observation) -> tuple[State, tuple[State, State]]:
        before = flow(row.gap, y)
        after = read(before, row)
        return after, (before, after)

    return jax.lax.scan(one, y0, rows)[1]


def at_times(
    flow: AbstractKnownFlow, start: tuple[Time, State], known: tuple[Series, State], ts: Any
) -> State:
    """The states at `ts`, from those after each row; at the time of a row, before it."""
    (t0, y0), (series, after) = start, known
    passed = jnp.where(series.is_real, series.ts, jnp.inf) < jnp.asarray(ts)[:, None]
    number = jnp.sum(passed, axis=1)
    times = jnp.concatenate([t0[None], series.ts])
    states = jax.tree.map(lambda y0, ys: jnp.concatenate([jnp.asarray(y0)[None], ys]), y0, after)
    return jax.vmap(lambda n, t: flow(t - times[n], tree.read(states, n)))(number, ts)
