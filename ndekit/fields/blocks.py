"""Small square matrices side by side: products, and exponentials.

The axis of the matrices is the last one: `(*batch, row, column, matrices)`. A product of small
matrices is then a few products of long vectors, which is what a CPU is good at; a batch of calls
into a library of linear algebra, one for each 4 x 4 matrix, takes tens of times longer.
"""

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .block_product import block_product

# Larger ones are multiplied by the library.
_SMALL = 8
# By the bits of a number: the norm up to which Taylor's polynomial is exact to rounding, and its
# degree. The first term left out, norm^(degree + 1) / (degree + 1)!, is below half a rounding.
_TAYLOR = {16: (0.6, 8), 32: (0.6, 8), 64: (0.3, 12)}
# Squarings for matrices that are a little too large, and the most that there are.
_FEW, _MOST = 3, 12


def product(
    a: Float[Array, "*batch row inner matrices"], b: Float[Array, "*batch inner column matrices"]
) -> Float[Array, "*batch row column matrices"]:
    """Of each matrix of `a` with that of `b`."""
    if a.shape[-2] > _SMALL:
        return jnp.einsum("...ikn,...kjn->...ijn", a, b)
    return block_product(a, b)


def applied(
    matrices: Float[Array, "*batch row column matrices"], y: Float[Array, "*batch column matrices"]
) -> Float[Array, "*batch row matrices"]:
    """Each matrix times its vector."""
    return product(matrices, y[..., :, None, :])[..., :, 0, :]


def identity(like: Float[Array, "*batch row row matrices"]) -> Float[Array, "row row matrices"]:
    size, number = like.shape[-2:]
    return jnp.broadcast_to(jnp.eye(size, dtype=like.dtype)[..., None], (size, size, number))


def exponential(
    a: Float[Array, "*batch row row matrices"],
) -> Float[Array, "*batch row row matrices"]:
    r"""$\exp(a)$ of each matrix, by Taylor's polynomial of $a / 2^s$ and $s$ squarings.

    NaN for a matrix that is too large to have an exponential in this precision.
    """
    if a.shape[-2] == 1:
        return jnp.exp(a)
    bound, degree = _TAYLOR[jnp.finfo(a.dtype).bits]
    norm = jnp.max(jnp.sum(jnp.abs(a), axis=-3, keepdims=True), axis=-2, keepdims=True)
    norm = lax.stop_gradient(norm)
    # Not more than that: 2^s has to be a number.
    halvings = jnp.ceil(jnp.log2(jnp.maximum(norm / bound, 1)))
    # One choice for all matrices, in all lanes: else every branch is computed.
    above = lambda number: eqxi.unvmap_any(jnp.any(~(halvings <= number)))
    which = above(0).astype(jnp.int32) + above(_FEW).astype(jnp.int32)
    # One number that the compiler cannot see through. It would fuse all products by computing each
    # anew wherever it is read, many times in the reverse pass; no fusion repeats a division.
    one = 1 + 0 * which.astype(a.dtype)
    # What is in between is made again in the reverse pass. Kept, it would take the place of all
    # matrices of a chunk many times, and a choice keeps places for each of its branches.
    taylor = jax.checkpoint(lambda a: _taylor(a, degree, one))
    squared = lambda number: jax.checkpoint(lambda a: _squared(a, halvings, number, degree, one))
    return lax.switch(which, [taylor, squared(_FEW), squared(_MOST)], a)


def _squared(a: Array, halvings: Array, number: int, degree: int, one: Array) -> Array:
    """The exponential, where no matrix needs more than so many squarings."""
    small = _taylor(a * jnp.exp2(-jnp.minimum(halvings, number)), degree, one)

    def square(m: Array, turn: Array) -> tuple[Array, None]:
        return jnp.where(turn < halvings, product(m, m), m), None

    turns = jnp.arange(number, dtype=a.dtype)
    found, _ = lax.scan(square, small, turns)
    return jnp.where(halvings <= number, found, jnp.nan)


def _taylor(a: Array, degree: int, one: Array) -> Array:
    r"""$\sum_k a^k / k!$ in four or five products: by powers of $a^q$ (Paterson and Stockmeyer).
    Each is divided by `one`.
    """
    width = {8: 3, 12: 4}[degree]
    powers = [jnp.broadcast_to(identity(a), a.shape), a]
    while len(powers) <= width:
        powers.append(product(powers[-1], a) / one)
    factorials = [1.0]
    for k in range(1, degree + 1):
        factorials.append(factorials[-1] * k)

    def piece(start: int) -> Array:
        last = min(start + width, degree + 1)
        terms = [powers[k - start] * (1 / factorials[k]) for k in range(start, last)]
        return sum(terms[1:], terms[0])

    starts = list(range(0, degree + 1, width))
    total = piece(starts[-1])
    for start in reversed(starts[:-1]):
        total = product(total, powers[width]) / one + piece(start)
    return total
