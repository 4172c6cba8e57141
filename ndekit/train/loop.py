"""The loop over updates: the only place where a training run changes."""

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

from .checkpoint import State, save
from .log import JsonLines
from .progress import ProgressBar
from .update import Row, rows_of, run_updates


class Plan(NamedTuple):
    """What a run does, and when. Checked by `fit`; the intervals are multiples of a call."""

    loss_fn: Callable
    batch_fn: Callable[[int], PyTree]
    optimizer: optax.GradientTransformation
    key: Array
    num_updates: int
    updates_per_call: int
    evaluate: Callable[[PyTree], Mapping[str, Any]] | None
    evaluate_every: int
    patience: int | None
    monitor: str
    checkpoint_dir: Path | None
    checkpoint_every: int
    after_evaluate: Callable[[PyTree, Mapping[str, float]], PyTree] | None


def run(
    plan: Plan, state: State, history: list[Row], log: JsonLines | None, bar: ProgressBar
) -> State:
    """Go on until all updates are done or patience ends; an interrupt leaves a checkpoint.

    `history` grows in place. Returns the last state.
    """
    calls = TimedCalls(plan)
    try:
        while not is_done(plan, state):
            new_state, rows, seconds = advance(plan, state, calls)
            history.extend(rows)
            state = new_state
            if log is not None:
                log.append(rows)
            bar.update([row for row in rows if row["kind"] == "train"], seconds)
            if state.update % plan.checkpoint_every == 0 or is_done(plan, state):
                keep(plan, state, history)
    except KeyboardInterrupt:
        keep(plan, state, history)
        raise
    return state


def is_done(plan: Plan, state: State) -> bool:
    impatient = plan.patience is not None and state.num_stale >= plan.patience
    return state.update >= plan.num_updates or impatient


def keep(plan: Plan, state: State, history: list[Row]) -> None:
    if plan.checkpoint_dir is not None:
        save(plan.checkpoint_dir, state, history, plan.key)


def advance(plan: Plan, state: State, calls: "TimedCalls") -> tuple[State, list[Row], float]:
    """One compiled call and the evaluation that falls due after it; its rows and its seconds."""
    # Calls end at multiples of `updates_per_call`, also after a resumption: the same programs run.
    num = plan.updates_per_call - state.update % plan.updates_per_call
    num = min(num, plan.num_updates - state.update)
    (model, opt_state, carry, outputs), seconds, compile_seconds = calls(state, num)
    rows = rows_of(outputs, state.update)
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


def assess(plan: Plan, state: State) -> tuple[State, Row]:
    """Evaluate the model, and keep it if none was better."""
    assert plan.evaluate is not None
    metrics = {name: float(value) for name, value in plan.evaluate(state.model).items()}
    if plan.monitor not in metrics:
        raise ValueError(
            f"`evaluate` must return {plan.monitor!r}, the number that tells which model is best, "
            f"but returned {sorted(metrics)}. Add it, or name another one as `monitor`."
        )
    row = {"kind": "evaluate", "update": state.update, **metrics}
    if plan.after_evaluate is not None:
        state = state._replace(carry=plan.after_evaluate(state.carry, metrics))
    value = metrics[plan.monitor]
    if value < state.best_value:
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
        self._warm: set[int] = set()

    def __call__(self, state: State, num: int) -> tuple[tuple, float, float]:
        cold_seconds = 0.0
        if num not in self._warm:
            _, cold_seconds = self._timed(state, num)
            self._warm.add(num)
        result, seconds = self._timed(state, num)
        return result, seconds, max(0.0, cold_seconds - seconds)

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
