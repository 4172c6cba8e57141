"""A perceptron whose layers are gated by the time."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, UInt

from ..numbers import count, counts, real
from ..shapes import Args, Time, time_in
from .affine import Affine


class GatedAffine(eqx.Module):
    r"""$(y W + b) \odot \sigma(a t + c) + d\, t$ on the last axis of `y`, for any leading axes.

    Args:
        in_size, out_size: lengths of the last axis before and after, at least 1.
        gain: factor on the initial weights $W$ and $d$, at least 0.
        key: draws $W$, $a$ and $d$ (Glorot-uniform); $b$ and $c$ are zero, so that gates are half
            open at $t = 0$.
        dtype: of the parameters; JAX's default float if `None`.

    Raises:
        ValueError: for sizes that are no whole numbers from 1, or a `gain` out of range.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr
        from ndekit.fields import GatedAffine

        layer = GatedAffine(2, 64, key=jr.key(0))
        assert layer(jnp.ones((32, 2)), 0.5).shape == (32, 64)
        ```
    """

    affine: Affine
    gate_weight: Float[Array, " out"]
    gate_bias: Float[Array, " out"]
    time_weight: Float[Array, " out"]

    def __init__(
        self,
        in_size: int,
        out_size: int,
        *,
        gain: float = 1.0,
        key: Key[Array, ""] | UInt[Array, "2"],
        dtype: jnp.dtype | type | None = None,
    ):
        counts(in_size=in_size, out_size=out_size)
        real("gain", gain, least=0.0)
        dtype = jnp.result_type(float) if dtype is None else dtype
        affine_key, gate_key, time_key = jr.split(key, 3)
        self.affine = Affine(in_size, out_size, gain=gain, key=affine_key, dtype=dtype)
        limit = (6 / (1 + out_size)) ** 0.5
        draw = lambda key, limit: jr.uniform(key, (out_size,), dtype, minval=-limit, maxval=limit)
        self.gate_weight = draw(gate_key, limit)
        self.gate_bias = jnp.zeros((out_size,), dtype)
        self.time_weight = draw(time_key, gain * limit)

    def __call__(self, y: Float[Array, "*batch in"], t: Time) -> Float[Array, "*batch out"]:
        product = self.affine(y)
        t = time_in(self.gate_weight.dtype, t, of_samples=True)
        gate = jax.nn.sigmoid(t * self.gate_weight + self.gate_bias)
        along = lambda row: jnp.broadcast_to(row, product.shape)
        return product * along(gate) + along(t * self.time_weight)


class ConcatSquash(eqx.Module):
    r"""A perceptron of layers $(y W + b) \odot \sigma(a t + c) + d\, t$: time opens its gates.

    The field of continuous normalising flows. Against time as one more input it can change its
    rate in time, and even switch parts of itself off, with a few units.

    `y` may have leading axes, `(..., size)`.

    Args:
        size: length of the state's last axis, at least 1.
        width: units in a hidden layer, at least 1.
        depth: number of hidden layers, at least 0; 0 is one gated affine map.
        activation: after each hidden layer, elementwise. Prefer one without kinks.
        near_zero: whether the last layer's weights start at a hundredth of Glorot's, so that an
            untrained flow is close to the identity.
        key: draws the weights.
        dtype: of the parameters; JAX's default float if `None`.

    Raises:
        ValueError: if a size is too small.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        field = nk.fields.ConcatSquash(2, width=64, depth=3, key=jr.key(0))
        sol = nk.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, None, jnp.ones(2),
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6),
        )
        ```

    Reference: Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud (2019), "FFJORD", arXiv
    1810.01367. Their toys in the plane have `depth=3, width=64` and tanh.
    """

    layers: tuple[GatedAffine, ...]
    activation: Callable

    def __init__(
        self,
        size: int,
        width: int,
        depth: int,
        *,
        activation: Callable = jnp.tanh,
        near_zero: bool = True,
        key: Key[Array, ""] | UInt[Array, "2"],
        dtype: jnp.dtype | type | None = None,
    ):
        counts(size=size, width=width)
        count("depth", depth, 0)
        sizes = [size, *[width] * depth, size]
        self.layers = tuple(
            GatedAffine(
                sizes[i],
                sizes[i + 1],
                gain=0.01 if near_zero and i == depth else 1.0,
                key=layer_key,
                dtype=dtype,
            )
            for i, layer_key in enumerate(jr.split(key, depth + 1))
        )
        self.activation = activation

    def __call__(
        self, t: Time, y: Float[Array, "*batch size"], args: Args = None
    ) -> Float[Array, "*batch size"]:
        for layer in self.layers[:-1]:
            y = self.activation(layer(y, t))
        return self.layers[-1](y, t)
