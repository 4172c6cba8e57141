"""Diagonally implicit Runge-Kutta steps, replayed without solving their equations again."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from ... import tree
from ...shapes import State, Time
from ..solvers.inherited import steps_as
from ..solvers.small_systems import inverse
from .any_solver import OpaqueStepper
from .stepper import Trial

_ONCE = (
    "The gradient of a solve with this implicit solver cannot be differentiated again. For second "
    "derivatives use `adjoint=diffrax.DirectAdjoint()`."
)


class DiagonallyImplicit(OpaqueStepper):
    r"""A diagonally implicit scheme on a vector field: diffrax's step forward, its own in reverse.

    The step solves $k_i = h f(t_i, z_i + \gamma_i k_i)$ with $z_i = y_0 + \sum_{j<i} a_{ij} k_j$ by
    an iteration. With the increments recorded (the memo), the derivative is that of the implicit
    function theorem,

    $$\delta k_i = (I - h \gamma_i J_i)^{-1} \bigl( h J_i \, \delta z_i + \delta (h f)_i \bigr),$$

    where the last term is the derivative by everything but the state. All Jacobians and all those
    terms are evaluated at once, as one batch over the stages.
    """

    def memo(self, trial: Trial) -> Any:
        return trial.info["k"]

    def again(
        self, dynamics: Any, field: Callable, t0: Time, t1: Time, y0: State, carry: Any,
        memo: Any, made_jump: Any,
    ) -> Trial:  # fmt: skip
        tableau, h, (flat_y, unravel) = self.tableau, t1 - t0, ravel_pytree(y0)
        k = jax.vmap(lambda k: ravel_pytree(k)[0])(eqxi.nondifferentiable(memo, msg=_ONCE))
        stages = _Stages.at(tableau, field, t0, t1, lax.stop_gradient(flat_y), k, unravel)
        moved_y, moved = tree.zero_with_derivative(flat_y), []
        for i, row in enumerate(_lower(tableau)):
            moved_base = tree.sum_in_order(
                [moved_y, *[a * d for a, d in zip(row, moved, strict=False) if a != 0]]
            )
            if i == 0 and tableau.fsal:
                rate = _first_rate(field, t0, y0, carry, made_jump)
                moved.append(tree.zero_with_derivative(ravel_pytree(tree.multiply(h, rate))[0]))
            else:
                moved.append(stages.moved(i, moved_base))
        increments = k + jnp.stack(moved)
        combined = lambda weights: jnp.asarray(np.asarray(weights), k.dtype) @ increments
        y1 = unravel(flat_y + combined(tableau.b_sol))
        error = unravel(combined(tableau.b_error))
        if tableau.fsal:
            # A lane that has finished has h = 0, and increments 0.
            last = increments[-1] / jnp.where(h > 0, h, 1).astype(k.dtype)
            carry = (jnp.array(False), unravel(last))
        info = dict(y0=y0, y1=y1, k=jax.vmap(unravel)(increments))
        return Trial(y1, error, carry, info=info)


class _Stages(eqx.Module):
    """The stages of a step, linearized at its solution; flat states."""

    forced: Any  # zero, with the derivative of h f by parameters and time
    coupling: Any  # h J
    inverse: Any  # of I - h gamma J

    @staticmethod
    def at(
        tableau: Any, field: Callable, t0: Time, t1: Time, y0: Any, k: Any, unravel: Callable
    ) -> "_Stages":
        """All stages as one batch."""
        number, h = tableau.num_stages, (t1 - t0).astype(k.dtype)
        c = jnp.asarray(np.concatenate([[tableau.c1], tableau.c]), t0.dtype)
        a = np.diag(np.asarray(tableau.a_diagonal))
        for i, row in enumerate(_lower(tableau)):
            a[i, : len(row)] = row
        ys = y0[None] + jnp.asarray(a, k.dtype) @ k
        ts = jnp.where(c == 1, t1, t0 + c * (t1 - t0))
        flat_field = lambda t, y: ravel_pytree(field(t, unravel(y)))[0]
        jacobians = jax.vmap(jax.jacfwd(flat_field, argnums=1))(ts, ys)
        coupling = lax.stop_gradient(h * jacobians)
        gammas = jnp.asarray(np.diag(a), k.dtype)[:, None, None]
        inverses = inverse(jnp.eye(y0.size, dtype=k.dtype)[None] - gammas * coupling)
        forced = tree.zero_with_derivative(h * jax.vmap(flat_field)(ts, ys))
        assert forced.shape == (number, y0.size)
        return _Stages(forced, coupling, lax.stop_gradient(inverses))

    def moved(self, i: int, moved_base: Any) -> Any:
        return self.inverse[i] @ (self.forced[i] + self.coupling[i] @ moved_base)


def _lower(tableau: Any) -> list[tuple[float, ...]]:
    """The rows of the tableau below its diagonal, that of the first stage included."""
    return [(), *[tuple(map(float, row)) for row in tableau.a_lower]]


def is_diagonally_implicit(solver: diffrax.AbstractSolver) -> bool:
    """Whether a solver's steps may be replayed so: diffrax's own step of one implicit tableau, its
    equations solved with a dense Jacobian.
    """
    tableau = getattr(solver, "tableau", None)
    finder = getattr(solver, "root_finder", None)
    return (
        isinstance(tableau, diffrax.ButcherTableau)
        and tableau.a_diagonal is not None
        and steps_as(solver, diffrax.AbstractRungeKutta)
        and type(getattr(finder, "linear_solver", None)) is lx.AutoLinearSolver
    )


def _first_rate(field: Callable, t0: Time, y0: State, carry: Any, made_jump: Any) -> State:
    """The last stage of the step before, unless there is none or the field has jumped since."""
    first_step, rate = carry
    anew = first_step if made_jump is None else first_step | made_jump
    evaluate = lambda: tree.where(anew, field(t0, y0), rate)
    return lax.cond(eqxi.unvmap_any(anew), evaluate, lambda: rate)
