"""Checks of the numbers that a user gives, by name and before anything is traced."""

import math
import operator
from typing import Any

from jax.core import Tracer


def count(name: str, value: Any, least: int = 1, advice: str = "") -> int:
    """`value` as a Python integer, if it is a whole number and at least `least`.

    A float is none, `10.0` included: sizes and lengths of loops are made of it. Nor is a boolean.

    Raises:
        ValueError: for anything else; `advice` ends the message.
    """
    try:
        found = None if _is_bool(value) else operator.index(value)
    except TypeError:
        found = None
    if found is None:
        raise ValueError(_said(f"`{name}` must be a whole number, got {value!r}.", advice))
    if found < least:
        raise ValueError(_said(f"`{name}` must be at least {least}, got {found}.", advice))
    return found


def counts(**values: Any) -> None:
    """Pass over whole numbers that are at least 1, by name.

    Raises:
        ValueError: for anything else.
    """
    for name, value in values.items():
        count(name, value)


def real(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    advice: str = "",
) -> None:
    """Pass over a finite number within its bounds; of a traced value nothing is known.

    Raises:
        ValueError: for no number, one that is infinite or NaN, or one out of bounds.
    """
    if isinstance(value, Tracer):
        return
    try:
        found = math.nan if _is_bool(value) or isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(_said(f"`{name}` must be a finite number, got {value!r}.", advice))
    inside = (
        (above is None or found > above)
        and (least is None or found >= least)
        and (below is None or found < below)
        and (most is None or found <= most)
    )
    if not inside:
        bounds = _bounds(above=above, least=least, below=below, most=most)
        raise ValueError(_said(f"`{name}` must be {bounds}, got {value!r}.", advice))


def positive(name: str, value: Any, advice: str = "") -> None:
    """Pass over a finite number above zero.

    Raises:
        ValueError: for anything else.
    """
    real(name, value, above=0.0, advice=advice)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "b"


def _said(sentence: str, advice: str) -> str:
    return f"{sentence} {advice}" if advice else sentence


def _bounds(
    above: float | None, least: float | None, below: float | None, most: float | None
) -> str:
    if (above, least, below, most) == (0, None, None, None):
        return "positive"
    if above is not None and below is not None:
        return f"between {above:g} and {below:g}"
    words = (("above", above), ("at least", least), ("below", below), ("at most", most))
    return " and ".join(f"{word} {bound:g}" for word, bound in words if bound is not None)
