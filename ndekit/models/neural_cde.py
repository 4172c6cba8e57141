"""A neural controlled differential equation along an irregular series."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, UInt

from .. import controls
from ..controls import Windows
from ..data import Series
from ..fields import Affine, CDEField, LogField
from ..fields.cde import driven
from ..fields.choices import check_choice
from ..integrate import ReplayAdjoint, Solution, diffeqsolve
from ..numbers import count, counts, positive, real
from ..shapes import Args, Time
from .cde_control import (
    Counts,
    Scheme,
    increment_rate,
    num_channels,
    pieces_of,
    scheme_of,
    single,
    windows_of,
)
from .cde_stream import CDEState, pushed, start_of
from .window_time import AdaptiveSteps, EqualSteps, Stretch, remembers_rates

Times = Float[Array, " ts"] | Literal["readings"] | None


class NeuralCDE(eqx.Module):
    r"""$dy = f_\theta(y)\, dX$ with $y(t_0) = \zeta_\theta(X(t_0))$, along a control $X$ that is
    made of a series; the prediction is a read-out of $y$.

    It takes a [`ndekit.data.Series`][] as it is: with its own times, gaps and length. The control's
    channels are the time, counts of readings if asked for, and the values. Of a padded series each
    solve ends at its own last reading, whatever stands behind; `jax.vmap(model)(batch)` is for
    batches.

    With `order` 2 or 3 it is a log-NCDE: the series is cut into `windows`, and the state flows for
    one unit of time along the field's brackets by the log-signature of each
    ([`ndekit.fields.LogField`][]). A long series then takes a step a window instead of one a
    reading.

    Args:
        channels: of the series, at least 1.
        hidden_size: of the state, at least 1.
        out_size: of a prediction, at least 1.
        order: 1, 2 or 3: how deep the log-signature is; 1 has none unless there are `windows`.
        windows: where the series is cut, see [`ndekit.controls.Windows`][]; by default at each
            reading for order 1, and every 8 readings above.
        scheme: how readings become a control: `"hermite"` (smooth; order 1 without windows),
            `"linear"`, or `"rectilinear"`, the one that knows nothing of what comes later, for
            predictions on the way and for `step`. By default the first that is allowed.
        time: whether the time is a channel of the control.
        counts: of readings so far, as further channels: `"each"` (one for each channel: whenever
            something is missing), `"rows"` (one in all), `"none"`.
        per: counts are divided by it; a typical count keeps them near 1.
        start: what a channel has before its first reading; by default that reading, or 0 for
            `"rectilinear"`.
        static_size: how many numbers beside the series the first state is given.
        width: units in a hidden layer of the field.
        depth: hidden layers of the field.
        field: in place of the default field, [`ndekit.fields.CDEField`][]; one with a matrix
            `(hidden, channels of the control)`.
        solver: any diffrax solver.
        controller: a diffrax step size controller for adaptive steps. By default steps are
            equal, `substeps` of them in each window: that trains as well, and is the faster.
        substeps: steps from reading to reading, or in each window.
        dt0: the first step of adaptive steps; `None` lets the controller choose.
        adjoint: how to differentiate the solve.
        costs: step costs by name, read back as `solution.costs`. Their unit of time is the window
            (from reading to reading; of a rectilinear control half of that), and that of `ts` where
            a Hermite control is solved by adaptive steps. What needs tolerances, as `StepCount`,
            needs a `controller`.
        max_steps: a solve that needs more is an error; `None` for as many as equal steps take, or
            4096 adaptive ones.
        throw: whether a failed solve raises; if not, look at `solution.result`.
        key: draws the weights.
        dtype: of the parameters; JAX's default float if `None`.

    Raises:
        ValueError: for sizes, names or numbers out of range, or options that do not go together;
            when called, for another series than it was made for, and what
            [`ndekit.diffeqsolve`][] raises.

    Normalise the values (mean 0, deviation 1) and the time (a few units in all).

    Example:
        ```python
        import jax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        ts = jnp.sort(jr.uniform(jr.key(0), (5, 30)), axis=-1)
        batch = nk.data.Series(ts, jnp.stack([jnp.sin(6 * ts), jnp.cos(6 * ts)], axis=-1))
        model = nk.models.NeuralCDE(2, hidden_size=8, out_size=3, key=jr.key(1))
        logits, solution = jax.vmap(model)(batch)
        assert logits.shape == (5, 3)
        on_the_way, _ = model(batch[0], ts="readings")
        assert on_the_way.shape == (30, 3)
        ```

    References: Kidger, Morrill, Foster and Lyons (2020), arXiv 2005.08926; Walker, McLeod, Qin,
    Cheng, Li and Lyons (2024), "Log neural controlled differential equations", arXiv 2402.18512.
    """

    initial: Callable
    field: Callable
    readout: Callable
    windows: Windows | None
    start: Any
    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController | None
    adjoint: Any
    costs: Mapping[str, Any]
    dt0: Time | None
    per: float
    order: int = eqx.field(static=True)
    scheme: Scheme = eqx.field(static=True)
    time: bool = eqx.field(static=True)
    counts: Counts = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    static_size: int = eqx.field(static=True)
    substeps: int = eqx.field(static=True)
    max_steps: int | None = eqx.field(static=True)
    throw: bool = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        hidden_size: int,
        out_size: int,
        *,
        order: int = 1,
        windows: Windows | None = None,
        scheme: Scheme | None = None,
        time: bool = True,
        counts: Counts = "none",
        per: float = 1.0,
        start: Any = None,
        static_size: int = 0,
        width: int = 64,
        depth: int = 1,
        field: Callable | None = None,
        solver: diffrax.AbstractSolver = diffrax.Heun(),
        controller: diffrax.AbstractStepSizeController | None = None,
        substeps: int = 1,
        dt0: Time | None = None,
        adjoint: Any = ReplayAdjoint(),
        costs: Mapping[str, Any] | None = None,
        max_steps: int | None = None,
        throw: bool = True,
        key: Key[Array, ""] | UInt[Array, "2"],
        dtype: jnp.dtype | type | None = None,
    ):
        self.order, self.windows, self.scheme = _kind(order, windows, scheme)
        check_choice("counts", counts, get_args(Counts))
        _check_sizes(channels, hidden_size, out_size, static_size, substeps, max_steps)
        positive("per", per)
        if dt0 is not None:
            real("dt0", dt0)
        _check_steps(controller, dt0, substeps)
        inputs = num_channels(channels, time, counts)
        keys = jr.split(key, 3)
        self.initial = Affine(inputs + static_size, hidden_size, key=keys[0], dtype=dtype)
        if field is None:
            field = CDEField(hidden_size, inputs, width, depth, key=keys[1], dtype=dtype)
        self.field = field
        self.readout = Affine(hidden_size, out_size, key=keys[2], dtype=dtype)
        self.start = 0.0 if start is None and self.scheme == "rectilinear" else start
        self.time, self.counts, self.per = time, counts, per
        self.channels, self.static_size = channels, static_size
        self.solver, self.controller, self.adjoint = solver, controller, adjoint
        self.costs = {} if costs is None else costs
        self.substeps, self.dt0, self.max_steps, self.throw = substeps, dt0, max_steps, throw

    def __call__(
        self,
        series: Series,
        ts: Times = None,
        static: Float[Array, " static"] | None = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"] | None = None,
    ) -> tuple[Float[Array, "*ts out"], Solution]:
        """The prediction, and the solution that it comes from.

        Args:
            series: a single one.
            ts: nothing, for a prediction at the end; `"readings"` for one at each row; or times,
                in order. Those beyond the ends, and rows of padding, give what is known at the end.
                At a reading's own time it is known.
            static: numbers beside the series, `(static_size,)`.
            key: for costs that draw.

        Returns:
            Predictions, `(out,)` or `(ts, out)`, and a solution whose `ys` are the states there.
        """
        series = single(series, self.channels, "NeuralCDE")
        if isinstance(ts, str):
            check_choice("ts", ts, ("readings",))
            ts = series.ts
        control = controls.channels(series, self.time, self.counts, per=self.per)
        scheme = scheme_of(self.scheme, self.time, self.start)
        if self.windows is not None:
            stretch, x0 = windows_of(control, self.order, self.windows, scheme)
            solution = self._in_windows(stretch, self._first(x0, static), ts, key)
        else:
            path = scheme(control)
            y0 = self._first(path.evaluate(path.t0), static)
            if self.controller is not None and self.scheme == "hermite":
                solution = self._in_time(path, y0, ts, key)
            else:
                solution = self._in_windows(pieces_of(path), y0, ts, key)
        assert solution.ys is not None
        return self.readout(solution.ys[-1] if ts is None else solution.ys), solution

    def init(self, static: Float[Array, " static"] | None = None) -> CDEState:
        """The state of a stream before its first reading, for `step`.

        Raises:
            ValueError: if the scheme is not causal, or windows are not counted in readings.
        """
        return start_of(self, static)

    def step(
        self, state: CDEState, t: Time, x: Float[Array, " channels"], mask: Any = None
    ) -> tuple[CDEState, Float[Array, " out"]]:
        """One more reading of a stream, and the prediction from all that is known by then: the same
        that the model gives of the whole series at its last row.

        Args:
            state: of `init`, or of the last `step`.
            t: the time of the reading, after that of the last one.
            x: its numbers, `(channels,)`.
            mask: which are there; by default those that are not NaN.
        """
        state, y = pushed(self, state, t, x, mask)
        return state, self.readout(y)

    def _first(self, x0: Array, static: Array | None) -> Array:
        """The state at the start of the control."""
        got = None if static is None else jnp.shape(static)
        if got != ((self.static_size,) if self.static_size else None):
            raise ValueError(
                f"This `NeuralCDE` was made with `static_size={self.static_size}`, but got "
                f"`static` of shape {got}."
            )
        return self.initial(x0 if static is None else jnp.concatenate([x0, static]))

    def _in_windows(
        self, stretch: Stretch, y0: Array, ts: Array | None, key: Any = None
    ) -> Solution:
        """The solve from window to window, with the times of the series in its solution."""
        inner = LogField(self.field, self.order) if self.windows is not None else None

        def rate(s: Time, y: Array, args: Args) -> Array:
            row, inside, t = stretch.at(s)
            if inner is not None:
                return inner(t, y, row)
            return driven(self.field, t, y, increment_rate(row, inside))

        number, jumps = len(stretch.edges) - 1, remembers_rates(self.solver)
        controller: Any = EqualSteps(self.substeps, jumps)
        most = number * self.substeps
        if self.controller is not None:
            controller, most = AdaptiveSteps(self.controller, jumps), 4096
        save = diffrax.SaveAt(t1=True) if ts is None else diffrax.SaveAt(ts=stretch.places(ts))
        solution = self._solve(rate, jnp.zeros_like(stretch.end), stretch.end, y0, save, controller,
                               most, key)  # fmt: skip
        first, last = stretch.edges[0], stretch.edges[-1]
        at = last[None] if ts is None else jnp.clip(ts, first, last)
        return dataclasses.replace(solution, t0=first, t1=last, ts=at)

    def _in_time(self, path: Any, y0: Array, ts: Array | None, key: Any) -> Solution:
        """The solve in the time of the series, where steps may go across readings."""
        rate = lambda t, y, args: driven(self.field, t, y, path.derivative(t).astype(y.dtype))
        save = diffrax.SaveAt(t1=True)
        if ts is not None:
            save = diffrax.SaveAt(ts=jax.vmap(path.parameter)(ts))
        return self._solve(rate, path.t0, path.t1, y0, save, self.controller, 4096, key)

    def _solve(
        self, rate: Callable, t0: Any, t1: Any, y0: Array, saveat: diffrax.SaveAt,
        controller: Any, most: int, key: Any,
    ) -> Solution:  # fmt: skip
        return diffeqsolve(
            diffrax.ODETerm(rate), self.solver, t0, t1, self.dt0, y0, saveat=saveat,
            stepsize_controller=controller, adjoint=self.adjoint, throw=self.throw,
            max_steps=most if self.max_steps is None else self.max_steps,
            costs=self.costs, key=key,
        )  # fmt: skip


def _kind(
    order: int, windows: Windows | None, scheme: Scheme | None
) -> tuple[int, Windows | None, Scheme]:
    if count("order", order) > 3:
        raise ValueError(f"`order` must be 1, 2 or 3, got {order}.")
    if windows is None and order > 1:
        windows = Windows.every(8)
    if not isinstance(windows, Windows | None):
        raise ValueError(
            f"`windows` must be a `nk.controls.Windows`, got {type(windows).__name__}. "
            "Use for example `nk.controls.Windows.every(8)`."
        )
    if scheme is None:
        scheme = "hermite" if windows is None else "linear"
    check_choice("scheme", scheme, get_args(Scheme))
    if windows is not None and scheme == "hermite":
        raise ValueError(
            "Log-signatures in windows are those of straight lines: use `scheme='linear'` or "
            "`'rectilinear'`, or order 1 without windows."
        )
    return order, windows, scheme


def _check_sizes(
    channels: int, hidden: int, out: int, static: int, substeps: int, max_steps: int | None
) -> None:
    counts(channels=channels, hidden_size=hidden, out_size=out, substeps=substeps)
    count("static_size", static, 0)
    if max_steps is not None:
        count("max_steps", max_steps)


def _check_steps(controller: Any, dt0: Any, substeps: int) -> None:
    if controller is None and dt0 is not None:
        raise ValueError(
            "`dt0` is the first of adaptive steps. Give a `controller`, or set the length of equal "
            "steps by `substeps`."
        )
    if controller is not None and not isinstance(
        controller, diffrax.AbstractAdaptiveStepSizeController
    ):
        raise ValueError(
            f"`controller` must be an adaptive one, such as `diffrax.PIDController`, got "
            f"{type(controller).__name__}. Equal steps are those of `controller=None`."
        )
    if controller is not None and substeps != 1:
        raise ValueError("`substeps` are those of equal steps. Leave them or `controller` out.")
