"""The solution of a solve."""

from typing import Any

import diffrax

from ..shapes import Scalar
from .resets import ResetStates


class Solution(diffrax.Solution):
    """`diffrax.Solution` and the costs of the solve.

    Attributes:
        costs: one differentiable scalar for each entry of `diffeqsolve(costs=...)`.
        resets: the states before and after each reset, of a solve with `resets`.
        stats: diffrax's `num_steps`, `num_accepted_steps`, `num_rejected_steps` and `max_steps`,
            and `num_evals`, the evaluations of the vector field that the solve needed: those of
            rejected steps, of the first stage of a first-same-as-last scheme and of an automatic
            first step included. `num_evals` is missing where diffrax's own loop ran a solver that
            hides its stages. Under `jax.vmap`, one count a lane.
    """

    costs: dict[str, Any | Scalar]
    resets: ResetStates | None = None
