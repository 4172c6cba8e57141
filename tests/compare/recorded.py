"""Diffrax on the grid that it takes itself, held constant: what a derivative of ndekit means.

A solve is recorded; then the same solve is taken in the same steps, which do not know of anything
but the times that the user owns: the ends, and the times at which a clipping controller stops.
"""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

RESULTS = diffrax.RESULTS


class Recording(diffrax.AbstractStepSizeController):
    """Writes down each accepted step: from, to, and whether there was a jump before it."""

    inner: Any
    number: int = eqx.field(static=True)

    def wrap(self, direction):
        return type(self)(self.inner.wrap(direction), self.number)

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        first, state = self.inner.init(terms, t0, t1, y0, dt0, args, func, error_order)
        return first, self.nothing(state, jnp.result_type(t0))

    def nothing(self, state, dtype):
        """Before the first step."""
        nowhere = jnp.full(self.number + 1, jnp.inf, dtype)
        return state, jnp.array(0), nowhere, nowhere, jnp.zeros(self.number + 1, bool)

    def adapt_step_size(self, t0, t1, y0, y1, args, y_error, error_order, state):
        inner, count, starts, ends, jumps = state
        keep, start, end, jump, inner, result = self.inner.adapt_step_size(
            t0, t1, y0, y1, args, y_error, error_order, inner
        )
        put = lambda x, at, value: jnp.where(keep, x.at[at].set(value), x)
        starts, ends = put(starts, count, t0), put(ends, count, t1)
        state = inner, count + jnp.where(keep, 1, 0), starts, ends, put(jumps, count + 1, jump)
        return keep, start, end, jump, state, result


class WithTolerances(diffrax.AbstractAdaptiveStepSizeController):
    """With those that an implicit solver asks for."""

    inner: eqx.AbstractVar[Any]

    @property
    def rtol(self):
        return self.inner.rtol

    @property
    def atol(self):
        return self.inner.atol

    @property
    def norm(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.inner.norm


class AdaptiveRecording(Recording, WithTolerances):
    pass


class Replaying(diffrax.AbstractStepSizeController):
    """The steps that were written down."""

    inner: Any  # whose tolerances count
    starts: Any
    ends: Any
    jumps: Any
    owned: Any  # times of the user, in the direction of the solve

    def wrap(self, direction):
        return eqx.tree_at(lambda s: s.owned, self, [x * direction for x in self.owned])

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        def own(grid):
            times = grid
            for value in jax.tree.leaves([[t0, t1], *map(list, self.owned)]):
                place = lax.stop_gradient(value)
                near = jnp.abs(grid - place) <= 4 * jnp.spacing(jnp.abs(grid))
                times = jnp.where(near, times + (value - place), times)
            return times

        state = own(self.starts), own(self.ends), jnp.array(1)
        return state[1][0], state

    def adapt_step_size(self, t0, t1, y0, y1, args, y_error, error_order, state):
        starts, ends, at = state
        # Behind the last there is nothing more to step to.
        end = jnp.where(jnp.isfinite(ends[at]), ends[at], t1)
        start = jnp.where(jnp.isfinite(starts[at]), starts[at], t1)
        jump = self.jumps[at]
        return True, start, end, jump, (starts, ends, at + 1), RESULTS.successful


class AdaptiveReplaying(Replaying, WithTolerances):
    pass


def on_recorded_grid(diffeqsolve: Callable) -> Callable:
    """`diffeqsolve`, its grid held constant."""

    def solve(*problem: Any, stepsize_controller: Any, **options: Any) -> diffrax.Solution:
        controller, number = stepsize_controller, options.get("max_steps", 4096)
        record: Any = Recording
        replay: Any = Replaying
        if isinstance(controller, diffrax.AbstractAdaptiveStepSizeController):
            record, replay = AdaptiveRecording, AdaptiveReplaying
        saveat = diffrax.SaveAt(controller_state=True)
        recording, look = record(controller, number), options | {"saveat": saveat, "throw": False}
        if (state := options.pop("controller_state", None)) is not None:
            look["controller_state"] = recording.nothing(state, jnp.result_type(*problem[2:4]))
        found = diffeqsolve(*problem, stepsize_controller=recording, **look)
        steps = lax.stop_gradient(found.controller_state[2:])
        owned = [getattr(controller, name, None) for name in ("step_ts", "jump_ts")]
        grid = replay(controller, *steps, [x for x in owned if x is not None])
        sol = diffeqsolve(*problem, stepsize_controller=grid, **options)
        if sol.controller_state is None:
            return sol
        # What a second solve goes on with.
        return eqx.tree_at(lambda s: s.controller_state, sol, found.controller_state[0])

    return solve
