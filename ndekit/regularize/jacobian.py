"""The Frobenius norm of the vector field's Jacobian as a cost."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.flatten_util import ravel_pytree

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
        flat, unravel = ravel_pytree(step.y0)

        def along(t: Time, y: State, rate: State) -> Scalar:
            of_state = lambda y: ravel_pytree(step.field(t, unravel(y)))[0]
            y = ravel_pytree(y)[0]
            if self.exact:
                return jnp.sum(jax.jacrev(of_state)(y) ** 2) / y.size
            (row,) = jax.vjp(of_state, y)[1](probe)
            return jnp.sum(row**2) / y.size

        if not self.exact:
            if step.key is None:
                raise ValueError(
                    "`JacobianNorm` draws a probe and needs a key. Pass `diffeqsolve(key=...)`, or "
                    "use `JacobianNorm(exact=True)`."
                )
            probe = jr.normal(step.key, flat.shape, flat.dtype)
        return along_stages(step, along)
