r"""Log-signatures to depth 3, and how those of two paths, one after the other, compose."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..numbers import count

Levels = tuple[Array, ...]
MAX_DEPTH = 3


class LogSignature(eqx.Module):
    r"""What a path does in a window, to depth 1, 2 or 3: increment, areas, areas of areas.

    With the increments $D_k$ of straight pieces, $S_k = D_1 + \dots + D_{k-1}$ and
    $[a, b] = a \otimes b - b \otimes a$: $L_1 = \sum_k D_k$, $L_2 = \tfrac12 \sum_k [S_k, D_k]$
    (its entry $(i, j)$ is the area that channels $i$ and $j$ enclose with their chord), and $L_3$
    by composition. `a @ b` is the log-signature of first `a`, then `b`,

    $$c_1 = a_1 + b_1, \quad c_2 = a_2 + b_2 + \tfrac12 [a_1, b_1], \quad
    c_3 = a_3 + b_3 + \tfrac12 ([a_1, b_2] + [a_2, b_1]) + \tfrac1{12} [a_1 - b_1, [a_1, b_1]].$$

    It is associative. For streaming keep one and compose it with
    `LogSignature.segment(dx, dt, depth)` at every reading; to have that of every beginning, call
    `prefixes()` on a stack. Numbers in a basis: [`ndekit.controls.to_lyndon`][]. The levels are
    dense tensors and lie in the free Lie algebra, so that an equation with fields $V_i$ may use
    $\tfrac12 \sum_{ij} (L_2)_{ij} [V_i, V_j]$ and
    $\tfrac13 \sum_{ijk} (L_3)_{ijk} [[V_i, V_j], V_k]$ as they are.

    Args:
        levels: $L_1$ `(*w, d)`, $L_2$ `(*w, d, d)`, $L_3$ `(*w, d, d, d)`, as many as the depth.
        durations: `(*w,)`, the time that each takes, in the unit of `ts`.

    Raises:
        ValueError: for levels whose shapes do not belong together.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        right = nk.controls.LogSignature.segment(jnp.array([1.0, 0.0]), 1.0, depth=2)
        up = nk.controls.LogSignature.segment(jnp.array([0.0, 1.0]), 1.0, depth=2)
        assert (right @ up).levels[1][0, 1] == 0.5  # the area of the triangle
        ```

    Reference: Reutenauer (1993), *Free Lie Algebras*, for the Baker-Campbell-Hausdorff series.
    """

    levels: tuple[Float[Array, "..."], ...]
    durations: Float[Array, "*w"]

    def __check_init__(self):
        first = self.levels[0] if self.levels else None
        if first is None or len(self.levels) > MAX_DEPTH or np.ndim(first) < 1:
            raise ValueError(
                f"`levels` must be 1 to {MAX_DEPTH} arrays, the first with a channel axis, got "
                f"{[np.shape(level) for level in self.levels]}."
            )
        *w, d = np.shape(first)
        expected = [(*w, *[d] * k) for k in range(1, len(self.levels) + 1)]
        found = [np.shape(level) for level in self.levels]
        if found != expected or np.shape(self.durations) != tuple(w):
            raise ValueError(
                f"The levels of a log-signature of {d} channels must have shapes {expected} and "
                f"`durations` {tuple(w)}, got {found} and {np.shape(self.durations)}."
            )

    @property
    def depth(self) -> int:
        """How many levels there are."""
        return len(self.levels)

    @property
    def num_channels(self) -> int:
        """Channels of the path."""
        return self.levels[0].shape[-1]

    def __matmul__(self, other: "LogSignature") -> "LogSignature":
        if not isinstance(other, LogSignature):
            return NotImplemented
        shapes = [[np.shape(level) for level in each.levels] for each in (self, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "Log-signatures compose if they have the same depth, channels and windows, got "
                f"levels of shapes {shapes[0]} and {shapes[1]}."
            )
        return _composed(self, other)

    def prefixes(self) -> "LogSignature":
        """Those of all beginnings: entry `k` of the first axis becomes that of `0` to `k`."""
        if not np.ndim(self.durations):
            raise ValueError("`prefixes` needs a stack of log-signatures, got a single one.")
        return jax.lax.associative_scan(_composed, self)

    @classmethod
    def segment(
        cls, dx: Float[Array | np.ndarray, "*w d"], duration: Any, depth: int
    ) -> "LogSignature":
        """That of a straight line: `dx` and zeros above it."""
        dx = jnp.asarray(dx)
        levels = (dx, *zeros(dx.shape[:-1], dx.shape[-1], checked_depth(depth), dx.dtype)[1:])
        return cls(levels, jnp.broadcast_to(jnp.asarray(duration, dx.dtype), dx.shape[:-1]))

    @classmethod
    def identity(cls, num_channels: int, depth: int) -> "LogSignature":
        """That of a path at rest, to begin a stream with."""
        return cls.segment(jnp.zeros(count("num_channels", num_channels)), 0.0, depth)


def checked_depth(depth: Any) -> int:
    """The depth, if there are formulas for it."""
    if count("depth", depth) > MAX_DEPTH:
        raise ValueError(
            f"`depth` must be 1, 2 or 3, got {depth}. Take shorter windows instead: along a smooth "
            "path the error of depth 3 falls with the fourth power of their length."
        )
    return depth


def _composed(a: LogSignature, b: LogSignature) -> LogSignature:
    return LogSignature(compose(a.levels, b.levels), a.durations + b.durations)


def compose(a: Levels, b: Levels) -> Levels:
    """First `a`, then `b`; leading axes are windows."""
    levels = [a[0] + b[0]]
    if len(a) > 1:
        area = bracket(a[0], b[0])
        levels.append(a[1] + b[1] + area / 2)
    if len(a) > 2:
        ofs = bracket(a[0], b[1]) - bracket(b[0], a[1])
        levels.append(a[2] + b[2] + ofs / 2 + bracket(a[0] - b[0], area) / 12)
    return tuple(levels)


def bracket(a: Array, b: Array) -> Array:
    r"""$a \otimes b - b \otimes a$ for a vector `a` and a tensor `b` of one or two axes."""
    if b.ndim == a.ndim:
        product = a[..., :, None] * b[..., None, :]
        return product - jnp.swapaxes(product, -1, -2)
    return a[..., :, None, None] * b[..., None, :, :] - b[..., :, :, None] * a[..., None, None, :]


def zeros(windows: tuple[int, ...], num_channels: int, depth: int, dtype: Any) -> Levels:
    """The levels of paths at rest."""
    return tuple(jnp.zeros((*windows, *[num_channels] * k), dtype) for k in range(1, depth + 1))
