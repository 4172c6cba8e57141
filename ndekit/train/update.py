"""Several updates of a model in one compiled call."""

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

Row = dict[str, Any]
RESERVED_NAMES = ("kind", "update", "loss", "gradient_norm")


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
    optimizer: optax.GradientTransformation,
) -> tuple[PyTree, PyTree, PyTree, dict[str, Real[Array, " updates"]]]:
    """The updates numbered `steps`, each with its own of the `batches` stacked on a first axis."""
    params, static = eqx.partition(model, eqx.is_inexact_array)
    loss_and_grad = eqx.filter_value_and_grad(_in_one_form(loss_fn), has_aux=True)

    def update(before: tuple, now: tuple) -> tuple[tuple, dict[str, Array]]:
        (params, opt_state, carry), (step, batch) = before, now
        model = eqx.combine(params, static)
        own_key = jr.fold_in(key, step)
        (loss, (metrics, new_carry)), grads = loss_and_grad(model, batch, step, own_key, carry)
        norm = _norm(grads)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 counts with floats
            changes, new_opt_state = optimizer.update(grads, opt_state, params)
            new_params = optax.apply_updates(params, changes)
        # A step that is not finite is not taken. `rows_of` reports it, but only after the call, and
        # the updates still to come in it would fail first, less clearly, inside a solve.
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        params = tree.where(finite, new_params, params)
        opt_state = tree.where(finite, new_opt_state, opt_state)
        carry = tree.where(finite, _like(carry, new_carry), carry)
        outputs = {"loss": loss, "gradient_norm": norm, **_checked(metrics)}
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


def _in_one_form(loss_fn: Callable) -> Callable:
    """The loss with and without a carry, as `(loss, (metrics, carry))`."""

    def loss_of(model: PyTree, batch: PyTree, step: Array, key: Array, carry: PyTree) -> tuple:
        if carry is None:
            loss, metrics = loss_fn(model, batch, step, key=key)
            return loss, (metrics, None)
        loss, metrics, carry = loss_fn(model, batch, step, key=key, carry=carry)
        return loss, (metrics, carry)

    return loss_of


def _like(carry: PyTree, new_carry: PyTree) -> PyTree:
    """The new carry, checked to be of the same make as the old one."""
    make = lambda tree: jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)
    if jax.tree.structure(carry) != jax.tree.structure(new_carry) or make(carry) != make(new_carry):
        raise ValueError(
            "`loss_fn` must return a carry of the structure, shapes and dtypes that it was given, "
            f"{make(carry)}, but returned {make(new_carry)}."
        )
    return new_carry


def rows_of(outputs: dict[str, Array], done: int) -> list[Row]:
    """One row for each update of a call that began after `done` updates; raises if not finite."""
    columns = {name: values.tolist() for name, values in jax.device_get(outputs).items()}
    rows = [
        {"kind": "train", "update": done + 1 + i, **dict(zip(columns, values, strict=True))}
        for i, values in enumerate(zip(*columns.values(), strict=True))
    ]
    for row in rows:
        if not (math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])):
            raise NonFiniteLossError(
                f"Update {row['update']} gave loss {row['loss']:g} with a gradient of norm "
                f"{row['gradient_norm']:g}. Try a smaller learning rate, "
                "`optax.clip_by_global_norm`, or a smaller coefficient on the solver's costs."
            )
    return rows


def _norm(grads: PyTree) -> Array:
    squares = [jnp.sum(jnp.square(jnp.abs(g))) for g in jax.tree.leaves(grads)]
    return jnp.sqrt(jnp.sum(jnp.stack(squares)))


def _checked(metrics: dict[str, Any]) -> dict[str, Array]:
    metrics = {name: jnp.asarray(value) for name, value in metrics.items()}
    for name, value in metrics.items():
        if name in RESERVED_NAMES:
            raise ValueError(
                f"`loss_fn` may not name a metric {name!r}, which `fit` writes itself. Rename it."
            )
        if value.shape != ():
            raise ValueError(
                f"The metric {name!r} must be a scalar, but has shape {value.shape}. "
                "Reduce it in `loss_fn`, for example by its mean."
            )
    return metrics
