"""One affine map of the last axis, with time as an optional further input."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, PyTree, UInt

from ..numbers import counts, real
from ..shapes import Time, time_in


class Affine(eqx.Module):
    r"""$y W + t w + b$ on the last axis of `y`, for any leading axes.

    The weight is stored as `(in, out)` and applied as `y @ weight`, so that a batched state is one
    product of matrices. Weights are Glorot-uniform with time counted among the inputs; the bias
    starts at zero.

    Args:
        in_size, out_size: lengths of the last axis before and after, at least 1.
        with_time: whether $t w$ is added; `time_weight` is `None` otherwise.
        gain: factor on the initial weights, at least 0.
        key: draws the weights.
        dtype: of the parameters; JAX's default float if `None`.

    Raises:
        ValueError: for sizes that are no whole numbers from 1, or a `gain` out of range; when
            called without a time, or with several, if made with one.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr
        from ndekit.fields import Affine

        head = Affine(64, 10, key=jr.key(0))
        assert head(jnp.ones((32, 64))).shape == (32, 10)
        ```
    """

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"]
    time_weight: Float[Array, " out"] | None

    def __init__(
        self,
        in_size: int,
        out_size: int,
        *,
        with_time: bool = False,
        gain: float = 1.0,
        key: Key[Array, ""] | UInt[Array, "2"],
        dtype: jnp.dtype | type | None = None,
    ):
        counts(in_size=in_size, out_size=out_size)
        real("gain", gain, least=0.0)
        dtype = jnp.result_type(float) if dtype is None else dtype
        num_inputs = in_size + with_time
        limit = gain * (6 / (num_inputs + out_size)) ** 0.5
        drawn = jr.uniform(key, (num_inputs, out_size), dtype, minval=-limit, maxval=limit)
        self.weight = drawn[:in_size]
        self.time_weight = drawn[in_size] if with_time else None
        self.bias = jnp.zeros((out_size,), dtype)

    def __call__(
        self, y: Float[Array, "*batch in"], t: Time | None = None
    ) -> Float[Array, "*batch out"]:
        offset = self.bias
        if self.time_weight is not None:
            if t is None:
                raise ValueError(
                    "This `Affine` was made with `with_time=True` and needs a time: call it as "
                    "`affine(y, t)`."
                )
            t = time_in(offset.dtype, t, of_samples=True)
            offset = offset + t * self.time_weight
        product = y @ self.weight
        return product + jnp.broadcast_to(offset, product.shape)


def clip_weights(module: PyTree) -> PyTree:
    r"""The same PyTree with every weight of its [`ndekit.fields.Affine`][] layers in $[-1/n, 1/n]$.

    Here $n$ counts a layer's inputs, time included. No output then changes by more than the
    largest change of an input: the layers have a Lipschitz constant of at most 1 in the maximum
    norm. Biases stay. Apply it after each update of a discriminator ("careful clipping"), for
    example by [`ndekit.train.projected`][].

    Raises:
        ValueError: if there is no such layer.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr
        from ndekit.fields import Affine, clip_weights

        layer = clip_weights(Affine(10, 3, gain=100.0, key=jr.key(0)))
        assert jnp.max(jnp.abs(layer.weight)) <= 0.1
        ```

    Reference: Kidger, Foster, Li and Lyons (2021), "Efficient and accurate gradients for neural
    SDEs", arXiv 2105.13493, section 5.
    """
    is_affine = lambda node: isinstance(node, Affine)
    if not any(map(is_affine, jax.tree.leaves(module, is_leaf=is_affine))):
        raise ValueError("`clip_weights` found no `ndekit.fields.Affine` to clip.")

    def clipped(node: Any) -> Any:
        if not is_affine(node):
            return node
        limit = 1 / (node.weight.shape[-2] + (node.time_weight is not None))
        weights = lambda affine: [affine.weight, affine.time_weight]
        kept = [None if w is None else jnp.clip(w, -limit, limit) for w in weights(node)]
        return eqx.tree_at(weights, node, kept, is_leaf=lambda x: x is None)

    return jax.tree.map(clipped, module, is_leaf=is_affine)
