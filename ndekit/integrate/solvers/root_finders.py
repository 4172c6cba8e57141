"""Root finders of implicit solvers: which, and how exactly they solve."""

import importlib.metadata
from typing import Any

import diffrax
import equinox as eqx
import optimistix as optx

# diffrax's VeryChord says "diverged" where it means "not converged yet", and optimistix 0.1 stops
# at the first word: implicit solvers reject half of their steps (Robertson: 451 instead of 34).
# Mended upstream after 0.7.2 (diffrax pull request 754). A test watches whether this is still so.
GIVES_UP = importlib.metadata.version("diffrax") in ("0.7.1", "0.7.2")


def mended(solver: Any) -> Any:
    """The solver with `optimistix.Chord` in place of the broken `diffrax.VeryChord`, linear solver
    kept. Only where that is diffrax's own default: one with tolerances of its own is the user's.
    """
    if not GIVES_UP:
        return solver
    if isinstance(solver, diffrax.AbstractWrappedSolver):
        inner: Any = solver.solver
        better = mended(inner)
        return solver if better is inner else eqx.tree_at(lambda s: s.solver, solver, better)
    finder = getattr(solver, "root_finder", None)
    if type(finder) is not diffrax.VeryChord or not _takes_all_tolerances(finder):
        return solver
    chord = optx.Chord(
        finder.rtol, finder.atol, finder.norm, linear_solver=finder.linear_solver
    )  # fmt: skip
    return eqx.tree_at(lambda s: s.root_finder, solver, chord)


# What stands in a root finder for "as the step size controller has it".
_AS_CONTROLLER = diffrax.with_stepsize_controller_tols(optx.Chord)().rtol


def _takes_all_tolerances(finder: Any) -> bool:
    return all(getattr(finder, name) is _AS_CONTROLLER for name in ("rtol", "atol", "norm"))


def with_tolerances(solver: Any, controller: Any) -> Any:
    """The solver with the controller's tolerances where its root finder is to take them."""
    finder = getattr(solver, "root_finder", None)
    taken = [n for n in ("rtol", "atol", "norm") if getattr(finder, n, None) is _AS_CONTROLLER]
    if not taken:
        return solver
    read = lambda x: [getattr(x, name) for name in taken]
    return eqx.tree_at(lambda s: read(s.root_finder), solver, read(controller))
