"""Where a run begins: at its first update, or where its checkpoint stands, if that is its own."""

import logging
import math
from typing import NamedTuple

from . import loop
from .checkpoint import CheckpointError, Kept, State, load, refused
from .fingerprint import Fingerprint, fingerprint_of
from .update import Row

# Python prints what is logged as a warning on stderr unless it is told otherwise.
logger = logging.getLogger("ndekit.train")

# Of the loss of the first update, computed anew: by the same versions, and by others, which round
# differently and may take another step.
SAME_VERSIONS, OTHER_VERSIONS = 1e-5, 0.1
PARTS = {
    "loss": "loss",
    "optimizer": "optimiser",
    "model": "initial model",
    "batch": "first batch",
    "carry": "initial carry",
}


class Beginning(NamedTuple):
    """Where a run goes on from, and what its checkpoints will be known by."""

    state: State
    history: list[Row]
    fingerprint: Fingerprint | None


def begin(plan: loop.Plan, first: State, calls: loop.TimedCalls, resume: bool) -> Beginning:
    """The state to go on from: `first`, or that of the checkpoint if there is one.

    Raises:
        CheckpointError: if the checkpoint is damaged or was written by another run.
    """
    if plan.checkpoint_path is None:
        return Beginning(first, [], None)
    fingerprint = fingerprint_of(plan, first.model, first.opt_state, first.carry)
    kept = load(plan.checkpoint_path, first, fingerprint.key) if resume else None
    if kept is None or kept.state.update == 0:
        return Beginning(first, [], fingerprint)
    if kept.state.update > plan.num_updates:
        raise CheckpointError(
            f"The checkpoint `{plan.checkpoint_path}` stands after {kept.state.update} updates, "
            f"past `num_updates` ({plan.num_updates}). Raise it, or start over with "
            "`resume=False`."
        )
    check_same_run(plan, kept, fingerprint, first, calls)
    state = _with_patience_again(plan, kept)
    _say_where(plan, state)
    return Beginning(state, kept.history, fingerprint)


def check_same_run(
    plan: loop.Plan, kept: Kept, ours: Fingerprint, first: State, calls: loop.TimedCalls
) -> None:
    """Pass over a checkpoint that this run has written; say so where that is only probable.

    Digests decide where they agree. Where they do not, another program may mean the same (a metric
    more, another version of JAX): the first update is made anew, and its loss and gradient decide.

    Raises:
        CheckpointError: if they differ, or the optimiser does.
    """
    path, theirs = plan.checkpoint_path, kept.fingerprint
    assert path is not None
    if theirs is None:
        _check_first_update(plan, kept, first, calls, "another run", OTHER_VERSIONS)
        logger.warning(
            "`%s` was written by an older ndekit, which did not note what defines a run. Its first "
            "update is that of this run; whether the optimiser is the same cannot be told.", path,
        )  # fmt: skip
        return
    same_versions = theirs.environment == ours.environment
    if theirs.monitor != ours.monitor:
        raise refused(path, f"another `monitor`, {theirs.monitor!r} instead of {ours.monitor!r}")
    differs = [name for name in PARTS if getattr(theirs, name) != getattr(ours, name)]
    if same_versions and "optimizer" in differs:
        raise refused(path, "another optimiser, or other hyper-parameters of it")
    if not differs:
        return
    named = " and ".join(PARTS[name] for name in differs)
    within = SAME_VERSIONS if same_versions else OTHER_VERSIONS
    _check_first_update(plan, kept, first, calls, f"another {named}", within)
    logger.warning(
        "`%s`: the %s cannot be recognised as those of the run that wrote it%s. Its first update "
        "is the same, so it goes on. If it is another run, give it a `tag`.",
        path, named, "" if same_versions else f", with {theirs.environment}",
    )  # fmt: skip


def _check_first_update(
    plan: loop.Plan, kept: Kept, first: State, calls: loop.TimedCalls, named: str, within: float
) -> None:
    num = plan.next_call(kept.state.update) or min(plan.updates_per_call, plan.num_updates)
    found = calls.first_row(first, num)
    past = next(row for row in kept.history if row["kind"] == "train")
    for number in ("loss", "gradient_norm"):
        if not math.isclose(found[number], past[number], rel_tol=within, abs_tol=1e-12):
            assert plan.checkpoint_path is not None
            raise refused(
                plan.checkpoint_path,
                f"{named}: the {number.replace('_', ' ')} of its first update was "
                f"{past[number]:.7g}, here it is {found[number]:.7g}",
            )


def _with_patience_again(plan: loop.Plan, kept: Kept) -> State:
    """The state, ready to go on where patience had ended and more updates are asked for now, or
    where no evaluation was finite: nobody was found to be worse.
    """
    state = kept.state
    raised = kept.num_updates is not None and plan.num_updates > kept.num_updates
    if loop.is_impatient(plan, state) and (raised or not math.isfinite(state.best_value)):
        return state._replace(num_stale=0)
    return state


def _say_where(plan: loop.Plan, state: State) -> None:
    end = ""
    if loop.is_done(plan, state):
        end = ": nothing is left to do"
        if state.update < plan.num_updates:
            end = ", where `patience` had ended it: raise `num_updates` or `patience` to go on"
    logger.warning(
        "fit: resumed at update %d of %d from `%s`%s.", state.update, plan.num_updates,
        plan.checkpoint_path, end,
    )  # fmt: skip
