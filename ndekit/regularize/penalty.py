"""Costs and their coefficients as one number to add to a loss."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import lax

from .. import tree
from ..integrate.costs.placements import Along
from ..numbers import real
from ..shapes import Scalar
from .schedules import Schedule

# Of the smooth maximum. Of a hundred samples of which one costs twice as much as the others, that
# one makes up 0.998 of the sum of powers; at exponent 1 it would be 0.02.
_EXPONENT = 16


def penalty(
    costs: Mapping[str, Any],
    coefficients: Mapping[str, float | Schedule],
    step: Any = 0,
    *,
    reduce: str = "mean",
) -> tuple[Scalar, dict[str, Scalar]]:
    r"""$\sum_k \lambda_k(s)\, c_k$, and the reduced $c_k$ under the names `cost_k`, to be logged.

    A cost of a solve in lanes (`jax.vmap`) is an array, one number a sample. The slowest sample
    sets the time of the batch: `"max"` penalises that one alone, `"smooth_max"` mostly the slow
    ones.

    Args:
        costs: `sol.costs`; scalars, or arrays of samples.
        coefficients: one for each cost, by the same names: a number, or a schedule of the update.
        step: the number of the update.
        reduce: over the samples. `"mean"`; `"max"`; or `"smooth_max"`, the power mean
            $(\mathrm{mean}\, c^{16})^{1/16}$, of costs that are not negative.

    Raises:
        ValueError: for a cost of `EachStep` or `AlongTimes`, if the names of costs and coefficients
            differ, for another `reduce`, or for a coefficient that is negative or not finite, where
            it is known.

    Example:
        ```python
        import jax.numpy as jnp, ndekit as nk

        costs = {"steps": jnp.array([8.0, 20.0]), "error": jnp.array([0.3, 0.4])}
        decay = nk.regularize.schedules.exponential(100.0, 10.0, steps=75)
        added, parts = nk.penalty(costs, {"steps": 0.01, "error": decay}, step=3)
        # loss = task_loss + added; metrics = {"task": task_loss, **parts}
        ```
    """
    if reduce not in ("mean", "max", "smooth_max"):
        raise ValueError(f"`reduce` must be 'mean', 'max' or 'smooth_max', but got {reduce!r}.")
    if costs.keys() != coefficients.keys():
        raise ValueError(
            f"Costs and coefficients must have the same names, but got costs {sorted(costs)} and "
            f"coefficients {sorted(coefficients)}. Give each cost a coefficient; 0.0 only logs it."
        )
    along = [str(name) for name in costs if isinstance(name, Along)]
    if along:
        raise ValueError(
            f"The costs {along} have a number for each step or saved time, of which the mean over "
            "all there could be says nothing. Penalise the step cost itself, or "
            "`EveryStep(cost, 'mean')`, and leave these out of `penalty`."
        )
    weights = {name: _weight(name, given, step) for name, given in coefficients.items()}
    reduced = {name: _reduced(jnp.asarray(cost), reduce) for name, cost in costs.items()}
    terms = [weights[name].astype(cost.dtype) * cost for name, cost in reduced.items()]
    total = tree.sum_in_order(terms) if terms else jnp.zeros(())
    return total, {f"cost_{name}": cost for name, cost in reduced.items()}


def _weight(name: str, coefficient: float | Schedule, step: Any) -> Scalar:
    value = coefficient(step) if callable(coefficient) else coefficient
    advice = "A cost is made smaller, or only logged: by 0.0."
    real(f"coefficients[{name!r}]", value, least=0.0, advice=advice)
    return jnp.asarray(value, jnp.result_type(float))


def _reduced(cost: Any, reduce: str) -> Scalar:
    if reduce == "mean" or cost.ndim == 0:
        return jnp.mean(cost)
    largest = jnp.max(cost)
    if reduce == "max":
        return largest
    # Divided by the largest, or the power would overflow. A batch that costs nothing stays so.
    scale = lax.stop_gradient(jnp.where(largest > 0, largest, 1))
    power = jnp.mean((cost / scale) ** _EXPONENT)
    positive = power > 0
    root = jnp.where(positive, power, 1) ** (1 / _EXPONENT)
    return jnp.where(positive, scale * root, 0)
