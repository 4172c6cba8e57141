"""Messages along the edges of a graph as a vector field."""

from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key, UInt

from ..choices import check_choice
from ..numbers import count, counts
from ..shapes import Args, Time
from .mlp import MLP
from .over_samples import over_samples

Aggregate = Literal["mean", "sum"]


class Graph(eqx.Module):
    r"""$y_i' = \psi\big(t, y_i, \sum_j A_{ij}\, \phi(t, y_i, y_j)\big)$ for the nodes $i$ of a
    graph: each hears its neighbours.

    $\phi$ and $\psi$ are networks that all edges and all nodes share: with the nodes in another
    order, of the state and of $A$, the rates are the same in that order.

    `y` may have leading axes, `(..., nodes, size)`: states of the same graph.

    Args:
        adjacency: $A$, `(nodes, nodes)`: node $i$ hears node $j$ where entry $(i, j)$ is not zero,
            with that weight. It is fixed: no parameter, and known before tracing.
        size: numbers at each node, at least 1.
        width: units in the hidden layers of both networks, and numbers in a message, at least 1.
        depth: hidden layers of each network, at least 1.
        aggregate: `"mean"` divides the sum by $\sum_j \lvert A_{ij} \rvert$, so that nodes with
            many neighbours do not move faster; or `"sum"`. Without neighbours both are zero.
        key: draws the weights, those of $\psi$'s last layer near zero.
        dtype: of the parameters; JAX's default float if `None`.

    Raises:
        ValueError: for an adjacency that is no square matrix of finite numbers, a size out of range
            or another `aggregate`; when called, for another number of nodes.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, numpy as np, ndekit as nk

        ring = np.roll(np.eye(6), 1, axis=0) + np.roll(np.eye(6), -1, axis=0)
        field = nk.fields.Graph(ring, size=2, width=16, depth=1, key=jr.key(0))
        sol = nk.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), 0.0, 1.0, None, jnp.ones((6, 2)),
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6),
        )
        assert sol.ys.shape == (1, 6, 2)
        ```

    Reference: Poli, Massaroli, Park, Yamashita, Asama and Park (2019), "Graph neural ordinary
    differential equations", arXiv 1911.07532; the messages are those of Gilmer, Schoenholz, Riley,
    Vinyals and Dahl (2017), arXiv 1704.01212.
    """

    message: MLP
    update: MLP
    # Static, as arrays would be trained: who hears, who speaks, how loud.
    edges: tuple[tuple[int, int, float], ...] = eqx.field(static=True)
    nodes: int = eqx.field(static=True)

    def __init__(
        self,
        adjacency: Float[np.ndarray | Array, "nodes nodes"],
        size: int,
        width: int,
        depth: int,
        *,
        aggregate: Aggregate = "mean",
        key: Key[Array, ""] | UInt[Array, "2"],
        dtype: jnp.dtype | type | None = None,
    ):
        counts(size=size, width=width)
        count("depth", depth)
        check_choice("aggregate", aggregate, get_args(Aggregate))
        matrix = _checked(adjacency)
        if aggregate == "mean":
            total = np.abs(matrix).sum(axis=1, keepdims=True)
            matrix = matrix / np.where(total == 0, 1.0, total)
        heard = zip(*(np.nonzero(matrix)), strict=True)
        self.edges = tuple((int(i), int(j), float(matrix[i, j])) for i, j in heard)
        self.nodes = len(matrix)
        message_key, update_key = jr.split(key)
        self.message = MLP(
            2 * size, width, depth, out=width, time="concat", activation=jax.nn.silu,
            final="linear", near_zero=False, key=message_key, dtype=dtype,
        )  # fmt: skip
        self.update = MLP(
            size + width, width, depth, out=size, time="concat", activation=jax.nn.silu,
            final="linear", key=update_key, dtype=dtype,
        )  # fmt: skip

    def __call__(
        self, t: Time, y: Float[Array, "*batch nodes size"], args: Args = None
    ) -> Float[Array, "*batch nodes size"]:
        if y.ndim < 2 or y.shape[-2] != self.nodes:
            raise ValueError(
                f"The state must be `(..., {self.nodes}, size)` as the adjacency has {self.nodes} "
                f"nodes, got the shape {y.shape}."
            )
        return over_samples(lambda y: self._rate(t, y), y, 2)

    def _rate(self, t: Time, y: Array) -> Array:
        hearing = np.array([i for i, _, _ in self.edges], np.int32)
        speaking = np.array([j for _, j, _ in self.edges], np.int32)
        loudness = jnp.asarray([weight for *_, weight in self.edges], y.dtype)
        messages = self.message(t, jnp.concatenate([y[hearing], y[speaking]], axis=-1))
        messages = messages * loudness[:, None]
        total = jax.ops.segment_sum(messages, jnp.asarray(hearing), self.nodes)
        return self.update(t, jnp.concatenate([y, total], axis=-1))


def _checked(adjacency: np.ndarray | Array) -> np.ndarray:
    """The matrix in NumPy.

    Raises:
        ValueError: if it is none, or has numbers that are not finite.
    """
    matrix = np.asarray(adjacency, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(
            f"`adjacency` must be a square matrix, (nodes, nodes), got the shape {matrix.shape}."
        )
    if not np.isfinite(matrix).all():
        raise ValueError("`adjacency` must be of finite numbers, got some that are not.")
    return matrix
