"""So many equal steps between any two of the user's times."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Real

from ...numbers import count
from ...shapes import Time
from ..times import is_concrete


class StepsPerGap(diffrax.AbstractStepSizeController):
    r"""`number` equal steps between each two neighbours of `ts`, from `t0` to the first, and from
    the last to `t1`.

    Steps of a length that follows the data: for series whose observations are dense at times and
    rare at others, and for a model that is to take the same steps as readings arrive one by one.
    Times outside of the interval of the solve have no part in it.

    Args:
        ts: `(times,)`, in order; infinity behind the last one is padding.
        number: steps in each gap, at least 1.

    Raises:
        ValueError: if `ts` is no row of times, or `number` not a whole number from 1.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        controller = nk.StepsPerGap(jnp.array([0.1, 0.4]), 2)
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), diffrax.Heun(), 0.0, 1.0, None, jnp.ones(1),
            stepsize_controller=controller, saveat=diffrax.SaveAt(steps=True),
        )
        sol.ts[:6]  # 0.05 0.1 0.25 0.4 0.7 1.0
        ```
    """

    ts: Real[Array, "*batch times"] = eqx.field(converter=jnp.asarray)
    number: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        count("number", self.number)
        if self.ts.ndim < 1:
            raise ValueError("`ts` must have an axis of times, `(times,)`, but is one number.")
        if is_concrete(self.ts):
            ts = np.asarray(self.ts)
            ts = ts[..., 1:], ts[..., :-1]
            behind = np.isinf(ts[0])
            if np.any(~(ts[0] >= ts[1]) & ~behind) and np.any(~(ts[0] <= ts[1]) & ~behind):
                raise ValueError(f"`ts` must be in order, but got {np.asarray(self.ts)}.")

    def wrap(self, direction: Any) -> "StepsPerGap":
        ts = jnp.where(jnp.isinf(self.ts), jnp.inf, self.ts * direction)
        return StepsPerGap(ts, self.number)

    def init(
        self, terms: Any, t0: Time, t1: Time, y0: Any, dt0: Time | None, args: Any,
        func: Callable, error_order: Any,
    ) -> tuple[Time, Any]:  # fmt: skip
        if dt0 is not None:
            raise ValueError(f"`StepsPerGap` chooses all steps: `dt0` must be `None`, got {dt0}.")
        return self._ends_of(jnp.array(0, jnp.int32), t0, self._after(t0, t1), t1)

    def adapt_step_size(
        self, t0: Time, t1: Time, y0: Any, y1: Any, args: Any, error: Any, error_order: Any,
        state: Any,
    ) -> tuple:  # fmt: skip
        done, start, end, last = state
        is_over = done + 1 >= self.number
        start, next_end = jnp.where(is_over, end, start), self._after(end, last)
        end, done = jnp.where(is_over, next_end, end), jnp.where(is_over, 0, done + 1)
        t_next, state = self._ends_of(done, start, end, last)
        return True, t1, t_next, False, state, diffrax.RESULTS.successful

    def _after(self, t: Time, last: Time) -> Time:
        """The first of the times behind `t`, or the end of the solve."""
        ts = self.ts.astype(t.dtype)
        index = jnp.sum(ts <= t)
        following = jnp.concatenate([ts, last[None]])[index]
        return jnp.where(following < last, following, last)

    def _ends_of(self, done: Any, start: Time, end: Time, last: Time) -> tuple[Time, Any]:
        """The end of the next step in a gap, so many of whose steps are `done`; and the state."""
        share = (done + 1).astype(start.dtype) / self.number
        t_next = jnp.where(done + 1 == self.number, end, start + share * (end - start))
        return t_next, (done, start, end, last)
