"""Arguments of a solve that are checked before anything is traced: counts, times, resets."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy

from ..shapes import Time
from .programs.run_time_errors import RunTimeError
from .resets import Resets
from .times import is_concrete, promote_times

_INVALID = RunTimeError("ndekit_invalid_argument", lambda _, text: text)


def check_count(max_steps: Any) -> None:
    is_count = isinstance(max_steps, (int, numpy.integer)) and not isinstance(max_steps, bool)
    if max_steps is not None and not (is_count and max_steps >= 1):
        raise ValueError(
            f"`max_steps` must be an integer of at least 1, or `None`, but got {max_steps!r}."
        )


def checked_first_step(t0: Time, t1: Time, dt0: Time | None, throw: bool) -> Time | None:
    times = [t for t in (t0, t1, dt0) if t is not None]
    np = _array_module(*times)
    if throw and np is numpy and any(np.isnan(np.asarray(t)) for t in times):
        raise InvalidTimes(f"`t0`, `t1` and `dt0` must be numbers, but are {t0}, {t1} and {dt0}.")
    if dt0 is None:
        return None
    with jax.numpy_dtype_promotion("standard"):
        backwards = (np.asarray(t1) - np.asarray(t0)) * np.asarray(dt0) < 0
    message = "`dt0` must point from `t0` to `t1`: (t1 - t0) * dt0 >= 0."
    return check(dt0, backwards, message, (t0, t1, dt0))


def checked_ts(t0: Time, t1: Time, saveat: diffrax.SaveAt, throw: bool) -> diffrax.SaveAt:
    sub: Any = saveat.subs
    if sub.ts is None:
        return saveat
    np = _array_module(t0, t1, sub.ts)
    with jax.numpy_dtype_promotion("standard"):
        t0, t1, ts = _as_solved(np, t0, t1, sub.ts)
        forwards = t0 <= t1
        disorder = np.any(np.where(forwards, ts[1:] < ts[:-1], ts[1:] > ts[:-1]))
        first, last = np.minimum(t0, t1), np.maximum(t0, t1)
        outside = np.any((ts < first) | (ts > last))
    if not throw and not is_concrete(bad := disorder | outside):
        # Without a callback to the host, which cannot be exported: nothing is saved.
        ts = jnp.where(bad, jnp.nan, ts)
        return eqx.tree_at(lambda s: s.subs.ts, saveat, ts)
    ts = check(sub.ts, disorder, "`saveat.ts` must run from `t0` to `t1` in order.", ())
    ts = check(ts, outside, "`saveat.ts` must lie between `t0` and `t1`.", (t0, t1))
    return eqx.tree_at(lambda s: s.subs.ts, saveat, ts)


def checked_resets(resets: Any, ends: tuple[Time, Time], throw: bool) -> Resets | None:
    """The resets, their times in order from `t0` on; not a number if they turn out not to be and
    nobody is to be told.
    """
    if resets is None:
        return None
    if not isinstance(resets, Resets):
        raise ValueError(f"`resets` must be `ndekit.Resets(ts, update)`, but is {resets!r}.")
    if resets.ts.ndim != 1:
        raise ValueError(
            f"The times of `resets` must have shape (times,), but have {resets.ts.shape}. Use "
            "`jax.vmap` for many solves."
        )
    if resets.ts.shape[0] == 0:
        return resets
    np = _array_module(resets.ts, *ends)
    t0, t1, ts = _as_solved(np, *ends, resets.ts)
    with jax.numpy_dtype_promotion("standard"):
        sign = np.where(t0 <= t1, 1, -1)
        grows = np.where(np.isinf(ts), np.inf, ts * sign)
        disorder = np.any(~(grows[1:] >= grows[:-1]))
        early = ~(grows[0] >= t0 * sign)
    checks = (
        (disorder, "The times of `resets` must run from `t0` to `t1` in order.", (resets.ts,)),
        (early, "The times of `resets` must not lie before `t0`.", (resets.ts, *ends)),
    )
    if not throw and not is_concrete(bad := disorder | early):
        return eqx.tree_at(lambda r: r.ts, resets, jnp.where(bad, jnp.nan, ts))
    for bad, message, got in checks:
        checked = check(resets.ts, bad, message, got)
        resets = eqx.tree_at(lambda r: r.ts, resets, checked)
    return resets


def refuse_in_diffrax(resets: Resets | None) -> None:
    """For solves that run in diffrax's own loop, which knows no resets."""
    if resets is not None:
        raise ValueError(
            "`resets` need ndekit's own loop: the adjoint `ReplayAdjoint()`, no progress meter, no "
            "complex numbers, and nothing that calls the host."
        )


def _as_solved(np: Any, *times: Any) -> tuple[Any, ...]:
    """Times in the dtype in which the solve has them: a number of the user's that is not rounded
    yet may lie before itself.
    """
    dtype = jax.eval_shape(lambda *ts: promote_times(*ts)[0], *times).dtype
    return tuple(np.asarray(t).astype(dtype) for t in times)


def _array_module(*values: Any) -> Any:
    """NumPy while everything is known, so that a check under `jax.jit` is still a check now."""
    return numpy if all(map(is_concrete, values)) else jnp


def check(value: Any, bad: Any, message: str, got: tuple) -> Any:
    """`value` if not `bad`: an exception now if that is known, at run time if it is traced."""
    if not is_concrete(bad):
        return _INVALID.raised_if(bad, jnp.asarray(value), lambda: jnp.zeros(1), message)
    if bad:
        shown = f" Got {', '.join(str(x) for x in got)}." if got else ""
        raise InvalidTimes(message + shown)
    return value


class InvalidTimes(ValueError, RuntimeError):
    """Times that do not fit each other. diffrax finds them at run time and raises a `RuntimeError`;
    here they are found before, wherever they are known, and a program may catch either.
    """
