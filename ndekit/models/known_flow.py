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


class Known(eqx.Module):
    """The state behind the last row of which something was read, and when that was."""

    y: State
    t: Time


def along(
    flow: AbstractKnownFlow, read: Callable, start: Known, rows: Observation
) -> tuple[State, State, Known]:
    """The states before and after each row, and what is known behind it."""

    def one(known: Known, row: Observation) -> tuple[Known, tuple[State, State, Known]]:
        known, before, after = past(flow, read, known, row)
        return known, (before, after, known)

    return jax.lax.scan(one, start, rows)[1]


def past(
    flow: AbstractKnownFlow, read: Callable, known: Known, row: Observation
) -> tuple[Known, State, State]:
    """What is known behind a row, and the states before and after it. A row of which nothing was
    read is passed as if it were not there: a decay need not be the same in two parts.
    """
    before = flow(row.t - known.t, known.y)
    after = read(before, row)
    return tree.where(jnp.any(row.mask), Known(after, row.t), known), before, after


def at_times(flow: AbstractKnownFlow, start: Known, series: Series, known: Known, ts: Any) -> State:
    """The states at `ts`, from what is known behind each row; at the time of a row, before it."""
    rows = jnp.where(series.is_real, series.ts, jnp.inf)
    number = jax.vmap(lambda t: jnp.sum(rows < t))(jnp.asarray(ts))
    first = lambda a, b: jnp.concatenate([jnp.asarray(a)[None], b])
    all_: Known = jax.tree.map(first, start, known)
    of = lambda n, t: flow(t - all_.t[n], tree.read(all_.y, n))
    return jax.vmap(of)(number, jnp.asarray(ts, all_.t.dtype))
