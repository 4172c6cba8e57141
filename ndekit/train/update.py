"""Several updates of a model in one compiled call."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Int, PyTree, Real

from .. import tree
from .loss import checked_metrics, in_one_form
from .trained import trained_and_rest

Row = dict[str, Any]


class NonFiniteLossError(FloatingPointError):
    """The loss, or its gradient, was infinite or not a number; the message names the update."""


@eqx.filter_jit
def run_updates(
    model: PyTree,
    opt_state: PyTree,
    carry: PyTree,
    batches: PyTree,
    steps: Int[Array, " updates"],
    key: Array,
    *,
    loss_fn: Callable,
    optimizer: optax.GradientTransformation | optax.MultiSteps,
) -> tuple[PyTree, PyTree, PyTree, dict[str, Real[Array, " updates"]]]:
    """The updates numbered `steps`, each with its own of the `batches` stacked on a first axis."""
    params, static = trained_and_rest(model)
    in_full = in_one_form(loss_fn)

    def update(before: tuple, now: tuple) -> tuple[tuple, dict[str, Array]]:
        (params, opt_state, carry), (step, batch) = before, now
        own_key = jr.fold_in(key, step)

        def loss_of(params: PyTree) -> tuple[Array, tuple]:
            return in_full(eqx.combine(params, static), batch, step, own_key, carry)

        loss_and_grad = eqx.filter_value_and_grad(loss_of, has_aux=True)
        (loss, (metrics, new_carry)), grads = loss_and_grad(params)
        norm = _norm(grads)
        new_params, new_opt_state = stepped(optimizer, grads, opt_state, params, loss, loss_of)
        # A step that is not finite is not taken. `rows_of` reports it, but only after the call, and
        # the updates still to come in it would fail first, less clearly, inside a solve.
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        params = tree.where(finite, new_params, params)
        opt_state = tree.where(finite, new_opt_state, opt_state)
        carry = tree.where(finite, _like(carry, new_carry), carry)
        outputs = {"loss": loss, "gradient_norm": norm, **checked_metrics(metrics)}
        return (params, opt_state, carry), outputs

    start = (params, opt_state, carry)
    if len(steps) == 1:
        # No scan round a single update: XLA keeps a loop of one trip, and loses fusions to it.
        end, outputs = update(start, jax.tree.map(lambda x: x[0], (steps, batches)))
        outputs = jax.tree.map(lambda x: x[None], outputs)
    else:
        end, outputs = jax.lax.scan(update, start, (steps, batches))
    params, opt_state, carry = end
    return eqx.combine(params, static), opt_state, carry, outputs


def stepped(
    optimizer: Any, grads: PyTree, opt_state: PyTree, params: PyTree, loss: Array, loss_of: Callable
) -> tuple[PyTree, PyTree]:
    """The parameters and the optimiser's state after its step.

    A transformation that takes more than gradients is given what optax's documentation names:
    `value`, `grad`, and the loss of this batch and key as a function of the parameters (`value_fn`,
    which Sophia calls `obj_fn`). One that does not ask evaluates nothing.
    """
    # optax's line searches hand on to `value_fn` what else they are given, and insist on its taking
    # it: hence its `obj_fn`, which is not read.
    promotion = jax.config.jax_numpy_dtype_promotion  # pyright: ignore[reportAttributeAccessIssue]

    def value_fn(params: PyTree, obj_fn: Any = None) -> Array:
        with jax.numpy_dtype_promotion(promotion):
            return loss_of(params)[0]

    offered = dict(value=loss, grad=grads, value_fn=value_fn, obj_fn=value_fn)
    takes = inspect.signature(optimizer.update).parameters
    if all(parameter.kind != parameter.VAR_KEYWORD for parameter in takes.values()):
        offered = {name: offered[name] for name in offered.keys() & takes.keys()}
    with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 counts with floats
        changes, new_state = optimizer.update(grads, opt_state, params, **offered)
        return optax.apply_updates(params, changes), new_state


def _like(carry: PyTree, new_carry: PyTree) -> PyTree:
    """The new carry, checked to be of the same make as the old one."""
    make = lambda tree: jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)
    if jax.tree.structure(carry) != jax.tree.structure(new_carry) or make(carry) != make(new_carry):
        raise ValueError(
            "`loss_fn` must return a carry of the structure, shapes and dtypes that it was given, "
            f"{make(carry)}, but returned {make(new_carry)}."
        )
    return new_carry


def rows_of(
    outputs: dict[str, Array], done: int, suspect: Callable[[int], str] = lambda update: ""
) -> list[Row]:
    """One row for each update of a call that began after `done` updates.

    Args:
        outputs: of `run_updates`.
        done: updates done before.
        suspect: `suspect(update)`, a sentence on what is not finite in what this update was given.

    Raises:
        NonFiniteLossError: if a loss or a gradient is not finite.
    """
    columns = {name: values.tolist() for name, values in jax.device_get(outputs).items()}
    rows = [
        {"kind": "train", "update": done + 1 + i, **dict(zip(columns, values, strict=True))}
        for i, values in enumerate(zip(*columns.values(), strict=True))
    ]
    for row in rows:
        if not (math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])):
            raise NonFiniteLossError(_told(row, suspect(row["update"])))
    return rows


def _told(row: Row, found: str) -> str:
    said = [
        f"Update {row['update']} gave loss {row['loss']:g} with a gradient of norm "
        f"{row['gradient_norm']:g}.",
        found,
    ]
    if row["update"] > 1:
        said.append(
            "Try a smaller learning rate, `optax.clip_by_global_norm`, or a smaller coefficient on "
            "the solver's costs."
        )
        return " ".join(filter(None, said))
    said.insert(
        1,
        "No step had been taken: it is the data or the model (or a coefficient), not the learning "
        "rate.",
    )
    if math.isfinite(row["loss"]):
        said.append(
            "Look for a root, a norm or a logarithm at zero: its value is finite there and its "
            "derivative is not."
        )
    elif not found:
        said.append("All numbers of batch and model are finite: look at what the loss makes of it.")
    return " ".join(filter(None, said))


def not_finite_in(trees: dict[str, PyTree]) -> str:
    """Which arrays of these trees hold numbers that are not finite, in a sentence; "" if none."""
    where = [
        f"{name}{jax.tree_util.keystr(path)}"
        for name, given in trees.items()
        for path, leaf in jax.tree_util.tree_flatten_with_path(given)[0]
        if eqx.is_inexact_array(leaf) and not bool(jnp.all(jnp.isfinite(jnp.asarray(leaf))))
    ]
    return f"Not finite before it: {', '.join(where[:4])}." if where else ""


def _norm(grads: PyTree) -> Array:
    squares = [jnp.sum(jnp.square(jnp.abs(g))) for g in jax.tree.leaves(grads)]
    return jnp.sqrt(jnp.sum(jnp.stack(squares)))
