"""A small U-Net as a vector field of images."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, UInt

from ..numbers import count, counts, real
from ..shapes import Args, Time
from .affine import Affine
from .convolution import convolution
from .over_samples import over_samples
from .time_features import time_features


class UNet(eqx.Module):
    r"""A field of images `(channels, height, width)` that sees them at several scales.

    For flows and diffusion of images, where a pixel's rate depends on pixels far away. At each
    scale stands a residual block (two convolutions, group norms, SiLU) with a scale and a shift
    from the time; between scales strided convolutions go down, and nearest neighbours with a
    convolution go up, beside what was kept on the way down. All of it is smooth in the state and in
    the time.

    `y` may have further leading axes, `(..., channels, height, width)`.

    Args:
        channels: of the images, at least 1; they come first, as for `equinox.nn.Conv2d`.
        width: channels at the finest scale, a multiple of `groups`; each coarser scale has twice as
            many as the one before.
        depth: how often the image is halved, at least 0: height and width must be multiples of
            `2**depth`.
        groups: of the group norms, at least 1.
        fastest: the largest frequency among the features of the time, in radians per unit of time,
            at least 1. Faster ones tell close times apart, and cost the solver steps.
        near_zero: whether the last convolution's weights start at a hundredth of Glorot's.
        key: draws the weights (Glorot-uniform; zero biases).
        dtype: of the parameters; JAX's default float if `None`.

    Raises:
        ValueError: for sizes out of range or that do not divide; when called, for images that
            cannot be halved `depth` times.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, ndekit as nk

        field = nk.fields.UNet(1, width=16, depth=2, key=jr.key(0))
        assert field(0.5, jnp.ones((1, 28, 28))).shape == (1, 28, 28)
        ```

    Reference: Ronneberger, Fischer and Brox (2015), "U-Net", arXiv 1505.04597; with features of
    the time: Ho, Jain and Abbeel (2020), "Denoising diffusion probabilistic models", arXiv
    2006.11239. This one has no attention and one block a scale.
    """

    first: eqx.nn.Conv
    blocks_down: tuple["_Block", ...]
    downs: tuple[eqx.nn.Conv, ...]
    middle: "_Block"
    ups: tuple[eqx.nn.Conv, ...]
    blocks_up: tuple["_Block", ...]
    last_norm: eqx.nn.GroupNorm
    last: eqx.nn.Conv
    of_time: Affine
    fastest: float = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        width: int = 32,
        depth: int = 2,
        *,
        groups: int = 8,
        fastest: float = 16.0,
        near_zero: bool = True,
        key: Key[Array, ""] | UInt[Array, "2"],
        dtype: jnp.dtype | type | None = None,
    ):
        counts(channels=channels, width=width, groups=groups)
        count("depth", depth, 0)
        real("fastest", fastest, least=1.0)
        if width % groups:
            raise ValueError(f"`width` ({width}) must be a multiple of `groups` ({groups}).")
        dtype = jnp.result_type(float) if dtype is None else dtype
        keys = iter(jr.split(key, 4 * depth + 4))
        block = lambda before, after: _Block(
            before, after, 4 * width, groups, key=next(keys), dtype=dtype
        )
        conv = lambda *sizes, kernel=3, **options: convolution(
            sizes, kernel, key=next(keys), dtype=dtype, **options
        )
        wide = [width * 2**i for i in range(depth + 1)]
        scales = range(depth)
        self.of_time = Affine(2 * width, 4 * width, key=next(keys), dtype=dtype)
        self.first = conv(channels, width)
        self.blocks_down = tuple(block(wide[i], wide[i]) for i in scales)
        self.downs = tuple(conv(wide[i], wide[i + 1], stride=2) for i in scales)
        self.middle = block(wide[-1], wide[-1])
        self.ups = tuple(conv(wide[i + 1], wide[i]) for i in scales)
        self.blocks_up = tuple(block(2 * wide[i], wide[i]) for i in scales)
        self.last_norm = eqx.nn.GroupNorm(groups, width, dtype=dtype)
        self.last = conv(width, channels, gain=0.01 if near_zero else 1.0)
        self.fastest = float(fastest)

    def __call__(
        self, t: Time, y: Float[Array, "*batch channels height width"], args: Args = None
    ) -> Float[Array, "*batch channels height width"]:
        unit = 2 ** len(self.downs)
        if y.ndim >= 2 and (y.shape[-1] % unit or y.shape[-2] % unit):
            raise ValueError(
                f"Images are halved {len(self.downs)} times, so that their height and width must "
                f"be multiples of {unit}, got {y.shape[-2:]}. Pad them, or make the `UNet` with a "
                "smaller `depth`."
            )
        features = time_features(t, len(self.of_time.weight), self.fastest, y.dtype)
        embedded = jax.nn.silu(self.of_time(features))
        return over_samples(lambda y: self._rate(embedded, y), y, 3)

    def _rate(self, embedded: Array, y: Array) -> Array:
        y = self.first(y)
        kept = []
        for block, down in zip(self.blocks_down, self.downs, strict=True):
            y = block(embedded, y)
            kept.append(y)
            y = down(y)
        y = self.middle(embedded, y)
        for block, up, beside in reversed(list(zip(self.blocks_up, self.ups, kept, strict=True))):
            y = up(jnp.repeat(jnp.repeat(y, 2, axis=1), 2, axis=2))
            y = block(embedded, jnp.concatenate([y, beside]))
        return self.last(jax.nn.silu(self.last_norm(y)))


class _Block(eqx.Module):
    """Two convolutions beside the identity, with a scale and a shift from the time between them."""

    norms: tuple[eqx.nn.GroupNorm, eqx.nn.GroupNorm]
    convs: tuple[eqx.nn.Conv, eqx.nn.Conv]
    of_time: Affine
    around: eqx.nn.Conv | None

    def __init__(
        self, before: int, after: int, features: int, groups: int, *, key: Array, dtype: Any
    ):
        first_key, second_key, time_key, around_key = jr.split(key, 4)
        norm = lambda size: eqx.nn.GroupNorm(groups, size, dtype=dtype)
        conv = lambda sizes, kernel, key: convolution(sizes, kernel, key=key, dtype=dtype)
        self.norms = norm(before), norm(after)
        self.convs = conv((before, after), 3, first_key), conv((after, after), 3, second_key)
        self.of_time = Affine(features, 2 * after, key=time_key, dtype=dtype)
        self.around = None if before == after else conv((before, after), 1, around_key)

    def __call__(self, embedded: Array, y: Array) -> Array:
        beside = y if self.around is None else self.around(y)
        y = self.convs[0](jax.nn.silu(self.norms[0](y)))
        scale, shift = jnp.split(self.of_time(embedded).reshape(-1, 1, 1), 2)
        along = lambda column: jnp.broadcast_to(column, y.shape)
        y = self.norms[1](y) * along(1 + scale) + along(shift)
        return beside + self.convs[1](jax.nn.silu(y))
