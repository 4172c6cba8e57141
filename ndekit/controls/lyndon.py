r"""Log-signatures as coefficients in the Lyndon basis, and back.

Letters are the channels, from 0. The words come by length, then in the order of a dictionary, and
each has a bracket: $ab \mapsto [a, b]$, $aab \mapsto [a, [a, b]]$, $abb \mapsto [[a, b], b]$, and
for $a < b < c$: $abc \mapsto [a, [b, c]]$, $acb \mapsto [[a, c], b]$.
"""

from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..numbers import count
from .log_signature import LogSignature, checked_depth

Word: TypeAlias = tuple[int, ...]


def lyndon_words(num_channels: int, depth: int) -> tuple[Word, ...]:
    """The words of the basis, in the order of its coefficients.

    Args:
        num_channels: letters, from 1.
        depth: longest word, 1 to 3.

    Returns:
        For `d` channels: `d` words at depth 1, `d * (d - 1) / 2` more at depth 2 and
        `(d**3 - d) / 3` more at depth 3.

    Raises:
        ValueError: if a number is out of range.

    Example:
        ```python
        import ndekit as nk

        assert nk.controls.lyndon_words(2, 3) == ((0,), (1,), (0, 1), (0, 0, 1), (0, 1, 1))
        ```
    """
    d = range(count("num_channels", num_channels))
    checked_depth(depth)
    words: list[Word] = [(a,) for a in d]
    if depth > 1:
        words += [(a, b) for a in d for b in d if a < b]
    if depth > 2:
        # What comes before both of its rotations.
        words += [(a, b, c) for a in d for b in d for c in d if a < c and a <= b]
    return tuple(words)


def lyndon_brackets(num_channels: int, depth: int) -> tuple[Any, ...]:
    """The bracket that belongs to each word, as nested pairs of channels.

    Example:
        ```python
        import ndekit as nk

        assert nk.controls.lyndon_brackets(2, 3) == (0, 1, (0, 1), (0, (0, 1)), ((0, 1), 1))
        ```
    """
    return tuple(map(_bracketed, lyndon_words(num_channels, depth)))


def _bracketed(word: Word) -> Any:
    if len(word) == 1:
        (letter,) = word
        return letter
    if len(word) == 2:
        return word
    first, second, third = word
    if second < third:
        return first, (second, third)
    return (first, second), third


def to_lyndon(signature: LogSignature) -> Float[Array, "*w basis"]:
    r"""The coefficients $\lambda$ with $L = \sum_w \lambda_w\, \mathrm{bracket}(w)$.

    They are the tensor's entries at the words, but for $\lambda_{acb} = L_{acb} + L_{abc}$ with
    $a < b < c$: the bracket of $abc$ holds $-acb$. (Some libraries hand out the entries at the
    words. From depth 3 and 3 channels on these are other numbers.)

    Args:
        signature: of depth 1 to 3.

    Returns:
        One coefficient for each of [`ndekit.controls.lyndon_words`][], on the last axis.

    Raises:
        ValueError: if it is no [`ndekit.controls.LogSignature`][].

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        right = nk.controls.LogSignature.segment(jnp.array([1.0, 0.0]), 1.0, depth=2)
        up = nk.controls.LogSignature.segment(jnp.array([0.0, 1.0]), 1.0, depth=2)
        assert nk.controls.to_lyndon(right @ up).tolist() == [1.0, 1.0, 0.5]
        ```

    Reference: Reutenauer (1993), *Free Lie Algebras*, chapter 5.
    """
    if not isinstance(signature, LogSignature):
        raise ValueError(
            f"`to_lyndon` needs a `nk.controls.LogSignature`, got {type(signature).__name__}."
        )
    words = lyndon_words(signature.num_channels, signature.depth)
    parts = []
    for k, level in enumerate(signature.levels, start=1):
        letters = _letters(words, k)
        part = level[(..., *letters)]
        if k == 3:
            a, b, c = letters
            part = part + jnp.where(np.broadcast_to(b > c, part.shape), level[..., a, c, b], 0)
        parts.append(part)
    return jnp.concatenate(parts, axis=-1)


def from_lyndon(
    coefficients: Float[Array | np.ndarray, "*w basis"],
    num_channels: int,
    depth: int,
    durations: Any = 0.0,
) -> LogSignature:
    """The log-signature with these coefficients: what [`ndekit.controls.to_lyndon`][] undoes.

    Args:
        coefficients: one for each word, on the last axis.
        num_channels, depth: of the path.
        durations: one number, or one for each entry of the leading axes.

    Raises:
        ValueError: if there are more or fewer coefficients than words.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        area = nk.controls.from_lyndon(jnp.array([0.0, 0.0, 2.0]), num_channels=2, depth=2)
        assert area.levels[1].tolist() == [[0.0, 2.0], [-2.0, 0.0]]
        ```
    """
    words = lyndon_words(num_channels, depth)
    coefficients = jnp.asarray(coefficients)
    *w, found = coefficients.shape
    if found != len(words):
        raise ValueError(
            f"{num_channels} channels have {len(words)} coefficients to depth {depth}, got {found}."
        )
    levels, begin = [], 0
    for k in range(1, depth + 1):
        letters = _letters(words, k)
        end = begin + len(letters[0])
        level = jnp.zeros((*w, *[num_channels] * k), coefficients.dtype)
        for sign, places in _expanded(letters):
            level = level.at[(..., *places)].add(sign * coefficients[..., begin:end])
        levels.append(level)
        begin = end
    durations = jnp.broadcast_to(jnp.asarray(durations, coefficients.dtype), tuple(w))
    return LogSignature(tuple(levels), durations)


def _letters(words: tuple[Word, ...], length: int) -> list[np.ndarray]:
    """First letters, second letters, ... of the words of this length."""
    kept = [word for word in words if len(word) == length]
    return list(np.array(kept, int).reshape(-1, length).T)


def _expanded(letters: list[np.ndarray]) -> list[tuple[int, tuple[np.ndarray, ...]]]:
    """The words in the brackets, with their signs."""
    if len(letters) == 1:
        return [(1, tuple(letters))]
    if len(letters) == 2:
        a, b = letters
        return [(1, (a, b)), (-1, (b, a))]
    a, b, c = letters
    # [a, [b, c]] for b < c, [[a, b], c] for the others. Both begin with abc and end with cba.
    one, other = (a, c, b, b, c, a), (b, a, c, c, a, b)
    middle = [np.where(b < c, x, y) for x, y in zip(one, other, strict=True)]
    return [(1, (a, b, c)), (-1, tuple(middle[:3])), (-1, tuple(middle[3:])), (1, (c, b, a))]
