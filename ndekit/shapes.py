"""Names for the shapes and dtypes that signatures speak of."""

from typing import Any, TypeAlias

from jaxtyping import Array, Bool, Float, Int, PyTree

Scalar: TypeAlias = Float[Array, ""]
# One a solve, or one a lane where a solve runs in lanes.
Count: TypeAlias = Int[Array, "..."]
Flag: TypeAlias = Bool[Array, "..."]
# A real number: a Python scalar, a NumPy scalar or an array.
Time: TypeAlias = Any
State: TypeAlias = PyTree[Any]
Args: TypeAlias = PyTree[Any]
