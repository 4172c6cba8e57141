"""The Frobenius norm of the vector field's Jacobian as a cost."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from ..integrate import AbstractStepCost, Step
from ..shapes import Scalar, State, Time
from .path_integral import along_stages


class JacobianNorm(AbstractStepCost):
    r"""$\int \lVert \partial f / \partial y \rVert_F^2 / d\; dt$, $d$ the number of entries of the
    state.

    By Hutchinson's estimate with one probe for the whole solve, $\lVert \epsilon^T J \rVert^2$ with
    standard normal $\epsilon$, or exactly. At the solver's own stages; each costs one vjp of the
    field, or $d$ of them if `exact`. In units of 1 / time.

    Give `diffeqsolve(key=...)` a new key for each update. Lanes of a `jax.vmap` share their probe
    unless the key is mapped over.

    Args:
        exact: the whole Jacobian instead of a probe: for small states, and to test with.

    Raises:
        ValueError: when solving, without a `key` unless `exact`; if the solver hides its stages.

    Example:
        ```python
        import ndekit as nk

        costs = {"kinetic": nk.Kinetic(), "jacobian": nk.JacobianNorm()}
        ```

    Reference: Finlay et al., ICML 2020 (RNODE); Hutchinson 1990.
    """

    exact: bool = eqx.field(static=True, default=False)

    def of_step(self, step: Step) -> Scalar:
        _, unravel = ravel_pytree(step.y0)
        norm = _squared if self.exact else self._estimate(step)

        def along(t: Time, y: State, rate: State) -> Scalar:
            of_state = lambda y: ravel_pytree(step.field(t, unravel(y)))[0]
            y = ravel_pytree(y)[0]
            return norm(of_state, y) / y.size

        return along_stages(step, along)

    def _estimate(self, step: Step) -> Callable:
        if step.key is None:
            raise ValueError(
                "`JacobianNorm` draws a probe and needs a key. Pass `diffeqsolve(key=...)`, or use "
                "`JacobianNorm(exact=True)`."
            )
        y = ravel_pytree(step.y0)[0]
        probe = jr.normal(step.key, y.shape, y.dtype)
        return lambda fn, y: jnp.sum(jax.vjp(fn, y)[1](probe)[0] ** 2)


def _squared(fn: Callable, y: Array) -> Scalar:
    """The squared Frobenius norm of the Jacobian of `fn` at `y`."""
    return jnp.sum(jax.jacrev(fn)(y) ** 2)
