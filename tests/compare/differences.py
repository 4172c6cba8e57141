"""Where ndekit leaves diffrax on purpose, each with its reason.

They stand in `docs/how_to/coming_from_diffrax.md`. Each says which configurations it can concern,
and which of their gaps it explains.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .outcome import Outcome


class Difference(NamedTuple):
    """`explains(facts, gap, ours, theirs)`."""

    reason: str
    explains: Callable[[dict, Any, Outcome, Outcome], bool]


def _default_root_finder(facts, gap, ours, theirs):
    return facts.get("root_finder") == "default"


def _said_at_once(facts, gap, ours, theirs):
    """The same refusal, in our words and as a `ValueError`."""
    wrong = ("ts out of order", "ts outside", "dt0 backwards", "no steps")
    both = ours.raised is not None and theirs.raised is not None
    return facts["mischief"] in wrong and both and gap.where in ("kind", "said")


def _no_bound(facts, gap, ours, theirs):
    both = ours.raised is not None and theirs.raised is not None
    return facts["mischief"] == "no bound" and facts["derivative"] and both


def _fails_there(facts, gap, ours, theirs):
    """Diffrax trips over itself, before anything is solved."""
    finder, conditions = facts.get("finder") or "None", facts["event"] or ()
    mixed = facts["x64"] and facts["time_dtype"] == "float32" and finder != "None"
    several = len(conditions) > 1 and "Bisection" in finder
    how = gap.where == "raised" and ours.raised is None and theirs.raised
    return (mixed and how is TypeError) or (several and how is AttributeError)


NOT_FINITE = (
    "field of a gap", "a state that is not finite", "an end of nowhere", "dt0 not a number"
)  # fmt: skip


def _ends(facts, gap, ours, theirs):
    """Diffrax's loop goes on, to `max_steps` or with numbers that are none."""
    return facts["mischief"] in NOT_FINITE


DIFFERENCES = {
    "default root finder": Difference(
        "`diffrax.VeryChord` of 0.7.2 gives up too early; `optimistix.Chord` stands in",
        _default_root_finder,
    ),
    "refused at once": Difference(
        "what is known to be wrong is said at once, in our words", _said_at_once
    ),
    "gradient without a bound": Difference("refused in our words", _no_bound),
    "fails in diffrax": Difference(
        "bisection among several conditions; roots in float32 times where float64 is allowed",
        _fails_there,
    ),
    "what is not finite ends the solve": Difference(
        "with a result of its own, and an error that says where", _ends
    ),
}

# The others are not taken on trust: ours must equal diffrax as it would be otherwise.


class Checked(NamedTuple):
    """Of which configurations, and what diffrax is changed to."""

    reason: str
    concerns: Callable[[dict, Outcome], bool]
    change: Callable[[Callable], Callable]


CONSTANT_GRID = "constant grid"
GRID_REASON = (
    "steps that the controller chose are constants: `t0` moves the first step alone, `dt0` none, "
    "and a rejected step nothing; ours equals diffrax on its recorded grid"
)


def _is_unsafe(facts: dict, theirs: Outcome) -> bool:
    return facts.get("unsafe", False) and "does not support `UnsafeBrownianPath`" in theirs.said


def _is_told_the_time(facts: dict, theirs: Outcome) -> bool:
    conditions = facts["event"] or ()
    read = any("clock" in condition or "late" in condition for condition in conditions)
    return read and facts["direction"] == "backwards"


def may_follow_the_grid(facts: dict, gap: Any, theirs: Outcome) -> bool:
    """Whether diffrax's whole grid moves, or differentiates what it rejected."""
    if not facts["derivative"] or facts["controller"] not in ("pid", "growing"):
        return False
    theirs_is_nan = gap.where in theirs.leaves and np.any(np.isnan(theirs.leaves[gap.where]))
    moving = {"t0", "dt0", "step_ts", "jump_ts"}
    # A tangent is one number for all that moves.
    names = set(facts["by"]) if facts["transform"] == "jvp" else moving
    return (
        bool(theirs_is_nan)
        or any(f"['{name}']" in gap.where for name in moving)
        or (facts["transform"] == "jvp" and bool(names & moving))
    )


def with_the_users_time(diffeqsolve: Callable) -> Callable:
    """`diffeqsolve` whose event conditions are told the user's time in every direction."""

    def solve(terms, solver, t0, t1, *more, event, **options):
        sign = jnp.where(jnp.asarray(t0) < jnp.asarray(t1), 1, -1)

        def told(condition):
            return lambda t, y, args, **known: condition(t * sign, y, args, **known)

        conditions = jax.tree.map(told, event.cond_fn, is_leaf=callable)
        event = diffrax.Event(conditions, event.root_finder, event.direction)
        return diffeqsolve(terms, solver, t0, t1, *more, event=event, **options)

    return solve


class Disguised(diffrax.AbstractBrownianPath):
    """The same noise under another name: diffrax refuses `UnsafeBrownianPath` by its class."""

    key: Any
    levy_area: Any = eqx.field(static=True)
    shape: Any = eqx.field(static=True)

    def evaluate(self, t0, t1=None, left=True, use_levy=False):
        path = diffrax.UnsafeBrownianPath(self.shape, self.key, self.levy_area)
        return path.evaluate(t0, t1, left, use_levy)

    @property
    def t0(self):
        return -jnp.inf

    @property
    def t1(self):
        return jnp.inf


def with_noise_disguised(diffeqsolve: Callable) -> Callable:
    """`diffeqsolve` that does not know noise which remembers nothing."""
    is_unsafe = lambda x: isinstance(x, diffrax.UnsafeBrownianPath)

    def solve(terms, *more, **options):
        dress = lambda x: Disguised(x.key, x.levy_area, x.shape) if is_unsafe(x) else x
        return diffeqsolve(jax.tree.map(dress, terms, is_leaf=is_unsafe), *more, **options)

    return solve


CHECKED = {
    "noise that remembers nothing": Checked(
        "diffrax refuses it by default; a replayed step asks for the noise of the same interval "
        "again; ours equals diffrax with the same noise under another name",
        _is_unsafe,
        with_noise_disguised,
    ),
    "a condition is told the user's time": Checked(
        "in a solve backwards, diffrax tells an event's condition the time with its sign changed; "
        "ours equals diffrax with the sign changed back",
        _is_told_the_time,
        with_the_users_time,
    ),
}
