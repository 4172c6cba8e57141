"""A classifier whose depth is the time of an ODE."""

from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float, Key, UInt

from ..integrate import Solution
from ..shapes import Args
from .neural_ode import NeuralODE


class ODEClassifier(eqx.Module):
    r"""Logits $= \mathrm{head}(y(t_1))$ with $y(t_0) = \mathrm{encoder}(x)$.

    Like [`ndekit.models.NeuralODE`][] it takes one sample under `jax.vmap`, or a batch as one state
    if the encoder, the field and the head allow leading axes.

    Args:
        encoder: inputs to the first state, for example `equinox.nn.Identity()`.
        ode: the solve.
        head: the last state to logits, for example [`ndekit.fields.Affine`][].

    Example:
        ```python
        import equinox as eqx, jax.numpy as jnp, jax.random as jr, ndekit as nk

        field_key, head_key = jr.split(jr.key(0))
        model = nk.models.ODEClassifier(
            eqx.nn.Identity(),
            nk.models.NeuralODE(nk.fields.MLP(64, width=32, depth=1, key=field_key)),
            nk.fields.Affine(64, 10, key=head_key),
        )
        logits, solution = model(jnp.ones((5, 64)))
        assert logits.shape == (5, 10)
        ```
    """

    encoder: Callable
    ode: NeuralODE
    head: Callable

    def __call__(
        self,
        x: Float[Array, "*batch inputs"],
        args: Args = None,
        *,
        key: Key[Array, ""] | UInt[Array, "2"] | None = None,
    ) -> tuple[Float[Array, "*batch classes"], Solution]:
        """The logits, and the solution whose `stats` and `costs` say what they took."""
        solution = self.ode(self.encoder(x), args=args, key=key)
        assert solution.ys is not None
        return self.head(solution.ys[-1]), solution
