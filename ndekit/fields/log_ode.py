"""The field of a log-ODE: what drives the state along one window of a control."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..numbers import count
from ..shapes import Time
from .cde import driven, linearized


class LogField(eqx.Module):
    r"""$F(y; \lambda) = \sum_i \lambda^i V_i + \sum_{i<j} \lambda^{ij} [V_i, V_j] + \dots$, where
    $V_i$ are the columns of a field $f$ and $[V, W] = DW\, V - DV\, W$.

    The flow of $y' = F(y; \lambda)$ over one unit of time is that of $dy = f(y)\, dX$ over a window
    with the log-signature $\lambda$, up to the terms beyond `depth`.

    Brackets are forward derivatives. With $u_j = \sum_i \lambda^{ij} V_i$ the second sum is
    $\sum_j DV_j\, u_j$: one linearization and as many tangents as channels. The third is
    $\tfrac13 \sum_i [V_i, B_i]$ with $B_i = \sum_{jk} \lambda^{ijk} [V_j, V_k]$: about as many as
    the square of the channels.

    Args:
        field: `field(t, y, args)` of one state `(hidden,)`, with a matrix `(hidden, channels)`. Its
            `linearized(t, y)` is used, if it has one, see [`ndekit.fields.CDEField`][].
        depth: 1, 2 or 3: the highest level of the log-signature that is read.

    Raises:
        ValueError: for another `depth`; when called, if the log-signature has fewer levels, or
            others than the field has channels.

    Called as `field(t, y, log_signature)`, so that the log-signature of one window is the `args` of
    a solve over one unit of time. Of it `levels` is read: tensors of shapes `(channels,)`,
    `(channels, channels)`, ... In $t$ the field stands still at the time it is given.

    Example:
        ```python
        import jax.numpy as jnp, jax.random as jr, ndekit as nk
        from types import SimpleNamespace

        field = nk.fields.CDEField(4, 2, width=16, depth=1, key=jr.key(0))
        area = jnp.array([[0.0, 0.5], [-0.5, 0.0]])
        window = SimpleNamespace(levels=(jnp.array([1.0, 0.0]), area))
        rate = nk.fields.LogField(field, depth=2)(0.0, jnp.ones(4), window)
        assert rate.shape == (4,)
        ```

    Reference: Walker, McLeod, Qin, Cheng, Li and Lyons (2024), "Log neural controlled differential
    equations", arXiv 2402.18512.
    """

    field: Callable
    depth: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        if count("depth", self.depth) > 3:
            raise ValueError(f"`depth` must be 1, 2 or 3, got {self.depth}.")

    def __call__(
        self, t: Time, y: Float[Array, " hidden"], log_signature: Any
    ) -> Float[Array, " hidden"]:
        levels = levels_of(log_signature, self.depth)
        if self.depth == 1:
            return driven(self.field, t, y, levels[0])
        columns, push = _linearized(self.field, t, y)
        _check_channels(levels[0], columns)
        # Row j: the tangent along which column j is differentiated.
        tangents = jnp.einsum("ij,hi->jh", levels[1], columns)
        rate = columns @ levels[0]
        if self.depth == 3:
            inner, outer = self._brackets_of_brackets(t, y, levels[2], columns)
            rate, tangents = rate + outer, tangents - inner
        return rate + jnp.sum(push(tangents), axis=0)

    def _brackets_of_brackets(
        self, t: Time, y: Array, level: Array, columns: Array
    ) -> tuple[Array, Array]:
        r"""$\tfrac13 B_i$ for each $i$, and $\tfrac13 \sum_i DB_i\, V_i$."""

        def bracket(y: Array, pairs: Array) -> Array:
            columns, push = _linearized(self.field, t, y)
            return jnp.sum(push(jnp.einsum("jk,hj->kh", pairs, columns)), axis=0)

        def along(pairs: Array, tangent: Array) -> tuple[Array, Array]:
            return jax.jvp(lambda y: bracket(y, pairs), (y,), (tangent,))

        pairs = level - jnp.swapaxes(level, 1, 2)
        inner, outer = jax.vmap(along)(pairs, columns.T)
        return inner / 3, jnp.sum(outer, axis=0) / 3


def _linearized(field: Callable, t: Time, y: Array) -> tuple[Array, Callable]:
    own = getattr(field, "linearized", None)
    return linearized(field, t, y) if own is None else own(t, y)


def levels_of(log_signature: Any, depth: int) -> tuple[Array, ...]:
    """The first levels of a log-signature.

    Raises:
        ValueError: if there are not so many.
    """
    levels = tuple(map(jnp.asarray, log_signature.levels))
    if len(levels) < depth:
        raise ValueError(
            f"A field of depth {depth} needs as many levels of the log-signature, but got "
            f"{len(levels)}. Make it with `nk.controls.logsignature(..., depth={depth})`."
        )
    return levels[:depth]


def _check_channels(level: Array, columns: Array) -> None:
    if level.shape[-1] != columns.shape[-1]:
        raise ValueError(
            f"The log-signature is that of {level.shape[-1]} channels, but the field has "
            f"{columns.shape[-1]}. Count the channels of time and of counts."
        )
