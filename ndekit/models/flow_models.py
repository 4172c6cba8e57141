"""Flow-and-reset models by name: ODE-RNN, GRU-D, GRU-ODE-Bayes, neural jump ODEs."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Key, UInt

from ..fields import MLP, GRUFlow
from ..numbers import count, counts
from .flow_reset import FlowReset
from .flow_resets import GRUReset, Replace, Surprise
from .flow_states import (
    Decays,
    Fed,
    FromStatic,
    JumpField,
    Prediction,
    ReadDecaying,
    ResidualTanh,
    ZeroDecaying,
    ZeroJump,
    Zeros,
)
from .known_flow import Stays

AnyKey = Key[Array, ""] | UInt[Array, "2"]


def ODERNN(  # noqa: N802
    channels: int, hidden_size: int, out_size: int, *, width: int = 64, depth: int = 1,
    gap: bool = False, readout_width: int | None = None, key: AnyKey, **options: Any,
) -> FlowReset:  # fmt: skip
    r"""A recurrent network whose state flows between the observations: $h' = f(h)$, and
    $h = \mathrm{GRU}([x, m], h)$ at each.

    Args:
        channels: of the series.
        hidden_size: of the state.
        out_size: of a prediction.
        width, depth: of the network $f$, tanh, with a scaled tanh at its end.
        gap: whether the cell is told the time since the row before, too.
        readout_width: of the hidden layer of the readout; `None` for an affine one.
        key: draws the weights.
        options: of [`ndekit.models.FlowReset`][].

    Example:
        ```python
        import jax.random as jr, numpy as np, ndekit as nk

        model = nk.models.ODERNN(1, 8, 1, costs={"steps": nk.StepCount()}, key=jr.key(0))
        series = nk.data.Series([0.0, 0.3, 1.0], np.ones((3, 1)))
        said, sol = model(series)
        ```

    Reference: Rubanova, Chen and Duvenaud (2019), "Latent ODEs for irregularly-sampled time
    series", arXiv 1907.03907.
    """
    counts(channels=channels, hidden_size=hidden_size, out_size=out_size)
    keys = jr.split(key, 3)
    return FlowReset(
        start=Zeros(hidden_size),
        flow=MLP(hidden_size, width, depth, key=keys[0]),
        reset=GRUReset(channels, hidden_size, gap=gap, key=keys[1]),
        readout=_readout(hidden_size, out_size, readout_width, keys[2]),
        channels=channels,
        **options,
    )


def GRUDt(  # noqa: N802
    channels: int, hidden_size: int, out_size: int, *, readout_width: int | None = None,
    key: AnyKey, **options: Any,
) -> FlowReset:  # fmt: skip
    r"""A recurrent network that is told the time since the row before:
    $h = \mathrm{GRU}([x, m, \Delta], h)$, constant in between. The plainest yardstick.

    Args:
        channels, hidden_size, out_size, readout_width, key, options: as for
            [`ndekit.models.ODERNN`][].
    """
    counts(channels=channels, hidden_size=hidden_size, out_size=out_size)
    keys = jr.split(key, 2)
    return FlowReset(
        start=Zeros(hidden_size),
        flow=Stays(),
        reset=GRUReset(channels, hidden_size, gap=True, key=keys[0]),
        readout=_readout(hidden_size, out_size, readout_width, keys[1]),
        channels=channels,
        **options,
    )


def GRUD(  # noqa: N802
    channels: int, hidden_size: int, out_size: int, *, readout_width: int | None = None,
    key: AnyKey, **options: Any,
) -> FlowReset:  # fmt: skip
    r"""A recurrent network whose state and whose last readings decay: with $\delta$ the time since
    the last reading of each channel, $h \leftarrow e^{-\max(0, W \delta + b)} h$, and what is
    missing is $\gamma x_\mathrm{last}$ with $\gamma = e^{-\max(0, w \delta + b')}$, towards the
    mean 0 of standardised channels.

    Args:
        channels, hidden_size, out_size, readout_width, key, options: as for
            [`ndekit.models.ODERNN`][]. No steps are taken, so there are no costs.

    Reference: Che, Purushotham, Cho, Sontag and Liu (2018), "Recurrent neural networks for
    multivariate time series with missing values", Scientific Reports 8, 6085.
    """
    counts(channels=channels, hidden_size=hidden_size, out_size=out_size)
    keys = jr.split(key, 3)
    return FlowReset(
        start=ZeroDecaying(channels, hidden_size),
        flow=Decays(channels, hidden_size, key=keys[0]),
        reset=ReadDecaying(channels, hidden_size, key=keys[1]),
        readout=Prediction(_readout(hidden_size, out_size, readout_width, keys[2]), "h"),
        channels=channels,
        **options,
    )


def GRUODEBayes(  # noqa: N802
    channels: int, *, hidden_size: int = 50, prediction_width: int = 25, prepared: int = 10,
    static_size: int = 0, impute: bool = False, key: AnyKey, **options: Any,
) -> FlowReset:  # fmt: skip
    r"""A continuous GRU that predicts a Gaussian for each channel, and is told how far off it was.

    $h' = (1 - z)(u - h)$, see [`ndekit.fields.GRUFlow`][]; the prediction is mean and log variance,
    `(2, channels)`, by a network of $h$. A row is read through $q = \max(0, W_c [x, \mu,
    \log \sigma^2, (x - \mu) / \sigma] + b_c)$ of each channel that is there, by a GRU cell.
    [`ndekit.models.bayes_loss`][] is its loss.

    Args:
        channels: of the series.
        hidden_size: of the state.
        prediction_width: of the hidden layer of the prediction.
        prepared: numbers that each channel hands to the cell.
        static_size: of what the state starts from, `tanh` of a network of it; 0 for a start at 0.
        impute: whether the prediction feeds back into the flow. The published scripts do without:
            an autonomous field without biases.
        key: draws the weights.
        options: of [`ndekit.models.FlowReset`][].

    Reference: De Brouwer, Simm, Arany and Moreau (2019), "GRU-ODE-Bayes", arXiv 1905.12374.
    """
    counts(channels=channels, hidden_size=hidden_size, prepared=prepared)
    count("prediction_width", prediction_width)
    count("static_size", static_size, 0)
    keys = jr.split(key, 4)
    predict = eqx.nn.MLP(hidden_size, 2 * channels, prediction_width, 1, key=keys[0])
    readout = Prediction(predict, None, (2, channels))
    inputs = 2 * channels if impute else 0
    flow = GRUFlow(hidden_size, input_size=inputs, kind="minimal", bias=impute, key=keys[1])
    start: Callable = Zeros(hidden_size)
    if static_size:
        start = FromStatic(static_size, hidden_size, key=keys[3])
    return FlowReset(
        start=start,
        flow=Fed(flow, readout) if impute else flow,
        reset=Surprise(channels, hidden_size, prepared, readout, key=keys[2]),
        readout=readout,
        channels=channels,
        **options,
    )


def JumpODE(  # noqa: N802
    channels: int, *, hidden_size: int = 10, width: int = 50, depth: int = 2, key: AnyKey,
    **options: Any,
) -> FlowReset:  # fmt: skip
    r"""The best prediction of a process given its observations so far: the state is replaced, not
    updated, at each of them.

    $h' = f(\tanh x_\mathrm{last}, \tanh h, \tau, t - \tau)$ with $\tau$ the time of the last row,
    $h = \mathrm{enc}(x)$ at each row, and predictions $g(h)$ of the channels; enc and $g$ are tanh
    networks of $\tanh$ of their input, plus the input itself (repeated, or averaged, to fit). What
    is missing of a row is the prediction. Trained by [`ndekit.models.jump_loss`][] it is the
    conditional expectation $E[X_t \mid \text{observations up to } t]$.

    Adaptive steps look at $(h, x_\mathrm{last}, \tau)$, of which only $h$ moves.

    Args:
        channels: of the series.
        hidden_size: of the state.
        width, depth: of the three networks.
        key: draws the weights.
        options: of [`ndekit.models.FlowReset`][].

    Reference: Herrera, Krach and Teichmann (2021), "Neural jump ordinary differential equations",
    arXiv 2006.04727.
    """
    counts(channels=channels, hidden_size=hidden_size, width=width)
    count("depth", depth, 0)
    keys = jr.split(key, 3)
    net = lambda size, out, key: ResidualTanh(size, out, width, depth, key=key)
    readout = Prediction(net(hidden_size, channels, keys[2]), "h")
    return FlowReset(
        start=ZeroJump(channels, hidden_size),
        flow=JumpField(channels, hidden_size, width, depth, key=keys[0]),
        reset=Replace(net(channels, hidden_size, keys[1]), readout),
        readout=readout,
        channels=channels,
        **options,
    )


def _readout(hidden: int, out: int, width: int | None, key: Any) -> Callable:
    if width is None:
        return eqx.nn.Linear(hidden, out, key=key)
    return eqx.nn.MLP(hidden, out, count("readout_width", width), 1, jnp.tanh, key=key)
