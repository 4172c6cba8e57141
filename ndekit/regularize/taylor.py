"""A total time derivative of the trajectory as a cost."""

import equinox as eqx
import jax.numpy as jnp
from jax.experimental.jet import jet
from jax.flatten_util import ravel_pytree

from ..integrate import AbstractStepCost, Step
from ..numbers import count
from ..shapes import Scalar, State, Time
from .mean_square import mean_square
from .path_integral import along_stages


class Taylor(AbstractStepCost):
    r"""$\int \lVert d^K y / dt^K \rVert^2 / d\; dt$: the mean square of the $K$-th total derivative
    along the trajectory, $d$ the number of entries of the state.

    By Taylor-mode differentiation of the field at the solver's own stages, of order $K^2$ in time.
    In units of state squared over time$^{2K-1}$. The field must be made of operations that
    `jax.experimental.jet` knows.

    Args:
        order: $K$, at least 1. A solver of order $p$ is exact where the derivative of order $p + 1$
            vanishes; 2 and 3 are what is used.

    Raises:
        ValueError: if `order` is no whole number from 1; when solving, if the solver hides its
            stages.

    Example:
        ```python
        import ndekit as nk

        costs = {"taylor": nk.Taylor(3)}
        ```

    Reference: Kelly et al., "Learning differential equations that are easy to solve", NeurIPS 2020
    (TayNODE). Their code loses the last coefficient of each recursion; this does not.
    """

    order: int = eqx.field(static=True)

    def __check_init__(self):
        count("order", self.order)

    def of_step(self, step: Step) -> Scalar:
        _, unravel = ravel_pytree(step.y0)

        def along(t: Time, y: State, rate: State) -> Scalar:
            t, y = jnp.asarray(t), ravel_pytree(y)[0]
            field = lambda t, y: ravel_pytree(step.field(t, unravel(y)))[0]
            derivatives = [ravel_pytree(rate)[0]]
            while len(derivatives) < self.order:
                number = len(derivatives)
                times = [jnp.ones_like(t), *[jnp.zeros_like(t)] * (number - 1)]
                _, series = jet(field, (t, y), (times, derivatives))
                # d^k f / dt^k is the derivative of the state of order k + 1.
                derivatives.append(series[-1])
            return mean_square(derivatives[-1])

        return along_stages(step, along)
