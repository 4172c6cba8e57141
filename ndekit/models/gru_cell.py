"""A gated recurrent unit whose weights are stored as a batch wants them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class GRUCell(eqx.Module):
    r"""The cell of `eqx.nn.GRUCell`, with the same first weights, stored as `(in, out)`.

    $$r, z = \sigma(x W + h U + b), \quad n = \tanh(x W_n + b + r (h U_n + b_n)), \quad
    h \leftarrow n + z (h - n).$$

    The products of a batch and their derivatives are then such that a CPU takes two thirds of the
    time over them.
    """

    of_input: Float[Array, "in gates"]
    of_state: Float[Array, "hidden gates"]
    bias: Float[Array, " gates"]
    bias_n: Float[Array, " hidden"]

    def __init__(self, in_size: int, hidden_size: int, *, key: Any):
        cell = eqx.nn.GRUCell(in_size, hidden_size, key=key)
        assert cell.bias is not None and cell.bias_n is not None  # asked for by default
        self.of_input, self.of_state = cell.weight_ih.T, cell.weight_hh.T
        self.bias, self.bias_n = cell.bias, cell.bias_n

    def __call__(self, x: Float[Array, " in"], h: Float[Array, " hidden"]) -> Any:
        said, gates = x @ self.of_input + self.bias, h @ self.of_state
        two = 2 * h.shape[-1]
        reset, update = jnp.split(jax.nn.sigmoid(said[:two] + gates[:two]), 2)
        new = jnp.tanh(said[two:] + reset * (gates[two:] + self.bias_n))
        return new + update * (h - new)
