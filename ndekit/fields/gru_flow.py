"""A gated recurrent unit that flows in time."""

from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key, UInt

from ..choices import check_choice
from ..numbers import count
from ..shapes import Args, Time

Kind = Literal["full", "minimal"]


class GRUFlow(eqx.Module):
    r"""$h' = (1 - z) (u - h)$ with $z = \sigma(W_z p + U_z h + b_z)$,
    $r = \sigma(W_r p + U_r h + b_r)$ and $u = \tanh(W_h p + U_h (r h) + b_h)$.

    What lies in $[-1, 1]$ stays there: at $h_i = \pm 1$ the field points inwards. Explicit
    Runge-Kutta steps keep it up to their error, Euler's exactly for steps of at most 1.

    `y` may have leading axes, `(..., hidden)`.

    Args:
        hidden_size: of the state, at least 1.
        input_size: of $p$, which is the `args` of the field, `(..., input)`; 0 for an autonomous
            field.
        kind: `"full"`, or `"minimal"`, where $z$ takes the place of $r$.
        bias: whether there are biases. Without them and without inputs $h = 0$ is a point of rest.
        key: draws the weights (Glorot-uniform; zero biases).
        dtype: of the parameters; JAX's default float if `None`.

    Raises:
        ValueError: for sizes or a `kind` out of range; when called, for inputs of another size.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        flow = nk.fields.GRUFlow(8, key=jr.key(0))
        sol = nk.diffeqsolve(
            diffrax.ODETerm(flow), diffrax.Tsit5(), 0.0, 5.0, None, jnp.ones(8),
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-6),
        )
        assert jnp.all(jnp.abs(sol.ys) < 1)
        ```

    Reference: De Brouwer, Simm, Arany and Moreau (2019), "GRU-ODE-Bayes", arXiv 1905.12374. Their
    scripts run it autonomous and without biases.
    """

    of_state: Float[Array, "hidden gates_hidden"]
    of_candidate: Float[Array, "hidden hidden"]
    of_input: Float[Array, "input all_hidden"] | None
    bias: Float[Array, " all_hidden"] | None
    kind: Kind = eqx.field(static=True)

    def __init__(
        self,
        hidden_size: int,
        *,
        input_size: int = 0,
        kind: Kind = "full",
        bias: bool = True,
        key: Key[Array, ""] | UInt[Array, "2"],
        dtype: jnp.dtype | type | None = None,
    ):
        count("hidden_size", hidden_size)
        count("input_size", input_size, 0)
        check_choice("kind", kind, get_args(Kind))
        dtype = jnp.result_type(float) if dtype is None else dtype
        gates = 2 if kind == "full" else 1
        keys = iter(jr.split(key, 2 * gates + 2))

        def drawn(size: int, number: int) -> Array:
            """Square matrices side by side, each with the range of its own sizes."""
            limit = (6 / (size + hidden_size)) ** 0.5
            shape = (size, hidden_size)
            draw = lambda: jr.uniform(next(keys), shape, dtype, minval=-limit, maxval=limit)
            return jnp.concatenate([draw() for _ in range(number)], axis=1)

        self.of_state = drawn(hidden_size, gates)
        self.of_candidate = drawn(hidden_size, 1)
        self.of_input = drawn(input_size, gates + 1) if input_size else None
        self.bias = jnp.zeros(((gates + 1) * hidden_size,), dtype) if bias else None
        self.kind = kind

    def __call__(
        self, t: Time, y: Float[Array, "*batch hidden"], args: Args = None
    ) -> Float[Array, "*batch hidden"]:
        hidden = y.shape[-1]
        given = self._given(y, args)
        number = self.of_state.shape[1]
        gates = jax.nn.sigmoid(y @ self.of_state + given[..., :number])
        z, r = gates[..., :hidden], gates[..., -hidden:]  # one and the same if minimal
        u = jnp.tanh((r * y) @ self.of_candidate + given[..., number:])
        return (1 - z) * (u - y)

    def _given(self, y: Array, p: Args) -> Array:
        """What inputs and biases add: to the gates, then to the candidate."""
        gates_and_candidate = self.of_state.shape[1] + y.shape[-1]
        total = jnp.zeros((*y.shape[:-1], gates_and_candidate), y.dtype)
        if self.bias is not None:
            total = total + jnp.broadcast_to(self.bias, total.shape)
        if self.of_input is None:
            return total
        size = self.of_input.shape[0]
        if p is None or p.shape[-1:] != (size,):
            got = "none" if p is None else f"an array of shape {p.shape}"
            raise ValueError(
                f"This `GRUFlow` was made with `input_size={size}` and takes inputs of shape "
                f"(..., {size}) as `args`, but got {got}."
            )
        return total + jnp.broadcast_to(p @ self.of_input, total.shape)
