"""A multilayer perceptron as a vector field."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, UInt

from ..choices import check_choice
from ..numbers import count, counts
from ..shapes import Args, Time
from .affine import Affine

TimeInput = Literal["none", "concat", "concat_each_layer"]
Final = Literal["scaled_tanh", "tanh", "linear", "sigmoid"]


class MLP(eqx.Module):
    r"""$f(t, y) = s \tanh(\mathrm{MLP}(t, y))$ with a learnt scale $s$: a bounded vector field.

    The defaults follow the advice for neural differential equations: a final tanh times a learnt
    number, a continuously differentiable activation (kinks cost the solver steps), and a start near
    the zero field, so that an untrained model is cheap to solve and close to the identity.

    `y` may have leading axes, `(..., size)`, and a time for each sample then, `(..., 1)`. Solved
    as one batched state all samples share each step; under `jax.vmap` of the solve each sample
    takes its own, see [`ndekit.models.NeuralODE`][].

    Args:
        size: length of the state's last axis, at least 1.
        width: units in a hidden layer, at least 1.
        depth: number of hidden layers, at least 0; 0 is one affine map.
        out: the shape that takes the place of the last axis, if it is not to stay: `(hidden, size)`
            for the field of a controlled differential equation, say.
        time: what time enters: nothing, the first layer, or every layer as one more input.
        activation: after each hidden layer, elementwise. Prefer one without kinks.
        final: after the last layer: `"scaled_tanh"` (tanh times a learnt scalar that starts at 1),
            `"tanh"`, `"linear"` (nothing), or `"sigmoid"` (sigmoid plus 1e-4, a diffusion that is
            bounded and nowhere zero).
        near_zero: whether the last layer's weights start at a hundredth of Glorot's.
        key: draws the weights (Glorot-uniform; zero biases).
        dtype: of the parameters; JAX's default float if `None`.

    Raises:
        ValueError: if a size is too small, or `time` or `final` is none of the above.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        field = nk.fields.MLP(2, width=64, depth=2, time="concat", key=jr.key(0))
        sol = nk.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, None, jnp.ones(2),
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6),
        )
        ```

    Reference: Kidger, *On Neural Differential Equations* (2022), arXiv 2202.02435. With
    `time="concat_each_layer", near_zero=False` and `final="tanh"` or `"linear"` it is the dynamics
    of Pal et al., ICML 2021 (arXiv 2105.03918) or ICML 2023 (arXiv 2303.02262).
    """

    layers: tuple[Affine, ...]
    activation: Callable
    final: Final = eqx.field(static=True)
    out: tuple[int, ...] = eqx.field(static=True)
    scale: Float[Array, ""] | None

    def __init__(
        self,
        size: int,
        width: int,
        depth: int,
        *,
        out: int | Sequence[int] | None = None,
        time: TimeInput = "none",
        activation: Callable = jnp.tanh,
        final: Final = "scaled_tanh",
        near_zero: bool = True,
        key: Key[Array, ""] | UInt[Array, "2"],
        dtype: jnp.dtype | type | None = None,
    ):
        check_choice("time", time, get_args(TimeInput))
        check_choice("final", final, get_args(Final))
        counts(size=size, width=width)
        count("depth", depth, 0)
        dtype = jnp.result_type(float) if dtype is None else dtype
        shape = (size,) if out is None else out if isinstance(out, Sequence) else (out,)
        self.out = tuple(count("out", length) for length in shape)
        sizes = [size, *[width] * depth, math.prod(self.out)]
        self.layers = tuple(
            Affine(
                sizes[i],
                sizes[i + 1],
                with_time=time == "concat_each_layer" or (time == "concat" and i == 0),
                gain=0.01 if near_zero and i == depth else 1.0,
                key=layer_key,
                dtype=dtype,
            )
            for i, layer_key in enumerate(jr.split(key, depth + 1))
        )
        self.activation = activation
        self.final = final
        self.scale = jnp.ones((), dtype) if final == "scaled_tanh" else None

    def __call__(
        self, t: Time, y: Float[Array, "*batch size"], args: Args = None
    ) -> Float[Array, "*batch_and_out"]:
        batch = y.shape[:-1]
        for layer in self.layers[:-1]:
            y = self.activation(layer(y, t))
        y = self.layers[-1](y, t).reshape(*batch, *self.out)
        if self.final == "sigmoid":
            return jax.nn.sigmoid(y) + 1e-4
        if self.final != "linear":
            y = jnp.tanh(y)
        return y if self.scale is None else self.scale * y


def lipswish(x: Array) -> Array:
    r"""$0.909\, x\, \mathrm{sigmoid}(x)$, elementwise: smooth, with a slope of at most 1.

    With weights kept by [`ndekit.fields.clip_weights`][] it makes an `MLP` with `final="linear"` or
    `"tanh"` that is no steeper than 1: for the discriminator of an [`ndekit.models.SDEGAN`][].

    Example:
        ```python
        import jax.random as jr, ndekit as nk

        field = nk.fields.MLP(
            2, 16, 1, activation=nk.fields.lipswish, final="tanh", key=jr.key(0)
        )
        ```

    Reference: Chen, Behrmann, Duvenaud and Jacobsen (2019), "Residual flows for invertible
    generative modeling", arXiv 1906.02735.
    """
    return 0.909 * jax.nn.silu(x)
