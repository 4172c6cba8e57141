"""Whether two outcomes are the same: to rounding, or as near as diffrax is to itself."""

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from support.close import ROUNDING, difference_after

from .differences import (
    CHECKED,
    CONSTANT_GRID,
    DIFFERENCES,
    may_follow_the_grid,
)
from .outcome import Outcome, outcome, precision, scope_of
from .recorded import on_recorded_grid


class Gap(NamedTuple):
    """One thing that differs: where, and in what way."""

    where: str  # a path, or one of "raised", "said", "warned", "structure"
    what: str


class Verdict(NamedTuple):
    """How a configuration ended."""

    kind: str  # "equal", "refused alike", "rounding", "deliberate", "UNEXPLAINED"
    reasons: list[str]
    gaps: list[Gap]


def gaps_between(
    ours: Outcome, theirs: Outcome, operations: float, rough: bool = False
) -> list[Gap]:
    """`operations` are those of `difference_after`; `rough` where float32 had a part in them."""
    if ours.raised is not None or theirs.raised is not None:
        return _gaps_of_refusals(ours, theirs)
    gaps = []
    if ours.warned != theirs.warned:
        gaps.append(Gap("warned", f"{sorted(ours.warned)} against {sorted(theirs.warned)}"))
    for path in sorted(set(ours.leaves) | set(theirs.leaves)):
        pair = ours.leaves.get(path), theirs.leaves.get(path)
        kinds = ours.kinds.get(path), theirs.kinds.get(path)
        if kinds[0] != kinds[1]:
            gaps.append(Gap(path, f"is {kinds[0]} against {kinds[1]}"))
        elif isinstance(pair[0], str):
            if pair[0] != pair[1]:
                gaps.append(Gap(path, f"{pair[0]} against {pair[1]}"))
        elif line := difference_after(operations * _coarser(pair[0], rough), *pair):
            gaps.append(Gap(path, line))
    return gaps


def _name(kind: Any) -> str:
    return kind.__name__


def _gaps_of_refusals(ours: Outcome, theirs: Outcome) -> list[Gap]:
    if ours.raised is None or theirs.raised is None:
        side = "ndekit" if theirs.raised is None else "diffrax"
        out = ours if theirs.raised is None else theirs
        return [Gap("raised", f"only {side} raises {_name(out.raised)}: {out.said}")]
    gaps = []
    if not issubclass(ours.raised, theirs.raised):
        kinds = _name(ours.raised), _name(theirs.raised)
        gaps.append(Gap("kind", f"{kinds[0]} against {kinds[1]}"))
    if difflib.SequenceMatcher(None, ours.said, theirs.said).ratio() < 0.6:
        gaps.append(Gap("said", f"{ours.said!r} against {theirs.said!r}"))
    return gaps


def _coarser(leaf: Any, rough: bool) -> float:
    """By how much a rounding is larger than the leaf's dtype says."""
    if not rough or leaf.dtype.kind not in "fc":
        return 1.0
    return float(np.finfo(np.float32).eps / np.finfo(leaf.dtype).eps)


def operations_of(facts: dict, outcomes: list[Outcome]) -> float:
    """How often rounding may have happened, in units of that of a short computation.

    Once a step. The length of an adaptive step follows from an error estimate, about `rtol` of the
    state, so a rounding error of the state is 1 / rtol times as large in the lengths of steps.
    """
    steps = max([1, *(x.steps for x in outcomes)])
    if facts["derivative"]:  # the steps are not told
        steps = 32
    return max(steps, 1 / facts["rtol"]) if facts["adaptive"] else steps


def came_by(draft: Any, diffeqsolve: Callable) -> Outcome:
    with precision(draft.facts):
        return outcome(scope_of(draft), draft.facts, diffeqsolve)


def beyond_rounding(
    draft: Any, ours: Outcome, theirs: Outcome, gaps: list[Gap], reference: Callable
) -> list[Gap]:
    """The gaps that are ten times as large as diffrax's own when its state is moved by rounding."""
    for units in (4, 16, ROUNDING):
        if not gaps:
            break
        moved = _moved(draft, units, reference)
        gaps = [gap for gap in gaps if not _as_large(gap, ours, theirs, moved)]
    return gaps


def _moved(draft: Any, units: int, reference: Callable) -> Outcome:
    """The reference's outcome with y0 some units in the last place away."""
    rng = np.random.default_rng(units)

    def push(x: Any) -> Any:
        if not eqx.is_inexact_array(x):
            return x
        signs = jnp.asarray(rng.choice([-1.0, 1.0], size=x.shape), x.dtype)
        return x * (1 + units * jnp.finfo(x.dtype).eps * signs).astype(x.dtype)

    with precision(draft.facts):
        scope = scope_of(draft)
        scope["inputs"]["y0"] = jax.tree.map(push, scope["inputs"]["y0"])
        return outcome(scope, draft.facts, reference)


def _as_large(gap: Gap, ours: Outcome, theirs: Outcome, moved: Outcome) -> bool:
    if (moved.raised is None) != (theirs.raised is None):
        return True
    outcomes = ours, theirs, moved
    if len({x.kinds.get(gap.where) for x in outcomes}) > 1:
        return False
    mine, there, other = (x.leaves.get(gap.where) for x in outcomes)
    if mine is None or there is None or other is None or isinstance(there, str):
        return False
    mine, there, other = (
        x if x.dtype.kind == "c" else x.astype(float) for x in (mine, there, other)
    )
    with np.errstate(invalid="ignore"):
        size, own = np.abs(mine - there), np.abs(other - there)
    if np.any(np.isnan(size) != np.isnan(own)):
        return False
    return bool(np.nanmax(size, initial=0) <= 10 * np.nanmax(own, initial=0))


def judged(draft: Any, mine: Outcome, theirs: Outcome) -> Verdict:
    facts, reasons, reference = draft.facts, [], diffrax.diffeqsolve
    gaps = gaps_between(mine, theirs, operations_of(facts, [mine, theirs]), facts["rough"])
    if not gaps:
        return Verdict("equal" if theirs.raised is None else "refused alike", [], [])
    for name, difference in DIFFERENCES.items():
        kept = [gap for gap in gaps if not difference.explains(facts, gap, mine, theirs)]
        reasons += [name] if len(kept) < len(gaps) else []
        gaps = kept
    for name, checked in CHECKED.items():
        if gaps and checked.concerns(facts, theirs):
            reference = checked.change(reference)
            theirs, gaps = _against(draft, mine, reference)
            reasons += [name]
    if any(may_follow_the_grid(facts, gap, theirs) for gap in gaps):
        reference = on_recorded_grid(reference)
        still, left = _against(draft, mine, reference)
        left = {gap.where for gap in left}
        explained = lambda g: may_follow_the_grid(facts, g, theirs) and g.where not in left
        kept = [gap for gap in gaps if not explained(gap)]
        reasons += [CONSTANT_GRID] if len(kept) < len(gaps) else []
        theirs, gaps = still, kept
    if not gaps:
        return Verdict("deliberate", reasons, [])
    if mine.raised is None and not beyond_rounding(draft, mine, theirs, gaps, reference):
        return Verdict("rounding", reasons, gaps)
    return Verdict("UNEXPLAINED", reasons, gaps)


def _against(draft: Any, mine: Outcome, reference: Callable) -> tuple[Outcome, list[Gap]]:
    theirs = came_by(draft, reference)
    return theirs, gaps_between(
        mine, theirs, operations_of(draft.facts, [mine, theirs]), draft.facts["rough"]
    )
