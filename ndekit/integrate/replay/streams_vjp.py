"""Cotangents of what was kept at steps, given back to the steps; for one lane."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ... import tree
from ...shapes import Count, Flag, Time
from ..forward.problem import Problem


def ct_of_steps(problem: Problem, ct_kept: list[Any], accepted: Flag, number: Count) -> list[Any]:
    """What the loss says of the values that `SaveAt(steps=n)` kept of accepted step `number`."""
    found = []
    for plan, ct in zip(problem.plans, ct_kept, strict=True):
        if ct is None:
            found.append(None)
            continue
        kept = accepted & ((number + 1) % plan.every == 0)
        slot = (number + 1) // plan.every - 1
        row = jax.tree.map(lambda rows, slot=slot: _row(rows, slot), ct)
        found.append(tree.masked(kept, row))
    return found


def ct_of_step_end(
    problem: Problem, t: Time, ct_kept: list[Any], ct_dense: Any, accepted: Flag, number: Count
) -> Time:
    """What the loss says of the end of accepted step `number`, through the times that
    `SaveAt(steps=n)` kept and those of dense output. `t` gives shape and dtype.
    """
    rows = ct_of_steps(problem, ct_kept, accepted, number)
    if ct_dense is not None:
        rows.append(tree.masked(accepted, _row(ct_dense, number)))
    return sum([row for row in rows if row is not None], jnp.zeros_like(t))


def ct_of_interpolant(
    ends: tuple[Time, Time], info: Any, accepted: Flag, whole: tuple[Any, Any], counts: tuple
) -> tuple[Any, tuple[Time, Time]]:
    """What the loss says of a step's interpolation, through dense output (`whole[0]`: a row for
    each step) and the last step of a solve that watches for events (`whole[1]`: t0, t1, info).

    `ends` and `info` give shapes and dtypes; `counts` are the accepted steps of the solve and
    before this one.
    """
    (dense, last), (num_accepted, number) = whole, counts
    total, d_times = tree.zeros_like(info), tree.zeros_like(ends)
    if dense is not None:
        rows = jax.tree.map(lambda rows: _row(rows, number), dense)
        total = tree.add(total, tree.masked(accepted, rows))
    if last is not None:
        is_last = accepted & (number == num_accepted - 1)
        t0, t1, last_info = tree.masked(is_last, last)
        total, d_times = tree.add(total, last_info), tree.add(d_times, (t0, t1))
    return total, d_times


def _row(rows: Any, index: Count) -> Any:
    return lax.dynamic_index_in_dim(rows, index, 0, keepdims=False)
