"""Whether a solver steps as a class says: what a user's subclass changes is not passed over."""

from typing import Any

import diffrax

# What makes the steps of a diffrax solver; the rest describes them.
_OF_A_STEP = ("init", "step", "func")


def steps_as(solver: Any, base: type) -> bool:
    """Whether a solver is of a class and takes its steps with that class's own methods.

    Not by `isinstance`, which for a wrapper such as `HalfSolver` says what the wrapped solver is.
    """
    cls = type(solver)
    return issubclass(cls, base) and all(
        getattr(cls, name) is getattr(base, name) for name in _OF_A_STEP
    )


def is_explicit_runge_kutta(solver: Any) -> bool:
    """Whether a solver, diffrax's or a user's, takes the steps of an explicit tableau."""
    return type(solver) is diffrax.Euler or steps_as(solver, diffrax.AbstractERK)


def written_together(solver: Any, *methods: str) -> bool:
    """Whether one class wrote all these methods, so that they still belong together."""
    owners = {next((c for c in type(solver).__mro__ if name in vars(c)), None) for name in methods}
    return len(owners) == 1 and None not in owners
