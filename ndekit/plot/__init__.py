"""Pictures of training runs, of solvers, and of the steps of one."""

from .frontier import plot_frontier
from .solver_seen import plot_solver_seen
from .training import plot_training
from .work import plot_work

__all__ = [
    "plot_frontier",
    "plot_solver_seen",
    "plot_training",
    "plot_work",
]
