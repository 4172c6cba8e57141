"""What a solver that is written with its `init` and `step` says of its evaluations."""

from typing import NamedTuple


class Evaluations(NamedTuple):
    """Evaluations of the field.

    Attributes:
        each: in every step.
        first: before the first step, or, if there are `first_steps`, in all of them together beyond
            `each`.
        first_steps: how many steps are made otherwise than the rest.
    """

    each: int
    first: int = 0
    first_steps: int = 0
