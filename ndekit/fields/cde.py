"""The field of a controlled differential equation, as a network."""

from collections.abc import Callable
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, UInt

from ..choices import check_choice
from ..numbers import count, counts, real
from ..shapes import Args, Time
from .affine import Affine

Last = Literal["tanh", "linear"]


class CDEField(eqx.Module):
    r"""$f(t, y) \in \mathbb{R}^{\text{hidden} \times \text{channels}}$ of $dy = f(t, y)\, dX$: a
    network whose last operation is tanh.

    The defaults are what makes neural CDEs train: a final tanh, so that a long or rough control
    cannot blow the state up; a smooth activation; last weights that start small, so that an
    untrained model hardly moves.

    With a `rank` the matrix is $f = U V^\top$, with $U(t, y)$ of `(hidden, rank)` and $V(t, y)$ of
    `(channels, rank)`, each behind its tanh. `prod` then never builds the matrix: for wide inputs
    its last layer costs `(hidden + channels) * rank` outputs instead of `hidden * channels`.

    A field of your own needs `field(t, y, args)` alone. Beside it, models use `prod(t, y, dx)` if
    there is one, the product with an increment of the control; and
    [`ndekit.fields.LogField`][] uses `linearized(t, y)`.

    Args:
        hidden_size: of the state, at least 1.
        channels: of the control, time among them, at least 1.
        width: units in a hidden layer, at least 1.
        depth: number of hidden layers, at least 0.
        rank: of the matrix, if it is to be of low rank, at least 1.
        with_time: whether the time is an input of the first layer. The control has time among its
            channels already.
        activation: after each hidden layer, elementwise. Prefer one without kinks.
        final: after the last layer: `"tanh"`, or `"linear"` (nothing).
        final_gain: factor on the initial weights of the last layer, at least 0.
        key: draws the weights (Glorot-uniform; zero biases).
        dtype: of the parameters; JAX's default float if `None`.

    Raises:
        ValueError: if a size is too small, or `final` or `final_gain` is none of the above.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        field = nk.fields.CDEField(4, 3, width=16, depth=1, key=jr.key(0))
        ts = jnp.linspace(0.0, 1.0, 20)
        path = diffrax.LinearInterpolation(ts, jnp.stack([ts, jnp.sin(ts), ts**2], axis=-1))
        sol = nk.diffeqsolve(
            diffrax.ControlTerm(field, path), diffrax.Heun(), 0.0, 1.0, None, jnp.ones(4),
            stepsize_controller=diffrax.StepTo(ts),
        )
        assert sol.ys.shape == (1, 4)
        ```

    Reference: Kidger, Morrill, Foster and Lyons (2020), "Neural controlled differential equations
    for irregular time series", arXiv 2005.08926.
    """

    layers: tuple[Affine, ...]
    activation: Callable
    hidden_size: int = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    rank: int | None = eqx.field(static=True)
    final: Last = eqx.field(static=True)

    def __init__(
        self,
        hidden_size: int,
        channels: int,
        width: int,
        depth: int,
        *,
        rank: int | None = None,
        with_time: bool = False,
        activation: Callable = jax.nn.silu,
        final: Last = "tanh",
        final_gain: float = 0.1,
        key: Key[Array, ""] | UInt[Array, "2"],
        dtype: jnp.dtype | type | None = None,
    ):
        counts(hidden_size=hidden_size, channels=channels, width=width)
        count("depth", depth, 0)
        check_choice("final", final, get_args(Last))
        real("final_gain", final_gain, least=0.0)
        if rank is not None:
            count("rank", rank)
        self.hidden_size, self.channels, self.rank = hidden_size, channels, rank
        self.activation, self.final = activation, final
        last = hidden_size * channels if rank is None else (hidden_size + channels) * rank
        sizes = [hidden_size, *[width] * depth, last]
        self.layers = tuple(
            Affine(
                sizes[i], sizes[i + 1], with_time=with_time and i == 0,
                gain=final_gain if i == depth else 1.0, key=layer_key, dtype=dtype,
            )
            for i, layer_key in enumerate(jr.split(key, depth + 1))
        )  # fmt: skip

    def __call__(
        self, t: Time, y: Float[Array, "*batch hidden"], args: Args = None
    ) -> Float[Array, "*batch hidden channels"]:
        parts = self._parts(t, y)
        if self.rank is None:
            return parts[0]
        return jnp.einsum("...hr,...cr->...hc", *parts)

    def prod(
        self, t: Time, y: Float[Array, "*batch hidden"], dx: Float[Array, "*batch channels"]
    ) -> Float[Array, "*batch hidden"]:
        """The product with an increment of the control (or with its rate of change)."""
        parts = self._parts(t, y)
        if self.rank is None:
            return jnp.einsum("...hc,...c->...h", parts[0], dx)
        u, v = parts
        return jnp.einsum("...hr,...r->...h", u, jnp.einsum("...cr,...c->...r", v, dx))

    def linearized(
        self, t: Time, y: Float[Array, " hidden"]
    ) -> tuple[Float[Array, "hidden channels"], Callable]:
        r"""The matrix, and the map from tangents `(channels, hidden)` to the derivative of each
        column along its own tangent, $(Df_j\, u_j)_j$ of `(channels, hidden)`.

        Of the last layer each tangent goes through its own column alone.
        """
        if self.rank is not None or not self.layers[:-1]:
            return linearized(self, t, y)
        inner, push_inner = jax.linearize(lambda y: self._inner(t, y), y)
        last = self.layers[-1]
        before = last(inner, t).reshape(self.hidden_size, self.channels)
        weight = last.weight.reshape(-1, self.hidden_size, self.channels)
        value, push_final = jax.linearize(self._last_operation, before)

        def push(us: Float[Array, "channels hidden"]) -> Float[Array, "channels hidden"]:
            moved = jnp.einsum("cw,whc->hc", jax.vmap(push_inner)(us), weight)
            return push_final(moved).T

        return value, push

    def _inner(self, t: Time, y: Array) -> Array:
        """What the last layer is given."""
        for layer in self.layers[:-1]:
            y = self.activation(layer(y, t))
        return y

    def _last_operation(self, y: Array) -> Array:
        return jnp.tanh(y) if self.final == "tanh" else y

    def _parts(self, t: Time, y: Array) -> tuple[Array, ...]:
        """The matrix, or the two factors of which it is made."""
        out = self._last_operation(self.layers[-1](self._inner(t, y), t))
        batch = out.shape[:-1]
        if self.rank is None:
            return (out.reshape(*batch, self.hidden_size, self.channels),)
        cut = self.hidden_size * self.rank
        u = out[..., :cut].reshape(*batch, self.hidden_size, self.rank)
        return u, out[..., cut:].reshape(*batch, self.channels, self.rank)


def driven(field: Callable, t: Time, y: Array, dx: Array, args: Args = None) -> Array:
    """The field times an increment of the control, by its own `prod` if it has one."""
    prod = getattr(field, "prod", None)
    return field(t, y, args) @ dx if prod is None else prod(t, y, dx)


def linearized(field: Callable, t: Time, y: Array) -> tuple[Array, Callable]:
    """As `CDEField.linearized`, of any field."""
    value, push = jax.linearize(lambda y: field(t, y, None), y)

    def columns(us: Array) -> Array:
        moved = jax.vmap(push)(us)  # (channels, hidden, channels): of each its own column is wanted
        return jnp.einsum("chc->ch", moved)

    return value, columns
