"""The loop over updates: the only place where a training run changes."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from ..integrate.programs.run_time_errors import told_plainly
from .checkpoint import State, save
from .fingerprint import Fingerprint
from .log import JsonLines
from .progress import ProgressBar
from .update import Row, not_finite_in, rows_of, run_updates


class Plan(NamedTuple):
    """What a run does, and when. Checked by `fit`; the intervals are multiples of a call."""

    loss_fn: Callable
    batch_fn: Callable[[int], PyTree]
    optimizer: optax.GradientTransformation | optax.MultiSteps
    key: Array
    num_updates: int
    updates_per_call: int
    evaluate: Callable[[PyTree], Mapping[str, Any]] | None
    evaluate_every: int
    patience: int | None
    monitor: str
    checkpoint_path: Path | None
    checkpoint_every: int
    after_evaluate: Callable[[PyTree, Mapping[str, float]], PyTree] | None
    stop: Callable[[], bool] | None = None

    def next_call(self, done: int) -> int:
        """How many updates the call after `done` of them makes."""
        # Calls end at multiples of `updates_per_call`, also after a resumption: the same programs.
        num = self.updates_per_call - done % self.updates_per_call
        return min(num, self.num_updates - done)


def run(
    plan: Plan,
    state: State,
    history: list[Row],
    calls: "TimedCalls",
    fingerprint: Fingerprint | None,
    log: JsonLines | None,
    bar: ProgressBar,
) -> State:
    """Go on until all updates are done, patience ends or `stop` says so; an interrupt leaves a
    checkpoint, and so does `stop`.

    `history` grows in place. Returns the last state.
    """

    def keep() -> None:
        if plan.checkpoint_path is not None:
            assert fingerprint is not None
            save(plan.checkpoint_path, state, history, fingerprint, plan.num_updates)

    try:
        while not is_done(plan, state):
            if plan.stop is not None and plan.stop():
                keep()
                break
            new_state, rows, seconds = advance(plan, state, calls)
            history.extend(rows)
            state = new_state
            if log is not None:
                log.append(rows)
            bar.update([row for row in rows if row["kind"] == "train"], seconds)
            if state.update % plan.checkpoint_every == 0 or is_done(plan, state):
                keep()
    except KeyboardInterrupt:
        keep()
        raise
    return state


def is_done(plan: Plan, state: State) -> bool:
    return state.update >= plan.num_updates or is_impatient(plan, state)


def is_impatient(plan: Plan, state: State) -> bool:
    return plan.patience is not None and state.num_stale >= plan.patience


def advance(plan: Plan, state: State, calls: "TimedCalls") -> tuple[State, list[Row], float]:
    """One compiled call and the evaluation that falls due after it; its rows and its seconds."""
    num = plan.next_call(state.update)
    (model, opt_state, carry, outputs), seconds, compile_seconds = calls(state, num)
    rows = rows_of(outputs, state.update, lambda update: suspect(plan, state, update))
    state = state._replace(
        model=model,
        opt_state=opt_state,
        carry=carry,
        update=state.update + num,
        train_seconds=state.train_seconds + seconds,
        compile_seconds=state.compile_seconds + compile_seconds,
    )
    due = state.update % plan.evaluate_every == 0 or state.update == plan.num_updates
    if plan.evaluate is not None and due:
        state, row = assess(plan, state)
        rows.append(row)
    return state, rows, seconds


def suspect(plan: Plan, state: State, update: int) -> str:
    """What is not finite in what an update was given: its batch, and the model of the first."""
    given = {"batch": plan.batch_fn(update - 1)}
    return not_finite_in(given if update > 1 else given | {"model": state.model})


def assess(plan: Plan, state: State) -> tuple[State, Row]:
    """Evaluate the model, and keep it if none was better; one that is not finite is no better."""
    assert plan.evaluate is not None
    returned = plan.evaluate(state.model)
    name = plan.monitor.removeprefix("-")
    if not isinstance(returned, Mapping) or name not in returned:
        got = sorted(returned) if isinstance(returned, Mapping) else f"a {type(returned).__name__}"
        raise ValueError(
            f"`evaluate` must return a dict with {name!r}, the number that tells which "
            f"model is best, but returned {got}. Add it, or name another one as `monitor`."
        )
    metrics = {name: float(value) for name, value in returned.items()}
    row = {"kind": "evaluate", "update": state.update, **metrics}
    if plan.after_evaluate is not None:
        state = state._replace(carry=plan.after_evaluate(state.carry, metrics))
    value = metrics[name] if name == plan.monitor else -metrics[name]
    if math.isfinite(value) and value < state.best_value:
        best = dict(best_model=state.model, best_value=value, best_update=state.update)
        return state._replace(**best, num_stale=0), row
    return state._replace(num_stale=state.num_stale + 1), row


class TimedCalls:
    """Compiled calls with their compile time apart.

    The first call of each length is made twice from the same state. The first of the two, which
    compiles, is thrown away; how much longer it took is the compile time.
    """

    def __init__(self, plan: Plan):
        self._plan = plan
        self._cold: dict[int, float] = {}
        self._warm: set[int] = set()

    def __call__(self, state: State, num: int) -> tuple[tuple, float, float]:
        if num not in self._warm | self._cold.keys():
            self._cold[num] = self._timed(state, num)[1]
        result, seconds = self._timed(state, num)
        self._warm.add(num)
        return result, seconds, max(0.0, self._cold.pop(num, 0.0) - seconds)

    def first_row(self, beginning: State, num: int) -> Row:
        """The row of the first update of a run that begins so. What this compiles is not compiled
        again by a call of `num` updates.
        """
        result, self._cold[num] = self._timed(beginning, num)
        return rows_of(result[-1], 0, lambda update: suspect(self._plan, beginning, update))[0]

    @told_plainly()
    def _timed(self, state: State, num: int) -> tuple[tuple, float]:
        start = time.perf_counter()
        batches = [self._plan.batch_fn(state.update + i) for i in range(num)]
        result = run_updates(
            state.model,
            state.opt_state,
            state.carry,
            jax.tree.map(lambda *leaves: np.stack(leaves), *batches),
            state.update + jnp.arange(num, dtype=jnp.int32),
            self._plan.key,
            loss_fn=self._plan.loss_fn,
            optimizer=self._plan.optimizer,
        )
        jax.block_until_ready(eqx.filter(result, eqx.is_array))
        return result, time.perf_counter() - start
