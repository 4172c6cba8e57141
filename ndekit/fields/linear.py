"""The field of a linear controlled differential equation, with structured matrices."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key, UInt

from ..numbers import counts, real
from ..shapes import Args, Time
from .blocks import product


class LinearField(eqx.Module):
    r"""$f(y) = (A_1 y + b_1, \dots, A_d y + b_d)$: the field of $dy = \sum_i (A_i y + b_i)\, dX^i$.

    Each $A_i$ is block-diagonal. Diagonal matrices commute, so that such a model cannot tell the
    order in which things happen; blocks of 4 do most of what dense matrices do.

    One field, three ways to solve it: as any other field in a `diffrax.ControlTerm`; in windows,
    by [`ndekit.fields.LogField`][]; and exactly in windows, by the exponential of its `generator`,
    as [`ndekit.models.LinearCDE`][] does.

    Args:
        hidden_size: of the state, a multiple of `block_size`.
        channels: of the control, time among them, at least 1.
        block_size: of the blocks: 1 for diagonal matrices, `hidden_size` for dense ones.
        affine: whether there are $b_i$ (zero at the start); else they are `None`.
        skew: whether blocks are skew-symmetric, $A - A^\top$ of what is learnt. Without $b_i$ the
            norm of the state then never changes.
        scale: the initial entries are normal with standard deviation `scale / sqrt(block_size)`.
        key: draws the matrices.
        dtype: of the parameters; JAX's default float if `None`.

    Raises:
        ValueError: for sizes that are no whole numbers from 1 or do not divide, or a `scale` below
            0.

    The matrices of $h / b$ blocks of size $b$ are `matrices`, of `(channels, b, b, h / b)`: entry
    $i\, h / b + n$ of the state is entry $i$ of block $n$.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        field = nk.fields.LinearField(8, 2, block_size=4, key=jr.key(0))
        ts = jnp.linspace(0.0, 1.0, 20)
        path = diffrax.LinearInterpolation(ts, jnp.stack([ts, jnp.sin(ts)], axis=-1))
        sol = nk.diffeqsolve(
            diffrax.ControlTerm(field, path), diffrax.Heun(), 0.0, 1.0, None, jnp.ones(8),
            stepsize_controller=diffrax.StepTo(ts),
        )
        assert sol.ys.shape == (1, 8)
        ```

    Reference: Walker, Yang, Cirone, Salvi and Lyons (2025), "Structured linear CDEs: maximally
    expressive and parallel-in-time sequence models", arXiv 2505.17761.
    """

    matrices: Float[Array, "channels row row blocks"]
    offsets: Float[Array, "channels row blocks"] | None
    skew: bool = eqx.field(static=True)

    def __init__(
        self,
        hidden_size: int,
        channels: int,
        *,
        block_size: int = 4,
        affine: bool = False,
        skew: bool = False,
        scale: float = 0.25,
        key: Key[Array, ""] | UInt[Array, "2"],
        dtype: jnp.dtype | type | None = None,
    ):
        counts(hidden_size=hidden_size, channels=channels, block_size=block_size)
        real("scale", scale, least=0.0)
        if hidden_size % block_size:
            raise ValueError(
                f"`hidden_size` must be a multiple of `block_size`, got {hidden_size} and "
                f"{block_size}."
            )
        dtype = jnp.result_type(float) if dtype is None else dtype
        blocks = hidden_size // block_size
        shape = (channels, block_size, block_size, blocks)
        self.matrices = scale / block_size**0.5 * jr.normal(key, shape, dtype)
        self.offsets = jnp.zeros((channels, block_size, blocks), dtype) if affine else None
        self.skew = skew

    @property
    def hidden_size(self) -> int:
        return self.matrices.shape[1] * self.matrices.shape[3]

    @property
    def channels(self) -> int:
        return self.matrices.shape[0]

    def __call__(
        self, t: Time, y: Float[Array, "*batch hidden"], args: Args = None
    ) -> Float[Array, "*batch hidden channels"]:
        rates = jnp.einsum("cijn,...jn->...inc", self.blocks, self.in_blocks(y))
        if self.offsets is not None:
            rates = rates + jnp.broadcast_to(jnp.moveaxis(self.offsets, 0, -1), rates.shape)
        return rates.reshape(*y.shape, self.channels)

    def prod(
        self, t: Time, y: Float[Array, "*batch hidden"], dx: Float[Array, "*batch channels"]
    ) -> Float[Array, "*batch hidden"]:
        """The product with an increment of the control, channel by channel never built."""
        matrix = jnp.einsum("...c,cijn->...ijn", dx, self.blocks)
        rate = jnp.einsum("...ijn,...jn->...in", matrix, self.in_blocks(y))
        if self.offsets is not None:
            rate = rate + jnp.einsum("...c,cin->...in", dx, self.offsets)
        return rate.reshape(y.shape)

    def linearized(
        self, t: Time, y: Float[Array, " hidden"]
    ) -> tuple[Float[Array, "hidden channels"], Callable]:
        """As [`ndekit.fields.CDEField`][]'s: the matrix, and its columns' derivatives."""

        def push(us: Float[Array, "channels hidden"]) -> Float[Array, "channels hidden"]:
            moved = jnp.einsum("cijn,cjn->cin", self.blocks, self.in_blocks(us))
            return moved.reshape(us.shape)

        return self(t, y), push

    def generator(self, log_signature: Any) -> Float[Array, "*windows row row blocks"]:
        r"""$\Omega$ of each window, such that $y(t_1) = \exp(\Omega)\, y(t_0)$ across it up to the
        levels that the log-signature does not have.

        $\Omega = \sum_i \lambda^i A_i + \sum_{i<j} \lambda^{ij} (A_j A_i - A_i A_j) + \dots$ The
        brackets are computed once for all windows. With offsets the blocks have one more row and
        column, for a state with a 1 behind each block.

        Args:
            log_signature: has `levels`, one to three tensors `(*windows, channels)`,
                `(*windows, channels, channels)`, ...

        Raises:
            ValueError: for another number of levels or of channels.
        """
        levels = tuple(map(jnp.asarray, log_signature.levels))
        if not 1 <= len(levels) <= 3:
            raise ValueError(f"`generator` takes 1, 2 or 3 levels, but got {len(levels)}.")
        if levels[0].shape[-1] != self.channels:
            raise ValueError(
                f"The log-signature is that of {levels[0].shape[-1]} channels, but the field has "
                f"{self.channels}. Count the channels of time and of counts."
            )
        first = self._augmented()
        numbers, brackets = [levels[0]], [first]
        # Matrices of one entry commute.
        if len(levels) > 1 and first.shape[1] > 1 and self.channels > 1:
            i, j = np.triu_indices(self.channels, 1)
            second = _bracket(first[i], first[j])
            numbers.append(levels[1][..., i, j])
            brackets.append(second)
            if len(levels) > 2:
                # A third of what Dynkin's map gives, right-normed; antisymmetric in the last two.
                pairs = (levels[2][..., i, j] - levels[2][..., j, i]) / 3
                numbers.append(pairs.reshape(*pairs.shape[:-2], -1))
                third = jax.vmap(lambda a: jax.vmap(lambda b: _bracket(a, b))(second))(first)
                brackets.append(third.reshape(-1, *third.shape[2:]))
        flat = jnp.concatenate(brackets).reshape(sum(map(len, brackets)), -1)
        omega = jnp.concatenate(numbers, axis=-1) @ flat
        return omega.reshape(*omega.shape[:-1], *first.shape[1:])

    @property
    def blocks(self) -> Float[Array, "channels row row blocks"]:
        """The blocks of each $A_i$."""
        if self.skew:
            return self.matrices - jnp.swapaxes(self.matrices, 1, 2)
        return self.matrices

    def in_blocks(self, y: Float[Array, "*batch hidden"]) -> Float[Array, "*batch row blocks"]:
        """The state, one column for each block."""
        return y.reshape(*y.shape[:-1], *self.matrices.shape[2:])

    def _augmented(self) -> Array:
        """The blocks as they act on a state with a 1 behind each."""
        if self.offsets is None:
            return self.blocks
        wide = jnp.concatenate([self.blocks, self.offsets[:, :, None]], axis=2)
        return jnp.concatenate([wide, jnp.zeros_like(wide[:, :1])], axis=1)


def _bracket(a: Array, b: Array) -> Array:
    """Of the fields $Ay$ and $By$, $B A - A B$: flows compose on the left."""
    return product(b, a) - product(a, b)
