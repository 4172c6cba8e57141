"""Flow between the observations of a series, change at each of them."""

from collections.abc import Callable, Mapping
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from .. import tree
from ..data import Series
from ..data.series import single
from ..integrate import ReplayAdjoint, Resets, Solution, StepsPerGap, diffeqsolve
from ..integrate.checked import check
from ..numbers import count, real
from ..shapes import Args, State, Time
from .known_flow import AbstractKnownFlow, Known, along, at_times, past
from .observations import Memory, Observation, in_order, no_memory, observations, remember

FIXED = (diffrax.ConstantStepSize, diffrax.StepTo)


class Flowed(eqx.Module):
    """What a model says along a series. Predictions in the padding are 0.

    Attributes:
        before: the prediction at each row, before the row is read: a forecast.
        after: the same after it.
        last: the prediction after the last row.
        values: predictions at `ts`, of a call that has them; at the time of a row, before it.
        state: after the last row.
    """

    before: Any
    after: Any
    last: Any
    values: Any
    state: State


class Stream(eqx.Module):
    """Between two readings of a stream: the state, its time, what is remembered."""

    y: State
    t: Float[Array, ""]
    memory: Memory
    has_begun: Any


class FlowReset(eqx.Module):
    r"""$y' = \mathrm{flow}(t, y)$ between the rows of a series, and
    $y \leftarrow \mathrm{reset}(y, \text{row})$ at each of them; predictions are
    $\mathrm{readout}(y)$.

    ODE-RNN, GRU-D, GRU-ODE-Bayes and neural jump ODEs are all of this form: [`ndekit.models.ODERNN`
    ][], [`ndekit.models.GRUD`][], [`ndekit.models.GRUODEBayes`][], [`ndekit.models.JumpODE`][] make
    one. The whole series is one solve with [`ndekit.Resets`][], so costs and regularisers see it
    as one, and a batch under `jax.vmap` waits for no series at an observation.

    A row of which every reading is missing changes nothing. Each gap begins with an attempt to
    cross it in one step; so `step`, which is told one row after the other, takes the same steps.

    Args:
        start: `start(static)`, the state before the first row.
        flow: a vector field `(t, y, args)` of the state; or a flow in closed form,
            `AbstractKnownFlow`, which takes no steps.
        reset: `reset(y, observation)`, see [`ndekit.models.Observation`][]. If it has a method
            `ahead(observation)`, that is evaluated for all rows together before the solve, and what
            it returns comes as a third argument, unless it is `None`.
        readout: of a state.
        channels: of the series.
        t0: where the state starts; at the first row if `None`.
        solver: any diffrax solver.
        controller: of the steps: `diffrax.PIDController` without `dtmax`, or one whose steps were
            chosen before (which `step` cannot take, but for `steps_per_gap`).
        steps_per_gap: instead of the controller's, so many equal steps in each gap.
        dt0: for a controller of constant steps.
        adjoint, costs, max_steps, throw: as for [`ndekit.models.NeuralODE`][].

    Raises:
        ValueError: if `channels`, `steps_per_gap` or `max_steps` is no whole number from 1, or
            costs are asked of a flow that takes no steps; when called, for a series with another
            number of channels, or one that begins before `t0`.

    Example:
        ```python
        import jax, jax.random as jr, numpy as np, ndekit as nk

        model = nk.models.ODERNN(2, hidden_size=8, out_size=2, key=jr.key(0))
        series = nk.data.Series([0.0, 0.4, 1.0], np.array([[1, np.nan], [2, 3], [np.nan, 1]]))
        said, sol = model(series)
        assert said.before.shape == (3, 2)
        ```
    """

    start: Callable
    flow: Callable
    reset: Callable
    readout: Callable
    channels: int = eqx.field(static=True)
    t0: Time | None = None
    solver: diffrax.AbstractSolver = diffrax.Tsit5()
    controller: diffrax.AbstractStepSizeController = diffrax.PIDController(rtol=1e-3, atol=1e-4)
    steps_per_gap: int | None = eqx.field(static=True, default=None)
    dt0: Time | None = None
    adjoint: Any = ReplayAdjoint()
    costs: Mapping[str, Any] = eqx.field(default_factory=dict)
    max_steps: int = eqx.field(static=True, default=4096)
    throw: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        count("channels", self.channels)
        if self.steps_per_gap is not None:
            count("steps_per_gap", self.steps_per_gap)
        if self.max_steps is not None:
            count("max_steps", self.max_steps)
        if self.dt0 is not None:
            real("dt0", self.dt0)
        if isinstance(self.flow, AbstractKnownFlow) and self.costs:
            raise ValueError(
                f"This flow is known in closed form and takes no steps, so it has no costs "
                f"({', '.join(self.costs)}). Leave `costs` out."
            )

    def __call__(
        self,
        series: Series,
        ts: Real[Array, " times"] | None = None,
        *,
        static: Any = None,
        args: Args = None,
        key: Any = None,
    ) -> tuple[Flowed, Solution | None]:
        """What the model says along one series.

        Args:
            series: a single one; map over a batch with `jax.vmap`.
            ts: times in order at which predictions are wanted besides, also beyond the last row.
            static: what the state starts from, for models that ask for it.
            args: passed on to the flow.
            key: for costs that draw.

        Returns:
            Predictions, and the solution of the solve; `None` of a flow in closed form.
        """
        series = single(series, "FlowReset", self.channels)
        t0 = series.ts[0] if self.t0 is None else jnp.asarray(self.t0, series.ts.dtype)
        y0, rows = self.start(static), observations(series, t0)
        if isinstance(self.flow, AbstractKnownFlow):
            start = Known(y0, _not_later(t0, series, ts))
            before, after, known = along(self.flow, self._read, start, rows)
            values = None
            if ts is not None:
                values = at_times(self.flow, start, series, known, ts)
            return self._said(series, y0, before, after, values), None
        real = series.is_real
        ready = self._ready(rows)
        update = lambda index, t, y, args: self._read(y, *tree.read((rows, ready), index))
        resets = Resets(jnp.where(real, series.ts, jnp.inf), update, steps="anew")
        t1 = series.ts[series.length - 1]
        if ts is not None:
            t1 = jnp.maximum(t1, jnp.asarray(ts, t1.dtype)[-1])
        sol = self._solved(y0, t0, t1, args, ts=ts, resets=resets, knots=resets.ts, key=key)
        made: Any = sol.resets
        values = None
        if ts is not None:  # a solve saves what is at its start after the reset there
            at_start = jnp.asarray(ts, t0.dtype) == t0
            start = jax.tree.map(lambda y: jnp.broadcast_to(y, (len(ts), *jnp.shape(y))), y0)
            values = tree.where(at_start, start, sol.ys)
        return self._said(series, y0, made.before, made.after, values), sol

    def init(self, static: Any = None) -> Stream:
        """Before the first row of a stream."""
        y0 = self.start(static)
        dtype = tree.real_dtype(y0)
        t0 = jnp.asarray(0.0 if self.t0 is None else self.t0, dtype)
        return Stream(y0, t0, no_memory(t0, self.channels, dtype), self.t0 is not None)

    def step(
        self,
        state: Stream,
        t: Time,
        x: Float[Array, " channels"],
        mask: Any = None,
        *,
        args: Args = None,
    ) -> tuple[Stream, Any]:
        """One more row of a stream: the state after it, and the predictions `(before, after)`.

        Args:
            t: the time of the row, after that of the row before.
            x: the readings, NaN or `mask` False for those that are missing.
        """
        plain = self.dt0 is None and not isinstance(self.controller, FIXED)
        if not plain and self.steps_per_gap is None:
            raise ValueError(
                "A stream does not know where the steps of a whole series would end: leave `dt0`, "
                "`ConstantStepSize` and `StepTo` out, or use `steps_per_gap`."
            )
        dtype = state.t.dtype
        t, x = jnp.asarray(t, dtype), jnp.asarray(x, dtype)
        if x.shape != (self.channels,):
            raise ValueError(f"`x` must have shape ({self.channels},), but has {x.shape}.")
        mask = ~jnp.isnan(x) & (True if mask is None else jnp.asarray(mask, bool))
        x = jnp.where(mask, x, 0)
        t = in_order(t, state.t, state.has_begun)
        begun = Stream(state.y, t, no_memory(t, self.channels, dtype), True)
        state = tree.where(jnp.asarray(state.has_begun), state, begun)
        memory, seen = remember(state.memory, t, x, mask)
        if isinstance(self.flow, AbstractKnownFlow):
            known, before, after = past(self.flow, self._read, Known(state.y, state.t), seen)
        else:
            sol = self._solved(state.y, state.t, t, args, knots=t[None])
            before = jax.tree.map(lambda y: y[-1], sol.ys)
            after = self._read(before, seen)
            known = Known(after, t)
        said = (self.readout(before), self.readout(after))
        return Stream(known.y, known.t, memory, jnp.array(True)), said

    def _ready(self, rows: Observation) -> Any:
        """What the reset makes of all rows at once, before any state is known."""
        ahead = getattr(self.reset, "ahead", None)
        return None if ahead is None else jax.vmap(ahead)(rows)

    def _read(self, y: State, row: Observation, ready: Any = None) -> State:
        """The state after a row; a row without a reading changes nothing."""
        after = self.reset(y, row) if ready is None else self.reset(y, row, ready)
        return tree.where(jnp.any(row.mask), after, y)

    def _solved(
        self, y0: State, t0: Time, t1: Time, args: Args, *, knots: Any, ts: Any = None,
        resets: Resets | None = None, key: Any = None,
    ) -> Solution:  # fmt: skip
        controller, dt0 = self.controller, self.dt0
        if self.steps_per_gap is not None:
            controller = StepsPerGap(knots, self.steps_per_gap)
        elif dt0 is None and not isinstance(controller, (diffrax.StepTo, StepsPerGap)):
            dt0 = t1 - t0  # an attempt at all of the first gap, as at all others
        return diffeqsolve(
            diffrax.ODETerm(self.flow),  # pyright: ignore[reportArgumentType]
            self.solver, t0, t1, dt0, y0, args, resets=resets, stepsize_controller=controller,
            saveat=diffrax.SaveAt(t1=True) if ts is None else diffrax.SaveAt(ts=ts),
            adjoint=self.adjoint, max_steps=self.max_steps, throw=self.throw, costs=self.costs,
            key=key,
        )  # fmt: skip

    def _said(
        self, series: Series, y0: State, before: State, after: State, values: State | None
    ) -> Flowed:
        """Predictions of the states; those in the padding are made of the start, and dropped."""
        real, rows = series.is_real, len(series.ts)
        start = jax.tree.map(lambda y: jnp.broadcast_to(y, (rows, *jnp.shape(y))), y0)
        read = jax.vmap(self.readout)

        def predictions(states: State) -> Any:
            return tree.masked(real, read(tree.where(real, states, start)))

        last = tree.read(after, series.length - 1)
        said = None if values is None else read(values)
        return Flowed(predictions(before), predictions(after), self.readout(last), said, last)


def _not_later(t0: Any, series: Series, ts: Any) -> Any:
    """`t0`, if no row comes before it, and the times that are asked for come in order behind it."""
    t0 = check(t0, t0 > series.ts[0], "The series must not begin before `t0`.", (t0, series.ts[0]))
    if ts is None:
        return t0
    ts = jnp.asarray(ts, t0.dtype)
    bad = jnp.any(ts < t0) | jnp.any(ts[1:] < ts[:-1])
    return check(t0, bad, "`ts` must run in order from `t0` on.", (ts,))
