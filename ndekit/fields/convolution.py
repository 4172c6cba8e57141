"""Convolutions on grids as a vector field."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, UInt

from ..choices import check_choice
from ..numbers import count, counts
from ..shapes import Args, Time, time_in
from .over_samples import over_samples

Border = Literal["zeros", "circular"]


class ConvField(eqx.Module):
    r"""Convolutions on $y$ of `(channels, *grid)`, each with $t w$ added to its channels.

    For images, or for what lives on a grid. The field has no size of grid and treats all places
    alike: where $y$ is shifted, so are the rates, with `border="circular"` everywhere and else as
    far from the border as `(depth + 1) * (kernel // 2)`.

    `y` may have further leading axes, `(..., channels, *grid)`.

    Args:
        channels: of the state, at least 1; they come first, as for `equinox.nn.Conv2d`.
        width: channels in a hidden layer, at least 1.
        depth: number of hidden layers, at least 0.
        kernel: places along each side of a kernel, an odd number.
        dims: axes of the grid: 1 for a line, 2 for an image, 3.
        border: what lies beyond the grid: `"zeros"`, or its other end, `"circular"`.
        time: whether $t w$ is added in each layer.
        activation: after each hidden layer, elementwise. Prefer one without kinks.
        near_zero: whether the last layer's weights start at a hundredth of Glorot's.
        key: draws the weights (Glorot-uniform; zero biases).
        dtype: of the parameters; JAX's default float if `None`.

    Raises:
        ValueError: for a size out of range, an even `kernel`, or another `border`.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        field = nk.fields.ConvField(3, width=16, depth=1, key=jr.key(0))
        sol = nk.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, None, jnp.ones((3, 8, 8)),
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6),
        )
        assert sol.ys.shape == (1, 3, 8, 8)
        ```

    Reference: Chen, Rubanova, Bettencourt and Duvenaud (2018), "Neural ordinary differential
    equations", arXiv 1806.07366: their convolutions have the time as one more channel, which
    inside the grid is the same.
    """

    layers: tuple[eqx.nn.Conv, ...]
    time_weights: tuple[Float[Array, " channels"], ...] | None
    activation: Callable
    dims: int = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        width: int,
        depth: int,
        *,
        kernel: int = 3,
        dims: int = 2,
        border: Border = "zeros",
        time: bool = True,
        activation: Callable = jax.nn.silu,
        near_zero: bool = True,
        key: Key[Array, ""] | UInt[Array, "2"],
        dtype: jnp.dtype | type | None = None,
    ):
        counts(channels=channels, width=width, kernel=kernel, dims=dims)
        count("depth", depth, 0)
        check_choice("border", border, get_args(Border))
        if kernel % 2 == 0:
            raise ValueError(f"`kernel` must be odd, got {kernel}: the grid keeps its size.")
        sizes = [channels, *[width] * depth, channels]
        gains = [1.0] * depth + [0.01 if near_zero else 1.0]
        conv_key, time_key = jr.split(key)
        self.layers = tuple(
            convolution(
                sizes[i : i + 2], kernel, dims=dims, border=border, gain=gains[i], key=layer_key,
                dtype=dtype,
            )
            for i, layer_key in enumerate(jr.split(conv_key, depth + 1))
        )  # fmt: skip
        self.time_weights = None
        if time:
            drawn = zip(gains, sizes[1:], jr.split(time_key, depth + 1), strict=True)
            dtype = self.layers[0].weight.dtype
            self.time_weights = tuple(
                gain * (6 / (1 + size)) ** 0.5 * jr.uniform(row_key, (size,), dtype, -1.0, 1.0)
                for gain, size, row_key in drawn
            )
        self.activation, self.dims = activation, dims

    def __call__(
        self, t: Time, y: Float[Array, "*batch_channels_and_grid"], args: Args = None
    ) -> Float[Array, "*batch_channels_and_grid"]:
        return over_samples(lambda y: self._rate(t, y), y, 1 + self.dims)

    def _rate(self, t: Time, y: Array) -> Array:
        for i, layer in enumerate(self.layers):
            if i:
                y = self.activation(y)
            y = layer(y)
            if self.time_weights is not None:
                row = time_in(y.dtype, t) * self.time_weights[i]
                y = y + jnp.broadcast_to(row.reshape(-1, *[1] * self.dims), y.shape)
        return y


def convolution(
    channels: Sequence[int],
    kernel: int,
    *,
    dims: int = 2,
    border: Border = "zeros",
    stride: int = 1,
    gain: float = 1.0,
    key: Key[Array, ""] | UInt[Array, "2"],
    dtype: jnp.dtype | type | None = None,
) -> eqx.nn.Conv:
    """From so many channels to so many, with Glorot's weights times `gain` and zero biases."""
    dtype = jnp.result_type(float) if dtype is None else dtype
    before, after = channels
    layer = eqx.nn.Conv(
        dims, before, after, kernel, stride, padding=kernel // 2,
        padding_mode="CIRCULAR" if border == "circular" else "ZEROS", key=key, dtype=dtype,
    )  # fmt: skip
    limit = gain * (6 / ((before + after) * kernel**dims)) ** 0.5
    weight = jr.uniform(key, layer.weight.shape, dtype, -limit, limit)
    bias = jnp.zeros((after, *[1] * dims), dtype)
    return eqx.tree_at(lambda c: (c.weight, c.bias), layer, (weight, bias))
