"""Pictures of training runs and of the solver's work."""

from .frontier import plot_frontier as plot_frontier
from .solver_seen import plot_solver_seen as plot_solver_seen
from .training import plot_training as plot_training
