"""The training run that a user calls."""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree, UInt

from . import checkpoint, loop
from .log import JsonLines
from .progress import ProgressBar
from .update import Row


class FitResult(NamedTuple):
    """What comes out of [`ndekit.train.fit`][].

    Attributes:
        model: the best model if `patience` was given, else the last one.
        history: one row for each update (`kind="train"`) and each evaluation (`kind="evaluate"`),
            with the number of updates done as `update`; read it with [`ndekit.train.column`][].
        num_updates: updates done.
        best_update: after how many updates the best evaluation was; `None` without `evaluate`.
        compile_seconds, train_seconds: for the updates, without evaluations; summed over the parts
            of an interrupted run.
        carry: what the loss handed on last; `None` if nothing.
    """

    model: PyTree
    history: list[Row]
    num_updates: int
    best_update: int | None
    compile_seconds: float
    train_seconds: float
    carry: PyTree = None


def fit(
    model: PyTree,
    loss_fn: Callable,
    batch_fn: Callable[[int], PyTree],
    *,
    optimizer: optax.GradientTransformation,
    num_updates: int,
    key: Key[Array, ""] | UInt[Array, "2"],
    updates_per_call: int = 1,
    evaluate: Callable[[PyTree], Mapping[str, Any]] | None = None,
    evaluate_every: int | None = None,
    patience: int | None = None,
    monitor: str = "loss",
    log_path: str | os.PathLike | None = None,
    checkpoint_dir: str | os.PathLike | None = None,
    checkpoint_every: int | None = None,
    resume: bool = True,
    progress: bool = True,
    carry: PyTree = None,
    after_evaluate: Callable[[PyTree, Mapping[str, float]], PyTree] | None = None,
) -> FitResult:
    r"""Minimise `loss_fn` over the floating-point arrays of a model, with one compiled update.

    Given a `checkpoint_dir`, a run that was killed goes on where its last checkpoint stands and
    ends bit for bit where it would have ended: update $i$ depends on the model, the optimiser's
    state, `batch_fn(i)` and `fold_in(key, i)` alone. An interrupt (Ctrl-C) writes a checkpoint and
    is raised again.

    Args:
        model: any PyTree, for example an Equinox module.
        loss_fn: `loss_fn(model, batch, step, *, key) -> (loss, metrics)`. `step` counts updates
            from 0, for schedules; `metrics` is a dict of scalars. Metrics named `accuracy`, `steps`
            and `evals` (vector-field evaluations) appear in the progress bar.
        batch_fn: update number to batch, a PyTree of arrays of constant shape, and a pure function
            of that number: for example [`ndekit.data.Batches`][].
        optimizer: any optax transformation.
        num_updates: at least 1.
        key: split into one key for each update.
        updates_per_call: updates in one compiled call; 10 to 100 spares small models the time
            between calls.
        evaluate: `evaluate(model)` returns a dict of numbers, for example on validation data.
        evaluate_every: updates between evaluations, a multiple of `updates_per_call`; by default
            about a twentieth of `num_updates`. The end is evaluated too.
        patience: stop after this many evaluations without a better one and return the best model;
            by default go on to the end and return the last model.
        monitor: the name of `evaluate`'s number that tells which model is best; smaller is better.
        log_path: a file of JSON lines, one for each row of the history; overwritten.
        checkpoint_dir: a folder for `checkpoint.eqx`.
        checkpoint_every: updates between checkpoints, a multiple of `updates_per_call`; by default
            at each evaluation's turn. The end is kept too.
        resume: whether to go on from a checkpoint if there is one.
        progress: whether to show a progress bar.
        carry: what the loss hands on from each update to the next: running averages, multipliers. A
            PyTree of arrays, kept in the checkpoint. `loss_fn` then takes it as `carry=` and
            returns `(loss, metrics, carry)`.
        after_evaluate: `after_evaluate(carry, metrics)` returns the carry to go on with, given what
            `evaluate` has returned.

    Returns:
        A [`ndekit.train.FitResult`][].

    Raises:
        NonFiniteLossError: if a loss or its gradient is infinite or not a number.
        CheckpointError: if the checkpoint is damaged or belongs to another run.
        ValueError: if a number is out of range, or intervals do not fit each other.

    Example:
        ```python
        import equinox as eqx, jax.numpy as jnp, jax.random as jr, optax
        import ndekit as nk

        def loss_fn(model, batch, step, *, key):
            x, y = batch
            return jnp.mean((x @ model - y) ** 2), {}

        x = jr.normal(jr.key(0), (100, 3))
        result = nk.train.fit(
            jnp.zeros(3), loss_fn, lambda step: (x, x @ jnp.ones(3)),
            optimizer=optax.adam(0.1), num_updates=200, key=jr.key(1),
        )
        ```
    """
    plan = loop.Plan(
        loss_fn=loss_fn,
        batch_fn=batch_fn,
        optimizer=optimizer,
        key=key,
        num_updates=_at_least_one("num_updates", num_updates),
        updates_per_call=_at_least_one("updates_per_call", updates_per_call),
        evaluate=evaluate,
        evaluate_every=_interval("evaluate_every", evaluate_every, num_updates, updates_per_call),
        patience=None if patience is None else _at_least_one("patience", patience),
        monitor=monitor,
        checkpoint_dir=None if checkpoint_dir is None else Path(checkpoint_dir),
        checkpoint_every=_interval(
            "checkpoint_every", checkpoint_every, num_updates, updates_per_call
        ),
        after_evaluate=after_evaluate,
    )
    if after_evaluate is not None and (carry is None or evaluate is None):
        raise ValueError("`after_evaluate` changes the carry: pass `carry` and `evaluate` too.")
    if patience is not None and evaluate is None:
        raise ValueError("`patience` counts evaluations, but `evaluate` is `None`. Pass one.")
    state, history = _start(plan, model, carry, resume)
    log = None if log_path is None else JsonLines(log_path, history)
    bar = ProgressBar(num_updates, state.update, show=progress)
    try:
        state = loop.run(plan, state, history, log, bar)
    finally:
        bar.close()
        if log is not None:
            log.close()
    return _result(plan, state, history)


def _start(
    plan: loop.Plan, model: PyTree, carry: PyTree, resume: bool
) -> tuple[checkpoint.State, list[Row]]:
    state = checkpoint.State(
        model=model,
        opt_state=plan.optimizer.init(eqx.filter(model, eqx.is_inexact_array)),
        best_model=None if plan.evaluate is None else model,
        carry=jax.tree.map(jnp.asarray, carry),
        best_value=math.inf,
        best_update=0,
        num_stale=0,
        update=0,
        compile_seconds=0.0,
        train_seconds=0.0,
    )
    if resume and plan.checkpoint_dir is not None:
        kept = checkpoint.load(plan.checkpoint_dir, state, plan.key)
        if kept is not None:
            return _within(plan, *kept)
    return state, []


def _within(plan: loop.Plan, state: checkpoint.State, history: list[Row]) -> tuple:
    if state.update > plan.num_updates:
        raise checkpoint.CheckpointError(
            f"The checkpoint in `{plan.checkpoint_dir}` stands after {state.update} updates, past "
            f"`num_updates` ({plan.num_updates}). Raise it, or start over with `resume=False`."
        )
    return state, history


def _result(plan: loop.Plan, state: checkpoint.State, history: list[Row]) -> FitResult:
    return FitResult(
        model=state.model if plan.patience is None else state.best_model,
        history=history,
        num_updates=state.update,
        best_update=None if plan.evaluate is None else state.best_update,
        compile_seconds=state.compile_seconds,
        train_seconds=state.train_seconds,
        carry=state.carry,
    )


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}.")
    return value


def _interval(name: str, value: int | None, num_updates: int, updates_per_call: int) -> int:
    if value is None:
        return updates_per_call * max(1, round(num_updates / 20 / updates_per_call))
    if value < 1 or value % updates_per_call:
        raise ValueError(
            f"`{name}` must be a multiple of `updates_per_call` ({updates_per_call}), got {value}."
        )
    return value
