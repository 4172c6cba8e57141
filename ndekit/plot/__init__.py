"""Pictures of training runs and of the steps of a solver."""

from .frontier import plot_frontier
from .solver_seen import plot_solver_seen
from .training import plot_training

__all__ = [
    "plot_frontier",
    "plot_solver_seen",
    "plot_training",
]
