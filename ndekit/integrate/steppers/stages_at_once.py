r"""Explicit Runge-Kutta steps replayed at their stages, all stages at once.

With the arguments $g_i$ of the stages known, nothing is left to be done one after the other but
algebra on a few numbers. The rates $k_i = f(t_i, g_i)$ and the Jacobians $A_i$ are one batch each,
and what the stages do to one another is a triangular system,

$$\delta k_i - A_i h \sum_{j<i} a_{ij} \, \delta k_j
    = \delta f_i + A_i \, \delta \Bigl( y_0 + h \sum_{j<i} a_{ij} k_j \Bigr)_{k \text{ held}},$$

where $\delta f_i$ is the derivative of the field by everything but the state.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from ... import tree
from ...shapes import State, Time
from .explicit import ExplicitRungeKutta
from .stepper import Trial


def step_at_stages(
    scheme: ExplicitRungeKutta, field: Callable, t0: Time, t1: Time, y0: State, stages: State
) -> Trial:
    """A step whose first derivative is right; `stages` are the $g_i$ of the first stages, as rows.

    All that the step's end and those who look at its stages read must be among them.
    """
    flat_y, unravel = ravel_pytree(y0)
    h = (t1 - t0).astype(flat_y.dtype)
    number = jax.tree.leaves(stages)[0].shape[0]
    ts = jnp.stack([t1 if c == 1 else t0 + c * (t1 - t0) for c in scheme.c[:number]])
    g = lax.stop_gradient(jax.vmap(lambda y: ravel_pytree(y)[0])(stages))
    flat_field = lambda t, y: ravel_pytree(field(t, unravel(y)))[0]
    k = jax.vmap(flat_field)(ts, g)
    jacobians = lax.stop_gradient(jax.vmap(jax.jacrev(flat_field, argnums=1))(ts, g))
    a = jnp.asarray(scheme.lower(number), k.dtype)
    held = lax.stop_gradient(k)
    moved_arguments = tree.zero_with_derivative(flat_y[None] + h * _product(a, held))
    forced = tree.zero_with_derivative(k) + _product(jacobians, moved_arguments[..., None])[..., 0]
    system = _system(lax.stop_gradient(h) * a, jacobians)
    moved = lax.linalg.triangular_solve(
        system, forced.reshape(-1, 1), left_side=True, lower=True, unit_diagonal=True
    )
    rates = held + moved.reshape(k.shape)
    combined = lambda weights: h * _product(jnp.asarray(weights[:number], k.dtype), rates)
    arguments = flat_y[None] + h * _product(a, rates)
    in_rows = lambda x: [unravel(row) for row in x]
    error = None if scheme.b_error is None else unravel(combined(scheme.b_error))
    y1 = unravel(flat_y + combined(scheme.b))
    carry = unravel(rates[-1]) if scheme.first_same_as_last else ()
    return Trial(y1, error, carry, in_rows(rates), in_rows(arguments))


def _system(ha: Any, jacobians: Any) -> Any:
    """The triangular system; ones on its diagonal."""
    number, size, _ = jacobians.shape
    coupling = ha[:, None, :, None] * jacobians[:, :, None, :]
    return -coupling.reshape(number * size, number * size)


def _product(a: Any, b: Any) -> Any:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
