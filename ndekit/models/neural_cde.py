"""A neural controlled differential equation along an irregular series."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import diffrax
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, UInt

from .. import controls
from ..choices import check_choice
from ..controls import Windows
from ..data import Series
from ..data.series import single
from ..fields import Affine, CDEField
from ..integrate import ReplayAdjoint, Solution
from ..numbers import positive
from ..shapes import Time
from .cde_checks import check_dtype, check_sizes, check_steps, kind_of
from .cde_control import (
    Counts,
    Scheme,
    first_state,
    num_channels,
    pieces_of,
    scheme_of,
    since_window_began,
    times_asked,
    windows_of,
)
from .cde_solves import in_time, in_windows, inside_windows
from .cde_stream import AbstractStreamed, CDEState, start_of
from .window_time import Stretch

Times = Float[Array, " ts"] | Literal["readings"] | None


class NeuralCDE(AbstractStreamed):
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
            predictions on the way and for `step`. By default `"hermite"` for adaptive steps without
            windows, else `"linear"`: a step of Heun's method along a line takes exactly its
            increment.
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
            equal, `substeps` of them in each window: that is the faster.
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
        dtype: of the parameters, of 32 bits or more; JAX's default float if `None`.

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
        self.order, self.windows, self.scheme = kind_of(
            order, windows, scheme, adaptive=controller is not None
        )
        check_choice("counts", counts, get_args(Counts))
        check_sizes(channels, hidden_size, out_size, static_size, substeps, max_steps)
        positive("per", per)
        check_dtype(dtype)
        check_steps(controller, dt0, substeps)
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
        series = single(series, "NeuralCDE", self.channels)
        at = times_asked(series, ts)
        control = controls.channels(series, self.time, self.counts, per=self.per)
        scheme = scheme_of(self.scheme, self.time, self.start)
        if self.windows is not None:
            cut = control, self.order, self.windows, scheme
            stretch, x0 = windows_of(*cut)
            y0 = first_state(self, x0, static)
            if at is None:
                solution = in_windows(self, stretch, y0, key=key)
            else:
                solution = inside_windows(self, stretch, y0, since_window_began(*cut, at), key)
        else:
            path = scheme(control)
            y0 = first_state(self, path.evaluate(path.t0), static)
            if self.controller is not None and self.scheme == "hermite":
                solution = in_time(self, path, y0, at, key)
            else:
                solution = in_windows(self, pieces_of(path), y0, ts=at, key=key)
        assert solution.ys is not None
        return self.readout(solution.ys[-1] if at is None else solution.ys), solution

    def init(self, static: Float[Array, " static"] | None = None) -> CDEState:
        """The state of a stream before its first reading, for `step`.

        Raises:
            ValueError: if the scheme is not causal, or windows are not counted in readings.
        """
        return start_of(self, static)

    def flowed(self, stretch: Stretch, y0: Float[Array, " hidden"]) -> Float[Array, " hidden"]:
        """The state behind windows, of that before them."""
        solution = in_windows(self, stretch, y0)
        assert solution.ys is not None
        return solution.ys[-1]
