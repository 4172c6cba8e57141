"""Resets: changes of the state at known times, which a solve makes as it passes them."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Real

from ..shapes import State
from .times import is_concrete


class Resets(eqx.Module):
    r"""Flow until the next of the times `ts`, then change the state:
    $y(t_k^+) = \mathrm{update}(k, t_k, y(t_k^-), \mathrm{args})$.

    For models that read observations between which the state flows (ODE-RNN, GRU-ODE-Bayes, jump
    ODEs), for doses and impulses. As an argument of [`ndekit.diffeqsolve`][], which stays one
    solve: steps end on the times, each lane of a `jax.vmap` on its own, and none waits for another
    one where that is reset.

    `update` is evaluated only where some lane has arrived; a lane that has not is then evaluated
    beside it at the first reset that it has made, or at `index` 0 and the start of the solve, and
    what comes out of it is dropped. So rows 0 of what `update` looks up must be finite.

    Equal times have one derivative between them, which the first of them has; one at `t0` or `t1`
    leaves it to these. They can only move together.

    Args:
        ts: `(times,)`, running from `t0` to `t1`; equal times are resets one after the other.
            Behind the last one infinity (of any sign) is padding. A reset at `t0` comes before the
            first step, one at `t1` behind the last; those beyond `t1` are not made.
        update: `(index, t, y, args) -> y`: from the number of the reset (from 0), its time and the
            state that has arrived there, the state to go on from, of the same structure, shapes
            and dtypes. It may close over arrays, parameters among them, and is differentiated by
            all of them, by `t` too.
        steps: how an adaptive controller goes on behind a reset. `"continue"`: with steps as long
            as before. `"anew"`: with an attempt at the whole way to the next reset, and nothing
            remembered, so that a solve from here on takes the same steps. For a plain
            `diffrax.PIDController` without `dtmax`; steps that were chosen before the solve
            (`ConstantStepSize`, `StepTo`, `StepsPerGap`) are the same either way.

    Raises:
        ValueError: if `ts` is not a row of times, one of them is not a number, or `steps` is
            neither of the two; in a solve, if `ts` is not in order.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        doses = nk.Resets(jnp.array([0.0, 1.0, 2.0]), lambda index, t, y, args: y + 1.0)
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 3.0, None, jnp.zeros(()),
            stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6), resets=doses,
        )
        sol.resets.before, sol.resets.after  # e.g. after[1] = exp(-1) + 1
        ```
    """

    ts: Real[Array, "*batch times"]
    update: Callable
    steps: Literal["continue", "anew"] = eqx.field(static=True)

    def __init__(
        self, ts: Any, update: Callable, *, steps: Literal["continue", "anew"] = "continue"
    ):
        self.ts = jnp.asarray(ts)
        self.update, self.steps = update, steps
        if steps not in ("continue", "anew"):
            raise ValueError(f"`steps` must be 'continue' or 'anew', but got {steps!r}.")
        if not callable(update):
            raise ValueError(f"`update` must be a function (index, t, y, args) -> y, got {update}.")
        if self.ts.ndim < 1:
            raise ValueError("`ts` must have an axis of times, `(times,)`, but is one number.")
        if is_concrete(self.ts) and np.any(np.isnan(np.asarray(self.ts))):
            raise ValueError(f"`ts` has a time that is not a number: {np.asarray(self.ts)}.")


class ResetStates(eqx.Module):
    """What a solve was before and after each of its resets.

    Attributes:
        ts: `(times,)`, the times of the resets that were asked for.
        before: the state that arrived, a row for each reset; infinity where none was made.
        after: the state that the solve went on from, likewise.
        count: how many were made: the first ones.
    """

    ts: Real[Array, " times"]
    before: State
    after: State
    count: Int[Array, ""]
