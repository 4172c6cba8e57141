"""Every attempted step of a solve as a row, rejected ones included."""

from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, Real

from .. import tree
from ..integrate.control.in_units import InUnits, divided
from ..integrate.control.scaled_error import scaled_error
from ..integrate.times import promote_state, promote_times
from ..numbers import count, positive
from ..regularize.stiffness import weight_of_reading
from ..shapes import Args, State, Time


class StepTable(NamedTuple):
    """The attempted steps of a solve, in the order in which they were tried.

    Attributes:
        t0, t1: the ends of each attempt.
        scaled_error: the norm of error / (atol + rtol max(|y0|, |y1|)), which a PID controller
            accepts up to 1; NaN if the solver or the controller has none.
        stiffness: an estimate of the largest rate |lambda| of the field's Jacobian, in 1/time; NaN
            for solvers without two stages at the same time, and for steps so short that these
            differ by little more than rounding.
        accepted: whether the controller kept the step.
    """

    t0: Float[np.ndarray, " attempts"]
    t1: Float[np.ndarray, " attempts"]
    scaled_error: Float[np.ndarray, " attempts"]
    stiffness: Float[np.ndarray, " attempts"]
    accepted: Bool[np.ndarray, " attempts"]

    @property
    def h(self) -> Float[np.ndarray, " attempts"]:
        """The step sizes."""
        return self.t1 - self.t0


def record_steps(
    term: diffrax.AbstractTerm,
    solver: diffrax.AbstractSolver,
    t0: Time,
    t1: Time,
    dt0: Time | None,
    y0: State,
    args: Args = None,
    *,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    max_steps: int = 4096,
) -> StepTable:
    r"""Step through a solve by diffrax's public `solver.step`, and write down each attempt.

    For pictures and diagnosis: a Python loop, a few hundred steps a second, no gradients. The steps
    are those that `diffrax.diffeqsolve` takes.

    Args:
        term, solver, t0, t1, dt0, y0, args: as for `diffrax.diffeqsolve`, with `t0 < t1`.
        stepsize_controller: as there; constant steps by default.
        max_steps: attempts at most.

    Returns:
        A [`ndekit.diagnose.StepTable`][]. Its stiffness is Shampine's
        $\lVert k_i - k_j \rVert / \lVert g_i - g_j \rVert$ of two stages at the same time.

    Raises:
        ValueError: if `t1 <= t0`, `dt0` is not positive, or `max_steps` no whole number from 1.
        RuntimeError: if `max_steps` attempts do not reach `t1`, or the solver or controller fails.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        table = nk.diagnose.record_steps(
            diffrax.ODETerm(lambda t, y, args: -50 * y), diffrax.Tsit5(), 0.0, 1.0, None,
            jnp.ones(2), stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4),
        )
        print(table.h[table.accepted], table.stiffness)  # the stiffness is 50
        ```

    Reference: Shampine (1977), *Stiffness and nonstiff differential equation solvers II*; Hairer
    and Wanner, *Solving ODEs II*, section IV.2.
    """
    count("max_steps", max_steps)
    if not t0 < t1:
        raise ValueError(
            f"`record_steps` goes forward in time, but got t0={t0} and t1={t1}. Reflect the time: "
            "record -f(-t, y) from -t0 to -t1."
        )
    if dt0 is not None:
        positive("dt0", dt0)
    t0, t1, dt0 = promote_times(t0, t1, dt0)
    y0 = promote_state(y0, t0)
    controller = diffrax.ConstantStepSize() if stepsize_controller is None else stepsize_controller
    march = _March(term, solver, controller, t1, args)
    state = march.start(t0, dt0, y0)
    rows = []
    while float(state.t0) < float(t1):
        if len(rows) == max_steps:
            raise RuntimeError(
                f"{max_steps} attempts reached t={float(state.t0):.6g} of {float(t1):.6g}. Raise "
                "`max_steps` or loosen the tolerance."
            )
        state, row, result = march.attempt(state)
        if result != diffrax.RESULTS.successful:
            raise RuntimeError(f"The solve failed at t={float(state.t0):.6g}: {result}")
        rows.append([float(x) for x in row])
    columns = np.array(rows).T
    return StepTable(*columns[:4], accepted=columns[4].astype(bool))


class _State(eqx.Module):
    t0: Array
    t1: Array
    y: State
    solver_state: PyTree
    controller_state: PyTree
    made_jump: Any


class _March(eqx.Module):
    """The parts of a solve that stay the same from step to step."""

    term: diffrax.AbstractTerm
    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController
    end: Time
    args: Args

    @eqx.filter_jit
    def start(self, t0: Time, dt0: Time | None, y0: State) -> _State:
        order = self.solver.error_order(self.term)
        # Not `self.term`: diffrax's loop hides it in a wrapper, so a PID controller takes it
        # for no ODE, and an automatic first step is always 0.01. These are to be the same steps.
        t1, controller_state = self.controller.init(
            None, t0, self.end, y0, dt0, self.args, self.solver.func, order
        )
        t1 = jnp.minimum(t1, self.end)
        solver_state = self.solver.init(self.term, t0, t1, y0, self.args)
        return _State(t0, t1, y0, solver_state, controller_state, jnp.array(False))

    @eqx.filter_jit
    def attempt(self, s: _State) -> tuple[_State, tuple[Array, ...], diffrax.RESULTS]:
        """One attempt: the state after it, its row of the table, and whether it went well."""
        y1, error, info, solver_state, result = self.solver.step(
            self.term, s.t0, s.t1, s.y, self.args, s.solver_state, s.made_jump
        )
        if error is not None:
            error = jax.tree.map(lambda e: jnp.where(jnp.isnan(e), jnp.inf, e), error)
        order: Any = self.solver.error_order(self.term)  # `None` only without an error
        accepted, t0, t1, made_jump, controller_state, controller_result = (
            self.controller.adapt_step_size(
                s.t0, s.t1, s.y, y1, self.args, error, order, s.controller_state
            )
        )
        accepted = jnp.asarray(accepted)  # a plain `True` from constant steps
        row = (
            s.t0,
            s.t1,
            _scaled_error(self.controller, error, (s.t0, s.t1), (s.y, y1)),
            _stiffness(self.solver, info, s.t1 - s.t0, y1),
            accepted,
        )
        y, solver_state = tree.where(accepted, (y1, solver_state), (s.y, s.solver_state))
        t0 = jnp.minimum(t0, self.end)
        t1 = _clip(t0, t1, self.end, accepted)
        new = _State(t0, t1, y, solver_state, controller_state, made_jump)
        worst = diffrax.RESULTS.where(
            result == diffrax.RESULTS.successful, controller_result, result
        )
        return new, row, worst


def _clip(t0: Time, t1: Time, end: Time, accepted: Array) -> Array:
    """Let the last step end exactly on `end`, also when rounding would leave a sliver."""
    near = t1 > end - 100 * jnp.finfo(t1.dtype).eps * jnp.abs(end)
    return jnp.where(near, jnp.where(accepted, end, t0 + 0.5 * (end - t0)), t1)


def _scaled_error(controller: Any, error: State | None, ends: tuple, states: tuple) -> Array:
    rtol, atol = getattr(controller, "rtol", None), getattr(controller, "atol", None)
    if error is None or rtol is None or atol is None:
        return jnp.array(jnp.nan)
    if isinstance(controller, InUnits):
        before, after = map(controller.unit_at, ends)
        states = divided(states[0], before), divided(states[1], after)
        error = divided(error, after)
    y0, y1 = states
    return scaled_error(controller.norm, error, y0, y1, rtol, atol)


def _stiffness(solver: Any, info: dict[str, PyTree], h: Real[Array, ""], y1: State) -> Array:
    pair = _stage_pair(getattr(solver, "tableau", None))
    if pair is None or not isinstance(info, dict) or "k" not in info:
        return jnp.array(jnp.nan)
    i, j, row = pair
    # diffrax's `k` are the stages' rates times h, so both differences carry one factor h.
    rates = jax.tree.map(lambda k: k[j] - k[i], info["k"])
    arguments = jax.tree.map(lambda k: jnp.tensordot(jnp.asarray(row, k.dtype), k, 1), info["k"])
    last, one = jax.tree.map(lambda k: k[j], info["k"]), jnp.ones((), tree.real_dtype(y1))
    length = _norm(arguments)
    rho = _norm(rates) / (h * jnp.where(length > 0, length, jnp.inf))
    return jnp.where(weight_of_reading(rates, arguments, last, y1, one) > 0, rho, jnp.nan)


def _stage_pair(tableau: Any) -> tuple[int, int, np.ndarray] | None:
    """The last two stages if they share their node, and the row of weights g_j - g_i."""
    if not isinstance(tableau, diffrax.ButcherTableau) or tableau.num_stages < 3:
        return None
    if tableau.c[-1] != tableau.c[-2] or tableau.implicit:
        return None
    last = tableau.num_stages - 1
    row = np.zeros(tableau.num_stages)
    row[:last] += tableau.a_lower[-1]
    row[: last - 1] -= tableau.a_lower[-2]
    return last - 1, last, row


def _norm(x: PyTree) -> Array:
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(x)))
