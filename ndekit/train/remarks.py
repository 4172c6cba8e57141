"""What the parts of a carry have to say at the end of a training."""

from typing import Any, Protocol, runtime_checkable

import jax
from jaxtyping import PyTree


@runtime_checkable
class Remarking(Protocol):
    """A part of a carry that knows whether it did what it is for: a budget, a mean of weights."""

    def remark(self) -> str | None:
        """A sentence on what did not work out and what to do; `None` if all is well."""


def remarks_of(carry: PyTree) -> tuple[str, ...]:
    """The remarks of all parts of a carry."""
    speaks: Any = lambda part: isinstance(part, Remarking)
    parts = filter(speaks, jax.tree.leaves(carry, is_leaf=speaks))
    return tuple(said for part in parts if (said := part.remark()) is not None)
