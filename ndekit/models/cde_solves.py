"""The solves of a controlled equation: from window to window, or in the time of the series."""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..fields import LogField
from ..fields.cde import driven
from ..integrate import Solution, diffeqsolve
from ..shapes import Args, Time
from .cde_control import increment_rate
from .window_time import Beginnings, EqualSteps, Stretch, cut_at_edges

# Adaptive steps, unless the user says.
_MOST = 4096


def inside_windows(
    model: Any, stretch: Stretch, y0: Array, until: Beginnings, key: Any
) -> Solution:
    """The states at times inside of windows, each from the beginning of its window."""
    begins = jnp.maximum(2 * until.over - 1, 0).astype(stretch.end.dtype)
    save = diffrax.SaveAt(ts=jnp.minimum(begins, stretch.end))
    solution = in_windows(model, stretch, y0, save, key=key)
    # Costs are those of the solve along the windows.
    plain = eqx.tree_at(lambda m: m.costs, model, {})
    one = lambda x: x[None]
    along = lambda row, edges, y: in_windows(
        plain, Stretch(jax.tree.map(one, row), edges, jnp.ones((), jnp.int32)), y
    )
    flowed = jax.vmap(along)(until.rows, until.edges, solution.ys)
    assert flowed.ys is not None
    return dataclasses.replace(solution, ys=flowed.ys[:, -1], ts=until.edges[:, 1])


def in_windows(
    model: Any,
    stretch: Stretch,
    y0: Array,
    saveat: diffrax.SaveAt = diffrax.SaveAt(t1=True),
    ts: Array | None = None,
    key: Any = None,
) -> Solution:
    """The solve from window to window, with the times of the series in its solution."""
    inner = LogField(model.field, model.order) if model.windows is not None else None

    def rate(s: Time, y: Array, args: Args) -> Array:
        row, inside, t = stretch.at(s)
        if inner is not None:
            return inner(t, y, row)
        return driven(model.field, t, y, increment_rate(row, inside))

    number = len(stretch.edges) - 1
    controller: Any = EqualSteps(model.substeps)
    most = number * model.substeps
    if model.controller is not None:
        controller = cut_at_edges(model.controller)
        most = max(_MOST, 4 * number)
    if ts is not None:
        saveat = diffrax.SaveAt(ts=stretch.places(ts))
    start = jnp.zeros_like(stretch.end)
    solution = _solve(model, rate, start, stretch.end, y0, saveat, controller, most, key)
    first, last = stretch.edges[0], stretch.edges[-1]
    at = last[None] if ts is None else jnp.clip(ts, first, last)
    return dataclasses.replace(solution, t0=first, t1=last, ts=at)


def in_time(model: Any, path: Any, y0: Array, ts: Array | None, key: Any) -> Solution:
    """The solve in the time of the series, where steps may go across readings."""
    rate = lambda t, y, args: driven(model.field, t, y, path.derivative(t).astype(y.dtype))
    save = diffrax.SaveAt(t1=True)
    if ts is not None:
        save = diffrax.SaveAt(ts=jax.vmap(path.parameter)(ts))
    return _solve(model, rate, path.t0, path.t1, y0, save, model.controller, _MOST, key)


def _solve(
    model: Any, rate: Callable, t0: Any, t1: Any, y0: Array, saveat: diffrax.SaveAt,
    controller: Any, most: int, key: Any,
) -> Solution:  # fmt: skip
    return diffeqsolve(
        diffrax.ODETerm(rate), model.solver, t0, t1, model.dt0, y0, saveat=saveat,
        stepsize_controller=controller, adjoint=model.adjoint, throw=model.throw,
        max_steps=most if model.max_steps is None else model.max_steps,
        costs=model.costs, key=key,
    )  # fmt: skip
