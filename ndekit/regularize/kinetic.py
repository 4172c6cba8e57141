"""The kinetic energy of a trajectory as a cost."""

from ..integrate import AbstractStepCost, Step
from ..shapes import Scalar
from .mean_square import mean_square
from .path_integral import along_stages


class Kinetic(AbstractStepCost):
    r"""$\int \tfrac12 \lVert f \rVert^2 / d\; dt$: half the mean square of the rate of change,
    $d$ the number of entries of the state (a batch that is one state is averaged over).

    By the solver's own stages and weights; no evaluation of the vector field is added. In units of
    state squared over time.

    Raises:
        ValueError: when solving, if the solver hides its stages.

    Example:
        ```python
        import ndekit as nk

        costs = {"kinetic": nk.Kinetic()}  # loss = task_loss + 0.01 * sol.costs["kinetic"]
        ```

    Reference: Finlay et al., "How to train your neural ODE", ICML 2020 (RNODE), as in their code.
    """

    def of_step(self, step: Step) -> Scalar:
        return along_stages(step, lambda t, y, rate: 0.5 * mean_square(rate))
