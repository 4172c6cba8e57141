"""What a loss returns, checked and brought into one form."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PyTree

RESERVED_NAMES = ("kind", "update", "loss", "gradient_norm")


def in_one_form(loss_fn: Callable) -> Callable:
    """The loss with and without a carry, as `(loss, (metrics, carry))`.

    Raises:
        ValueError: when called, if the loss returns something else.
    """

    def loss_of(model: PyTree, batch: PyTree, step: Array, key: Array, carry: PyTree) -> tuple:
        if carry is None:
            loss, metrics = _parts(loss_fn(model, batch, step, key=key), "(loss, metrics)")
            return _checked_loss(loss), (metrics, None)
        returned = loss_fn(model, batch, step, key=key, carry=carry)
        loss, metrics, carry = _parts(returned, "(loss, metrics, carry)")
        return _checked_loss(loss), (metrics, carry)

    return loss_of


def _parts(returned: Any, wanted: str) -> tuple:
    number = wanted.count(",") + 1
    if not isinstance(returned, tuple | list) or len(returned) != number:
        sized = isinstance(returned, tuple | list)
        got = f"{len(returned)} values" if sized else f"only {_kind(returned)}"
        raise ValueError(
            f"`loss_fn` must return `{wanted}`, but returned {got}. With nothing to log the "
            "metrics are `{}`."
        )
    if not isinstance(returned[1], Mapping):
        raise ValueError(
            "`loss_fn` must return its metrics as a dict of scalars by name, but returned "
            f"{_kind(returned[1])}. With nothing to log they are `{{}}`."
        )
    return tuple(returned)


def _checked_loss(loss: Any) -> Array:
    loss = jnp.asarray(loss)
    if loss.shape != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        raise ValueError(
            f"The loss must be a real floating-point scalar, but is {_kind(loss)}. Reduce it in "
            "`loss_fn`, for example by its mean."
        )
    return loss


def _kind(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}"
    return "`None`" if value is None else f"a {type(value).__name__}"


def checked_metrics(metrics: Mapping[str, Any]) -> dict[str, Array]:
    """The metrics as arrays.

    Raises:
        ValueError: if one is no scalar, or has a name that the rows of a history have already.
    """
    arrays = {name: jnp.asarray(value) for name, value in metrics.items()}
    for name, value in arrays.items():
        if name in RESERVED_NAMES:
            raise ValueError(
                f"`loss_fn` may not name a metric {name!r}, which `fit` writes itself. Rename it."
            )
        if value.shape != ():
            raise ValueError(
                f"The metric {name!r} must be a scalar, but has shape {value.shape}. "
                "Reduce it in `loss_fn`, for example by its mean."
            )
    return arrays
