"""The training run that a user calls."""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree, UInt

from ..numbers import count
from . import checkpoint, loop
from .log import JsonLines
from .progress import ProgressBar
from .remarks import remarks_of
from .result import FitResult
from .resume import Beginning, begin, logger
from .trained import strongly_typed, trained


def fit(
    model: PyTree,
    loss_fn: Callable,
    batch_fn: Callable[[int], PyTree],
    *,
    optimizer: optax.GradientTransformation | optax.MultiSteps,
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
    tag: str | None = None,
    progress: bool = True,
    carry: PyTree = None,
    after_evaluate: Callable[[PyTree, Mapping[str, float]], PyTree] | None = None,
    stop: Callable[[], bool] | None = None,
) -> FitResult:
    r"""Minimise `loss_fn` over the floating-point arrays of a model, with one compiled update.

    Arrays of step size controllers (the times of a `diffrax.StepTo`, tolerances) stay as they are.

    Given a `checkpoint_dir`, a run that was killed goes on where its last checkpoint stands and
    ends bit for bit where it would have ended: update $i$ depends on the model, the optimiser's
    state, `batch_fn(i)` and `fold_in(key, i)` alone. An interrupt (Ctrl-C) writes a checkpoint and
    is raised again. That a run goes on is said on stderr ("resumed at update 100 of 200"), by the
    logger `ndekit.train`. A checkpoint of another run (another loss, first batch, initial model,
    key, or optimiser with all its hyper-parameters) is refused.

    Args:
        model: any PyTree, for example an Equinox module.
        loss_fn: `loss_fn(model, batch, step, *, key) -> (loss, metrics)`. `step` counts updates
            from 0, for schedules; `metrics` is a dict of scalars. Metrics named `accuracy`, `steps`
            and `evals` (vector-field evaluations) appear in the progress bar.
        batch_fn: update number to batch, a PyTree of arrays of constant shape, and a pure function
            of that number: for example [`ndekit.data.Batches`][].
        optimizer: any optax transformation. Those that ask for them are given the loss (`value`),
            and the loss of the same batch and key as a function of the parameters (`value_fn`).
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
            With a minus, `"-accuracy"`, larger is. One that is not finite is no better than any.
        log_path: a file of JSON lines, one for each row of the history; overwritten.
        checkpoint_dir: a folder for `checkpoint.eqx`; made, and written to, before the first
            update.
        checkpoint_every: updates between checkpoints, a multiple of `updates_per_call`; by default
            at each evaluation's turn. The end is kept too.
        resume: whether to go on from a checkpoint if there is one. A run that `patience` has ended
            goes on if `num_updates` or `patience` is larger than before.
        tag: a word that tells runs in one `checkpoint_dir` apart: the file is then
            `checkpoint-TAG.eqx`.
        progress: whether to show a progress bar.
        carry: what the loss hands on from each update to the next: running averages, multipliers. A
            PyTree of arrays, kept in the checkpoint. `loss_fn` then takes it as `carry=` and
            returns `(loss, metrics, carry)`. A part of it that has a method `remark()`, such as
            that of a [`ndekit.StepBudget`][], is asked at the end what did not work out.
        after_evaluate: `after_evaluate(carry, metrics)` returns the carry to go on with, given what
            `evaluate` has returned.
        stop: asked before each compiled call whether the run should end there for now; a clock, for
            example. The checkpoint is written, and the result has fewer updates than were asked
            for; the same call goes on later.

    Returns:
        A [`ndekit.train.FitResult`][].

    Raises:
        NonFiniteLossError: if a loss or its gradient is infinite or not a number.
        CheckpointError: if the checkpoint is damaged or belongs to another run.
        OSError: if `checkpoint_dir` cannot be written.
        ValueError: if a number is out of range or no whole number, intervals do not fit each other,
            `model` has nothing to train, or `loss_fn` or `evaluate` returns something else than
            asked for; if `patience` is to return the best model and no evaluation was finite.

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
    model = strongly_typed(model)
    _check_arguments(model, loss_fn, batch_fn, optimizer, key, evaluate, patience, monitor)
    if after_evaluate is not None and (carry is None or evaluate is None):
        raise ValueError("`after_evaluate` changes the carry: pass `carry` and `evaluate` too.")
    per_call = count("updates_per_call", updates_per_call)
    interval = lambda name, value: _interval(name, value, num_updates, per_call)
    plan = loop.Plan(
        loss_fn=loss_fn,
        batch_fn=batch_fn,
        optimizer=optimizer,
        key=key,
        num_updates=count("num_updates", num_updates),
        updates_per_call=per_call,
        evaluate=evaluate,
        evaluate_every=interval("evaluate_every", evaluate_every),
        patience=None if patience is None else count("patience", patience),
        monitor=monitor,
        checkpoint_path=_checkpoint_path(checkpoint_dir, tag),
        checkpoint_every=interval("checkpoint_every", checkpoint_every),
        after_evaluate=after_evaluate,
        stop=stop,
    )
    calls = loop.TimedCalls(plan)
    start = begin(plan, _first_state(plan, model, carry), calls, resume)
    log = None if log_path is None else JsonLines(log_path, start.history)
    bar = ProgressBar(num_updates, start.state.update, show=progress)
    try:
        state = loop.run(plan, start.state, start.history, calls, start.fingerprint, log, bar)
    finally:
        bar.close()
        if log is not None:
            log.close()
    return _result(plan, state, start)


def _first_state(plan: loop.Plan, model: PyTree, carry: PyTree) -> checkpoint.State:
    with jax.numpy_dtype_promotion("standard"):  # as for its updates
        opt_state = plan.optimizer.init(trained(model))
    return checkpoint.State(
        model=model,
        opt_state=opt_state,
        best_model=None if plan.evaluate is None else model,
        carry=jax.tree.map(jnp.asarray, carry),
        best_value=math.inf,
        best_update=0,
        num_stale=0,
        update=0,
        compile_seconds=0.0,
        train_seconds=0.0,
    )


def _result(plan: loop.Plan, state: checkpoint.State, start: Beginning) -> FitResult:
    judged = math.isfinite(state.best_value)
    done = loop.is_done(plan, state)
    if plan.patience is not None and not judged and done:
        raise ValueError(
            f"`evaluate` gave no finite {plan.monitor!r} in {state.update} updates, so no model is "
            "the best one, which `patience` asks for. Mend `evaluate`, name another `monitor`, or "
            "leave `patience` out to get the last model."
        )
    # What half a training lacks is no news.
    remarks = remarks_of(state.carry) if done else ()
    for remark in remarks:
        logger.warning(remark)
    return FitResult(
        model=state.best_model if plan.patience is not None and judged else state.model,
        history=start.history,
        num_updates=state.update,
        best_update=state.best_update if judged else None,
        compile_seconds=state.compile_seconds,
        train_seconds=state.train_seconds,
        carry=state.carry,
        resumed_at=start.state.update,
        remarks=remarks,
    )


def _check_arguments(
    model: PyTree, loss_fn: Any, batch_fn: Any, optimizer: Any, key: Any, evaluate: Any,
    patience: Any, monitor: str,
) -> None:  # fmt: skip
    if not jax.tree.leaves(trained(model)):
        raise ValueError(
            "`model` has no floating-point arrays, so there is nothing to train. Python numbers "
            "and arrays of integers stay as they are: make them `jnp.asarray(x, float)`."
        )
    for name, given in (("loss_fn", loss_fn), ("batch_fn", batch_fn)):
        if not callable(given):
            advice = " For the same data in each update: `lambda step: data`."
            raise ValueError(
                f"`{name}` must be a function, got a {type(given).__name__}."
                + (advice if name == "batch_fn" else "")
            )
    if not (callable(getattr(optimizer, "init", None)) and hasattr(optimizer, "update")):
        raise ValueError(
            f"`optimizer` must be an optax transformation such as `optax.adam(1e-3)`, got "
            f"{optimizer!r}."
        )
    if not eqx.is_array(key):
        raise ValueError(f"`key` must be a JAX key such as `jax.random.key(0)`, got {key!r}.")
    if monitor == "accuracy":
        raise ValueError(
            "Of what `monitor` names less is better. For the largest accuracy write '-accuracy'."
        )
    if patience is not None and evaluate is None:
        raise ValueError("`patience` counts evaluations, but `evaluate` is `None`. Pass one.")


def _checkpoint_path(folder: str | os.PathLike | None, tag: str | None) -> Path | None:
    if folder is None:
        if tag is not None:
            raise ValueError("`tag` names a checkpoint, but there is no `checkpoint_dir`.")
        return None
    path = checkpoint.path_in(folder, tag)
    checkpoint.prepare(path)
    return path


def _interval(name: str, value: int | None, num_updates: int, updates_per_call: int) -> int:
    if value is None:
        num_updates = count("num_updates", num_updates)
        return updates_per_call * max(1, round(num_updates / 20 / updates_per_call))
    if count(name, value) % updates_per_call:
        raise ValueError(
            f"`{name}` must be a multiple of `updates_per_call` ({updates_per_call}), got {value}."
        )
    return value
