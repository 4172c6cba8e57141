"""Where a solve failed, and the error that says so."""

import json
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from diffrax import RESULTS
from jax import lax

from ...shapes import Flag, State, Time
from ..programs.run_time_errors import RunTimeError


class Failure(eqx.Module):
    """Where a solve stood when it stopped: the time, the length of the step that would have come
    next, and which leaves of its last attempt were not finite.
    """

    t: Time
    h: Time
    unsound: Any  # `None` where the state has one leaf


def unsound_leaves(y1: State, error: Any) -> Any:
    """Which leaves of a step's end or of its error estimate are not finite; `None` of one leaf."""
    leaves = jax.tree.leaves(y1)
    if len(leaves) < 2:
        return None
    estimates = [None] * len(leaves) if error is None else jax.tree.leaves(error)
    is_unsound = lambda x: jnp.array(False) if x is None else ~jnp.all(jnp.isfinite(x))
    return jnp.stack(
        [is_unsound(a) | is_unsound(b) for a, b in zip(leaves, estimates, strict=True)]
    )


# What a solve can fail with, by the number that stands for it in a program.
_NAMES = (
    "max_steps_reached singular breakdown stagnation conlim nonfinite_input internal_error "
    "nonlinear_max_steps_reached nonlinear_divergence nonfinite dt_min_reached max_steps_rejected"
).split()
_kindof = lambda result: jax.tree.leaves(result)[0]
_RESULTS = {int(_kindof(getattr(RESULTS, name))): name for name in _NAMES}


def _describe(numbers: np.ndarray, text: str) -> str:
    """What went wrong, of the numbers of `_of_one_lane` and a text of `thrown`."""
    (code, t, h, t0, t1), unsound = numbers[:5], numbers[5:]
    t = -t if t1 < t0 else t  # times inside a solve grow; the user's may not
    known = json.loads(text)
    name = _RESULTS[int(code)]
    where = f"at t = {t:.8g} (of {t0:.8g} to {t1:.8g})"
    if name == "nonfinite":
        leaves = [leaf for leaf, is_bad in zip(known["leaves"], unsound, strict=True) if is_bad]
        place = f"in leaf {', '.join(leaves)} of the state" if leaves else "in the state"
        return (
            f"Not finite {where}, {place}: the vector field, the state or the error estimate "
            "is infinite or not a number, however short the step. Look at the vector field "
            "there, and at what goes into it. A solution that blows up wants a shorter span."
        )
    count = f" after {known['max_steps']} steps" if name == "max_steps_reached" else ""
    said = RESULTS[getattr(RESULTS, name)]
    return f"{said}\nThe solve stood {where}{count}, where the step size was {h:.3g}."


_FAILED = RunTimeError("ndekit_solve_failed", _describe)


def thrown(sol: Any, failure: Failure, y0: Any, bad: Flag, max_steps: int | None) -> Any:
    """`sol`, or an error at run time if it is `bad` in any lane. Of several the error speaks of one
    that came least far.
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(y0)]
    leaves = [jax.tree_util.keystr(path) or "y" for path in paths]
    given = lax.stop_gradient((failure, sol.result, (sol.t0, sol.t1), bad))
    text = json.dumps(dict(leaves=leaves, max_steps=max_steps))
    arrays, rest = eqx.partition(sol, eqx.is_array)
    numbers = lambda: _of_one_lane(len(paths), *given)
    return eqx.combine(_FAILED.raised_if(bad, arrays, numbers, text), rest)


def _of_one_lane(number: int, failure: Failure, result: RESULTS, ends: Any, bad: Flag) -> Any:
    """What the message says, of the lane that it speaks of."""
    code = jnp.where(bad, _kindof(result), 0)
    unsound = jnp.zeros(number, bool) if failure.unsound is None else failure.unsound
    dtype = jnp.float64 if failure.t.dtype == jnp.float64 else jnp.float32
    numbers = (code, failure.t, failure.h, *ends, *unsound)
    return _worst(jnp.stack([jnp.asarray(x).astype(dtype) for x in numbers]))


@jax.custom_batching.custom_vmap
def _worst(numbers: Any) -> Any:
    """The numbers of one lane: of those with the largest code one that came least far."""
    return numbers


@_worst.def_vmap
def _(size: int, in_batched: list, numbers: Any) -> tuple[Any, bool]:
    code, t = numbers[:, 0], numbers[:, 1]
    # Chosen here, since each maximum over lanes would be two kernels to compile.
    distance = jnp.where(code == jnp.max(code), t, jnp.inf)
    return _worst(numbers[jnp.argmin(distance)]), False
