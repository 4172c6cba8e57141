"""How a solve of the engine is differentiated."""

import equinox as eqx


class ReplayAdjoint(eqx.Module):
    """Record the accepted steps going forward, replay them backwards with one vjp each. The
    default.

    The gradient is that of the solve on the grid that the controller chose (step sizes are
    constants), exact to rounding, as with diffrax's discretise-then-optimise adjoints. A rejected
    step leaves nothing behind.

    Costs two evaluations of the vector field forward and one in reverse for each stage of an
    accepted step; beyond the first checkpoints one more forward. Memory: `checkpoints` states, as
    many again, and the time of each step.

    Args:
        checkpoints: how many states to keep; by default about `sqrt(max_steps)`. As many steps as
            this are replayed without recomputation.

    Raises:
        ValueError: if `checkpoints` is not positive.

    Reference: Griewank and Walther, *Evaluating Derivatives*, ch. 12 (two-level checkpointing).
    """

    checkpoints: int | None = None

    def __check_init__(self):
        if self.checkpoints is not None and self.checkpoints < 1:
            raise ValueError(
                f"`checkpoints` must be at least 1, but got {self.checkpoints}. "
                "Leave it out for about sqrt(max_steps)."
            )
