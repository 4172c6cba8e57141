"""Log-signatures of consecutive windows of a polygon, in one pass over its pieces."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..tree import where
from .log_signature import Levels, compose, with_segment, zeros


def of_windows(
    pieces: Float[Array, "pieces d"],
    is_first: Bool[Array, " pieces"],
    last: Int[Array, " w"],
    depth: int,
) -> Levels:
    """The levels of each window, `(w, d)`, `(w, d, d)`, ...

    The pieces go in about as many blocks as a block has pieces. All blocks are walked through at
    once, then their ends one after the other: twice the square root of the number of pieces in
    dependent steps, and the work of one pass. A window's own sums alone are added up, not
    differences of sums since the beginning, which in float32 are worthless after a long time.

    Args:
        pieces: increments of straight pieces in their order.
        is_first: which of them begin a window.
        last: the number of each window's last piece.
        depth: how many levels.
    """
    num_pieces, num_channels = pieces.shape
    width = math.isqrt(max(num_pieces - 1, 0)) + 1
    num_blocks = -(-num_pieces // width)
    padding = num_blocks * width - num_pieces
    # Blocks on the second axis: one row of each a turn.
    in_rows = lambda x: jnp.swapaxes(x.reshape(num_blocks, width, *x.shape[1:]), 0, 1)
    pieces = in_rows(jnp.pad(pieces, ((0, padding), (0, 0))))
    is_first = in_rows(jnp.pad(is_first, (0, padding)))

    def turn(state: tuple, given: tuple) -> tuple:
        levels, has_begun = state
        dx, begins = given
        levels = with_segment(where(~begins, levels, _nothing(levels)), dx)
        state = levels, has_begun | begins
        return state, state

    rest = zeros((num_blocks,), num_channels, depth, pieces.dtype)
    start = rest, jnp.zeros(num_blocks, bool)
    ends, walked = jax.lax.scan(turn, start, (pieces, is_first))
    before = _before_each_block(*ends)
    block, row = last // width, last % width
    levels, has_begun = jax.tree.map(lambda x: x[row, block], walked)
    from_before = compose(tuple(level[block] for level in before), levels)
    return where(has_begun, levels, from_before)


def _before_each_block(ends: Levels, has_begun: Bool[Array, " blocks"]) -> Levels:
    """What the window that a block starts in has gathered in the blocks before."""

    def turn(levels: Levels, block: tuple) -> tuple[Levels, Levels]:
        own, begins = block
        return where(begins, own, compose(levels, own)), levels

    start = _nothing(tuple(level[0] for level in ends))
    return jax.lax.scan(turn, start, (ends, has_begun))[1]


def _nothing(levels: Levels) -> Levels:
    return tuple(map(jnp.zeros_like, levels))
