"""The local error estimate as a cost."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp

from ..integrate import AbstractStepCost, Step
from ..integrate.control.norms import rms_norm
from ..numbers import count
from ..shapes import Scalar


class StepError(AbstractStepCost):
    r"""The embedded error estimate of a step: $e_n h_n$, or $e_n^2$ with `power=2`.

    $e_n$ is the number that the controller compares with one,
    $\lVert \mathrm{error} / (\mathrm{atol} + \mathrm{rtol} \max(|y_0|, |y_1|)) \rVert$ in the
    controller's norm (root mean square over the whole state); with `scaled=False` the root mean
    square of the raw estimate, in units of the state. Over a solve from $t_0$ to $t_1$ the sum of
    $e_n h_n$ lies in $[0, t_1 - t_0]$ whatever the number of steps, so its value says little; it is
    its gradient, with step sizes held constant, that pulls the model towards easy dynamics.

    No evaluation of the vector field is added.

    Args:
        power: 1 for $e h$ (the published regulariser), 2 for $e^2$, which grows with the number of
            steps.
        scaled: whether to divide by the tolerances.
        part: of an SDE's estimate, all of it, or what the `"drift"` or the `"noise"` adds.

    Raises:
        ValueError: for another power or part; when solving, if the solver has no error estimate (or
            not in parts), or `scaled` and no tolerances.

    Example:
        ```python
        import ndekit as nk

        costs = {"error": nk.EveryStep(nk.StepError(), "mean"), "squared": nk.StepError(power=2)}
        ```

    Reference: Pal, Ma, Shah and Rackauckas, "Opening the Blackbox", ICML 2021 (ERNODE). Their text
    sums $|h|\, E$; their code takes the mean over accepted steps of the scaled estimate.
    """

    power: Literal[1, 2] = eqx.field(static=True, default=1)
    scaled: bool = eqx.field(static=True, default=True)
    part: Literal["all", "drift", "noise"] = eqx.field(static=True, default="all")

    def __check_init__(self):
        if count("power", self.power) not in (1, 2):
            raise ValueError(
                f"`power` must be 1 (error times h) or 2 (error squared), but got {self.power!r}."
            )
        if self.part not in ("all", "drift", "noise"):
            raise ValueError(f"`part` must be 'all', 'drift' or 'noise', but got {self.part!r}.")

    def of_step(self, step: Step) -> Scalar:
        if self.part != "all":
            step = step.with_error_of(self.part)
        error = step.scaled_error if self.scaled else rms(step.checked_error(), step)
        return error * step.h if self.power == 1 else error**2


def rms(x: object, step: Step) -> Scalar:
    """Root mean square over all leaves; its derivative at zero is zero, not NaN."""
    return jnp.asarray(rms_norm(x)).astype(step.h.dtype)
