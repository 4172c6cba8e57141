"""Integrals along a trajectory, by the solver's own quadrature."""

from collections.abc import Callable

from .. import tree
from ..integrate import Step
from ..shapes import Scalar, State, Time


def along_stages(step: Step, integrand: Callable[[Time, State, State], Scalar]) -> Scalar:
    r"""$h \sum_i b_i\, q(t_0 + c_i h, g_i, k_i)$, an approximation of $\int q\, dt$ over one step
    of the order of the solver.

    Stages whose weight is zero are not evaluated.

    Raises:
        ValueError: if the solver hides its stages.
    """
    if step.rates is None or step.stages is None or not step.weights:
        raise ValueError(
            f"An integral along the trajectory reads the stages of each step, which "
            f"`{step.solver_name}` does not show. Use a Runge-Kutta solver such as "
            "`diffrax.Tsit5()`."
        )
    found = [
        b * integrand(step.t0 + c * (step.t1 - step.t0), stage, rate)
        for b, c, stage, rate in zip(step.weights, step.nodes, step.stages, step.rates, strict=True)
        if b != 0
    ]
    return step.h * tree.sum_in_order(found)
