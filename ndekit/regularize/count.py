"""The number of steps as a cost."""

import jax.numpy as jnp

from ..integrate import AbstractStepCost, Step
from ..shapes import Scalar


class StepCount(AbstractStepCost):
    r"""A differentiable count of the solver's steps: $e_n^{1/q}$ for each step, $q$ the order of
    the error estimate.

    An ideal controller takes $N = \int C(t)^{1/q}\, dt$ steps, where $C$ is the local error
    coefficient, and on any grid $e_n = C_n h_n^q$. So the sum of $e_n^{1/q}$ is a quadrature of
    that integral: the steps that the tolerance asks for, 0.6 to 1.0 of the accepted steps of a
    solve of twenty steps or more. Its weight in a loss reads "loss per solver step".

    The gradient is that on the recorded grid. Where accuracy limits the steps it is the gradient of
    the count; where stability limits them it has the right sign and is several times too long;
    where sharp layers move in time it is noise.

    A step without error (a field at rest) counts nothing, and has derivative zero.

    Raises:
        ValueError: when solving, if the solver has no error estimate or the controller no
            tolerances.

    Example:
        ```python
        import ndekit as nk

        costs = {"steps": nk.StepCount()}  # loss = task_loss + 0.01 * sol.costs["steps"]
        ```
    """

    def of_step(self, step: Step) -> Scalar:
        error = step.scaled_error
        if step.error_order is None:
            raise ValueError(
                f"`StepCount` needs the order of the error estimate, which `{step.solver_name}` "
                "does not state. Pass `diffrax.PIDController(..., error_order=...)`."
            )
        # The root has an infinite derivative at zero.
        positive = error > 0
        # Not a power: XLA's CPU backend has vector code for exp and log, and a scalar call for pow.
        root = jnp.exp(jnp.log(jnp.where(positive, error, 1)) / step.error_order)
        return jnp.where(positive, root, 0)
