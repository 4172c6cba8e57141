"""diffrax 0.7.2's default root finder gives up too early; what stands in for it."""

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
    """The solver with `optimistix.Chord` where it has the broken `diffrax.VeryChord`, tolerances
    and linear solver kept.
    """
    if not GIVES_UP:
        return solver
    if isinstance(solver, diffrax.AbstractWrappedSolver):
        inner: Any = solver.solver
        better = mended(inner)
        return solver if better is inner else eqx.tree_at(lambda s: s.solver, solver, better)
    finder = getattr(solver, "root_finder", None)
    if type(finder) is not diffrax.VeryChord:
        return solver
    chord = optx.Chord(
        finder.rtol, finder.atol, finder.norm, linear_solver=finder.linear_solver
    )  # fmt: skip
    return eqx.tree_at(lambda s: s.root_finder, solver, chord)
