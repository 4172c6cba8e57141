"""Explicit Runge-Kutta steps on any term, unrolled: control terms, several terms, noise."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from diffrax import RESULTS
from jax import lax

from ... import tree
from ...shapes import Args, State, Time
from .explicit import ExplicitRungeKutta

# Under this name a step of an SDE hands its error estimate in parts, by drift and by noise, to the
# costs, beside what interpolation is given.
PARTS = "error_parts"


def unrolled_step_of(
    scheme: ExplicitRungeKutta,
    terms: Any,
    args: Args,
    jumps: bool,
    noisy: bool = False,
) -> Callable:
    r"""The step $k_i = f(t_0 + c_i h, y_0 + \sum_{j<i} a_{ij} k_j) \, \Delta x$ as a function of
    arrays, with diffrax's solver state and result.

    The increment $\Delta x$ of the control is that over the whole step, as diffrax has it. Straight
    code, where diffrax's own step loops over stages through a buffer. Given a `first_rate`, the
    first stage is not evaluated. `noisy`: the terms are a drift and noise.
    """

    def step(
        t0: Time, t1: Time, y0: State, state: Any, made_jump: Any, first_rate: Any = None
    ) -> tuple:
        control, h = terms.contr(t0, t1), t1 - t0
        in_parts = noisy and not scheme.first_same_as_last
        increments, by_drift, last_rate = [], [], None
        for i, (a_i, c_i) in enumerate(zip(scheme.a, scheme.c, strict=True)):
            t = t1 if c_i == 1 else t0 + c_i * h
            y = y0 if i == 0 else tree.add(y0, tree.weighted_sum(a_i, increments))
            if i == 0 and first_rate is not None:
                increments.append(terms.prod(first_rate, control))
            elif i == 0 and scheme.first_same_as_last:
                rate = _first_rate(terms, args, t0, y0, state, made_jump if jumps else False)
                increments.append(terms.prod(rate, control))
            elif i == len(scheme.c) - 1 and scheme.first_same_as_last:
                last_rate = terms.vf(t, y, args)
                increments.append(terms.prod(last_rate, control))
            elif in_parts:
                each = _increments(terms.terms, control, t, y, args)
                by_drift.append(each[0])
                increments.append(tree.weighted_sum([1.0] * len(each), each))
            else:
                increments.append(terms.vf_prod(t, y, args, control))
        y1 = y
        if not scheme.last_stage_is_solution:
            y1 = tree.add(y0, tree.weighted_sum(scheme.b, increments))
        error = None
        if scheme.b_error is not None:
            error = tree.weighted_sum(scheme.b_error, increments)
        info = dict(y0=y0, y1=y1)
        if in_parts and scheme.b_error is not None:
            info[PARTS] = _parts(error, tree.weighted_sum(scheme.b_error, by_drift))
        if len(scheme.c) > 1:
            info["k"] = jax.tree.map(lambda *ks: jnp.stack(ks), *increments)
        state = (jnp.array(False), last_rate) if scheme.first_same_as_last else None
        return y1, error, info, state, RESULTS.successful

    return step


def _increments(terms: Any, control: Any, t: Time, y: State, args: Args) -> list[State]:
    """What each of several terms adds."""
    return [term.vf_prod(t, y, args, c) for term, c in zip(terms, control, strict=True)]


def _parts(error: State, of_drift: State) -> tuple[State, State]:
    return of_drift, tree.subtract(error, of_drift)


def _first_rate(
    terms: diffrax.AbstractTerm, args: Args, t0: Time, y0: State, state: Any, made_jump: Any
) -> Any:
    """The last stage of the step before, unless there is none or the field has jumped since."""
    first_step, rate = state
    anew = first_step | made_jump
    evaluate = lambda: tree.where(anew, terms.vf(t0, y0, args), rate)
    return lax.cond(eqxi.unvmap_any(anew), evaluate, lambda: rate)
