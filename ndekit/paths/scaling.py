"""A trained velocity field on another path."""

from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float

from ..shapes import Args, Time
from .conversion import Here
from .gaussian import AbstractGaussianPath
from .roots import as_time


class ScaledTime(eqx.Module):
    """The field that [`ndekit.paths.scale_time`][] makes."""

    field: Callable
    src_path: AbstractGaussianPath
    dst_path: AbstractGaussianPath

    def __call__(
        self, t: Time, y: Float[Array, "*shape"], args: Args = None
    ) -> Float[Array, "*shape"]:
        t = as_time(t)
        src_t = self.src_path.t_of_ratio(*self.dst_path.ratio(t))
        # a + m, for either may be 0.
        size = self.dst_path.a(t) + self.dst_path.m(t)
        src_y = y * ((self.src_path.a(src_t) + self.src_path.m(src_t)) / size).astype(y.dtype)
        value = self.field(src_t, src_y, args)
        data, noise = Here(self.src_path, src_t, y.dtype).parts(src_y, value, "velocity")
        return self.dst_path.velocity(t, noise, data)


def scale_time(
    field: Callable, src_path: AbstractGaussianPath, dst_path: AbstractGaussianPath
) -> ScaledTime:
    r"""The velocity field on `dst_path` of a model whose velocity on `src_path` is `field`.

    All Gaussian paths between the same samples pass through the same points, up to the time at
    which they do and a scale: where both have the same $\sigma$, $x / a$ is the same, and so are
    the data and the noise that the model predicts. So a path is chosen after training, exactly, and
    `dst_path` may have parameters to train.

    The noise levels of `dst_path` must be among those of `src_path`: start the solve at
    `dst_path.t_of_sigma(sigma_max)` rather than at $t = 0$ if `src_path` ends at a finite
    $\sigma$ and `dst_path` does not.

    Args:
        field: called as `field(t, y, args)`, the velocity on `src_path`.
        src_path: the path that the field was trained on.
        dst_path: the path to solve along, or to train; of `LearnedPath` also a diagonal one.

    Returns:
        A field, called as `field(t, y, args)`, on `dst_path`.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        straight, round = nk.paths.CondOT(), nk.paths.Trigonometric()
        # Of data N(0, 1): at rest on the one path, in motion on the other.
        moved = nk.paths.scale_time(lambda t, y, args: jnp.zeros_like(y), round, straight)
        t, y = 0.3, jnp.array([1.0])
        variance = 0.3**2 + 0.7**2
        assert jnp.allclose(moved(t, y), (0.3 - 0.7) / variance * y)
        ```

    Reference: Shaul et al. (2024), "Bespoke solvers for generative flow models", arXiv 2310.19075.
    """
    return ScaledTime(field, src_path, dst_path)
