"""A linear controlled differential equation along an irregular series."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, UInt

from .. import controls
from ..choices import check_choice
from ..controls import LogSignature, Windows
from ..data import Series
from ..data.series import single
from ..fields import Affine, LinearField
from ..numbers import count, positive
from ..numbers import counts as counts_of
from .cde_checks import check_dtype, kind_of
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
from .cde_stream import AbstractStreamed, CDEState, start_of
from .linear_flow import Crossed, Flow, Increments, flow_along, flow_matrices, moved
from .window_time import Beginnings, Stretch

Times = Float[Array, " ts"] | Literal["readings"] | None
Reduce = Literal["last", "mean"]


class LinearSolution(NamedTuple):
    r"""The states of a linear equation.

    Attributes:
        ts: times of the series.
        ys: states there: at the end, or where they were asked for.
        generator_size: the mean over windows of the mean square of the entries of $\Omega$. As a
            penalty it keeps products of many exponentials from growing.
    """

    ts: Float[Array, " ts"]
    ys: Float[Array, "ts hidden"]
    generator_size: Float[Array, ""]


class LinearCDE(AbstractStreamed):
    r"""$dy = \sum_i A_i y\, dX^i$ with $y(t_0) = \zeta_\theta(X(t_0))$, along a control $X$ that is
    made of a series; the prediction is a read-out of $y$.

    No network is evaluated on the way and no step is tried: the state crosses a window by
    $y \mapsto \exp(\Omega)\, y$, with $\Omega$ made of the window's log-signature
    ([`ndekit.fields.LinearField`][]). With order 1 and no windows that is exact for the piecewise
    linear control, whatever the gaps. The matrices are made in chunks, all windows of one at once.

    It takes a [`ndekit.data.Series`][] as it is, with its own times, gaps and length;
    `jax.vmap(model)(batch)` is for batches.

    Args:
        channels: of the series, at least 1.
        hidden_size: of the state, a multiple of `block_size`.
        out_size: of a prediction, at least 1.
        order: 1, 2 or 3: how deep the log-signature is.
        windows: where the series is cut, see [`ndekit.controls.Windows`][]; by default at each
            reading for order 1, and every 8 readings above.
        scheme: how readings become a control: `"linear"`, or `"rectilinear"`, the one that knows
            nothing of what comes later, for predictions on the way and for `step`.
        block_size: of the matrices' blocks: 1 for diagonal, `hidden_size` for dense ones.
        affine: whether the field has offsets, $A_i y + b_i$.
        skew: whether matrices are skew-symmetric, and states of constant norm.
        scale: of the initial matrices, see [`ndekit.fields.LinearField`][].
        flow: `"exp"`, or `"euler"` for $I + \Omega$, the shortcut of the published code: half of
            what the brackets add is of the size of the term $\Omega^2 / 2$ that it leaves out.
        reduce: what is read out at the end: the `"last"` state, or the `"mean"` of the states
            behind all windows.
        chunk: windows whose matrices are in memory at once.
        parallel: whether the products of a chunk are made as a tree, in about log(chunk) steps,
            or one state after the other. By default on accelerators alone: on a CPU it is slower.
        time: whether the time is a channel of the control.
        counts: of readings so far, as further channels: `"each"` (one for each channel: whenever
            something is missing), `"rows"` (one in all), `"none"`.
        per: counts are divided by it; a typical count keeps them near 1.
        start: what a channel has before its first reading; by default that reading, or 0 for
            `"rectilinear"`.
        static_size: how many numbers beside the series the first state is given.
        key: draws the weights.
        dtype: of the parameters, of 32 bits or more; JAX's default float if `None`.

    Raises:
        ValueError: for sizes, names or numbers out of range, or options that do not go together;
            when called, for another series than it was made for.

    Example:
        ```python
        import jax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        ts = jnp.sort(jr.uniform(jr.key(0), (5, 30)), axis=-1)
        batch = nk.data.Series(ts, jnp.stack([jnp.sin(6 * ts), jnp.cos(6 * ts)], axis=-1))
        model = nk.models.LinearCDE(2, hidden_size=16, out_size=3, key=jr.key(1))
        logits, solution = jax.vmap(model)(batch)
        assert logits.shape == (5, 3) and solution.ys.shape == (5, 1, 16)
        ```

    Reference: Walker, Yang, Cirone, Salvi and Lyons (2025), "Structured linear CDEs: maximally
    expressive and parallel-in-time sequence models", arXiv 2505.17761.
    """

    initial: Callable
    field: LinearField
    readout: Callable
    windows: Windows | None
    start: Any
    per: float
    order: int = eqx.field(static=True)
    scheme: Scheme = eqx.field(static=True)
    flow: Flow = eqx.field(static=True)
    reduce: Reduce = eqx.field(static=True)
    chunk: int = eqx.field(static=True)
    parallel: bool | None = eqx.field(static=True)
    time: bool = eqx.field(static=True)
    counts: Counts = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    static_size: int = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        hidden_size: int,
        out_size: int,
        *,
        order: int = 1,
        windows: Windows | None = None,
        scheme: Scheme = "linear",
        block_size: int = 4,
        affine: bool = False,
        skew: bool = False,
        scale: float = 0.25,
        flow: Flow = "exp",
        reduce: Reduce = "last",
        chunk: int = 64,
        parallel: bool | None = None,
        time: bool = True,
        counts: Counts = "none",
        per: float = 1.0,
        start: Any = None,
        static_size: int = 0,
        key: Key[Array, ""] | UInt[Array, "2"],
        dtype: jnp.dtype | type | None = None,
    ):
        self.order, self.windows, self.scheme = kind_of(order, windows, scheme)
        if scheme == "hermite":
            raise ValueError("A linear equation is solved along straight lines: use "
                             "`scheme='linear'` or `'rectilinear'`.")  # fmt: skip
        check_choice("flow", flow, get_args(Flow))
        check_choice("reduce", reduce, get_args(Reduce))
        check_choice("counts", counts, get_args(Counts))
        counts_of(channels=channels, hidden_size=hidden_size, out_size=out_size, chunk=chunk)
        count("static_size", static_size, 0)
        positive("per", per)
        check_dtype(dtype)
        inputs = num_channels(channels, time, counts)
        keys = jr.split(key, 3)
        self.initial = Affine(inputs + static_size, hidden_size, key=keys[0], dtype=dtype)
        self.field = LinearField(
            hidden_size, inputs, block_size=block_size, affine=affine, skew=skew, scale=scale,
            key=keys[1], dtype=dtype,
        )  # fmt: skip
        self.readout = Affine(hidden_size, out_size, key=keys[2], dtype=dtype)
        self.start = 0.0 if start is None and scheme == "rectilinear" else start
        self.flow, self.reduce, self.chunk, self.parallel = flow, reduce, chunk, parallel
        self.time, self.counts, self.per = time, counts, per
        self.channels, self.static_size = channels, static_size

    def __call__(
        self,
        series: Series,
        ts: Times = None,
        static: Float[Array, " static"] | None = None,
    ) -> tuple[Float[Array, "*ts out"], LinearSolution]:
        """The prediction, and the states that it comes from.

        Args:
            series: a single one.
            ts: nothing, for a prediction at the end; `"readings"` for one at each row; or times,
                in order. Those beyond the ends, and rows of padding, give what is known at the end.
                At a reading's own time it is known.
            static: numbers beside the series, `(static_size,)`.

        Returns:
            Predictions, `(out,)` or `(ts, out)`, and a [`ndekit.models.LinearSolution`][].
        """
        series = single(series, "LinearCDE", self.channels)
        at = times_asked(series, ts)
        control = controls.channels(series, self.time, self.counts, per=self.per)
        scheme = scheme_of(self.scheme, self.time, self.start)
        if self.windows is not None:
            cut = control, self.order, self.windows, scheme
            stretch, x0 = windows_of(*cut)
            until = None if at is None else since_window_began(*cut, at)
        else:
            path = scheme(control)
            stretch, x0 = pieces_of(path), path.evaluate(path.t0)
            until = None if at is None else _inside_pieces(stretch, at)
        y0 = first_state(self, x0, static)
        flowed = self._along(stretch, y0, keep=until is not None)
        number = jnp.maximum(stretch.number, 1).astype(y0.dtype)
        size = flowed.size / number
        if until is None:
            last = flowed.last
            if self.reduce == "mean":
                last = jnp.where(stretch.number > 0, flowed.total / number, y0)
            return self.readout(last), LinearSolution(stretch.edges[-1:], flowed.last[None], size)
        assert flowed.ys is not None
        ys = self._cross(until.rows, jnp.concatenate([y0[None], flowed.ys])[until.over])
        return self.readout(ys), LinearSolution(until.edges[:, 1], ys, size)

    def init(self, static: Float[Array, " static"] | None = None) -> CDEState:
        """The state of a stream before its first reading, for `step`.

        Raises:
            ValueError: if the scheme is not causal, windows are not counted in readings, or the
                mean is read out.
        """
        if self.reduce != "last":
            raise ValueError("A stream reads out its last state: use `reduce='last'`.")
        return start_of(self, static)

    def flowed(self, stretch: Stretch, y0: Float[Array, " hidden"]) -> Float[Array, " hidden"]:
        """The state behind windows, of that before them."""
        return self._along(stretch, y0, keep=False).last

    def _along(self, stretch: Stretch, y0: Array, keep: bool) -> Crossed:
        parallel = self.parallel
        if parallel is None:
            parallel = jax.default_backend() != "cpu"
        is_real = jnp.arange(len(stretch.edges) - 1, dtype=jnp.int32) < stretch.number
        return flow_along(
            self.field, as_levels(stretch.rows), y0, is_real, flow=self.flow, chunk=self.chunk,
            parallel=parallel, keep=keep,
        )  # fmt: skip

    def _cross(self, rows: Any, ys: Float[Array, "ts hidden"]) -> Float[Array, "ts hidden"]:
        """Each state across a window of its own."""
        matrices, _ = flow_matrices(self.field, as_levels(rows), self.flow)
        return moved(self.field, matrices, ys)


def as_levels(rows: Any) -> Any:
    """Increments as log-signatures of depth 1, which have no more than that."""
    return rows if isinstance(rows, LogSignature) else Increments((rows,))


def _inside_pieces(stretch: Stretch, ts: Array) -> Beginnings:
    """What the control does from the beginning of the piece that a time lies in up to this time."""
    places = stretch.places(ts)
    over = jnp.floor(places / 2).astype(jnp.int32)
    rows, inside, t = jax.vmap(stretch.at)(places)
    rows = rows * inside[:, None].astype(rows.dtype)
    edges = jnp.stack([stretch.edges[over], t], axis=1)
    return Beginnings(rows, edges, over)
