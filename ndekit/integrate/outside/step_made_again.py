"""One step made beside a solve, to be differentiated by JAX itself."""

import dataclasses
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PyTree

from ... import tree
from ...shapes import Args, Scalar, State, Time
from ..costs.contracts import AbstractTrajectoryCost
from ..costs.one_step import Beginning, OneStep, drawing_key
from ..costs.placements import EveryStep
from ..solvers.root_finders import with_tolerances
from ..steppers.explicit import explicit_runge_kutta
from ..steppers.unrolled_erk import unrolled_step_of
from ..times import direction_of, promote_times, reflected, reflected_terms
from .recorder import recorder_beside


@dataclasses.dataclass(frozen=True)
class Solve:
    """What of a solve a step beside it needs, in the time that grows."""

    terms: PyTree
    solver: diffrax.AbstractSolver
    controller: Any
    t0: Time
    t1: Time
    args: Args
    key: Any
    direction: Any

    @classmethod
    def of(
        cls, terms: Any, solver: Any, t0: Any, t1: Any, args: Args, controller: Any, key: Any
    ) -> "Solve":
        t0, t1 = lax.stop_gradient(promote_times(t0, t1))
        direction = direction_of(t0, t1)
        terms = reflected_terms(terms, direction)
        controller = controller.wrap(direction)
        ends = (reflected(t0, direction), reflected(t1, direction))
        solver = with_tolerances(solver, controller)
        return cls(terms, solver, controller, *ends, args, key, direction)

    def initial_end(self, t: Time, y: State) -> Time:
        """Where the controller's automatic first step from here ends, `t1` at the latest."""
        if isinstance(self.controller, diffrax.ConstantStepSize | diffrax.StepTo):
            raise ValueError(
                "`OneStep(step_size='initial')` takes the step that the controller would begin "
                f"with, which `{type(self.controller).__name__}` does not choose. Use "
                "`diffrax.PIDController`, or `step_size='solver'`."
            )
        order = self.solver.error_order(self.terms)
        t_next, _ = self.controller.init(
            self.terms, t, self.t1, y, None, self.args, self.solver.func, order
        )
        return jnp.minimum(t_next, self.t1)


def cost_of_step(solve: Solve, placement: OneStep, begin: Beginning) -> Scalar:
    """What the step that begins there costs; zero, with derivative zero, if it overflows."""
    t0, t1, y0 = begin.t0, begin.t1, begin.y0
    if not placement.through_state:
        y0 = lax.stop_gradient(y0)
    if placement.step_size == "initial":
        t1 = lax.stop_gradient(solve.initial_end(t0, y0))
    outcome = _step(solve, placement.first_stage, t0, t1, y0)
    recorder = recorder_beside(
        solve.controller, solve.solver, {"": EveryStep(placement.cost)}, solve.key
    )
    step, good = recorder.seen(solve.terms, t0, t1, y0, solve.args, outcome)
    return jnp.where(good, EveryStep(placement.cost).reading(step, "OneStep"), 0)


def _step(solve: Solve, first_stage: str, t0: Time, t1: Time, y0: State) -> tuple:
    """`y1`, the error estimate, and what interpolation wants."""
    terms, solver, args = solve.terms, solve.solver, solve.args
    scheme = explicit_runge_kutta(solver)
    if scheme is None or not isinstance(terms, diffrax.AbstractTerm):
        if first_stage == "frozen":
            raise ValueError(
                "`OneStep(first_stage='frozen')` is known for explicit Runge-Kutta solvers of one "
                f"term, but the solver is `{type(solver).__name__}`. Use `'recompute'`."
            )
        state = solver.init(terms, t0, t1, y0, args)
        y1, error, info, _, _ = solver.step(terms, t0, t1, y0, args, state, False)
        return y1, error, info
    rate = terms.vf(t0, y0, args)
    if first_stage == "frozen":
        rate = lax.stop_gradient(rate)
    step = unrolled_step_of(scheme, terms, args, jumps=False)
    y1, error, info, _, _ = step(t0, t1, y0, None, False, first_rate=rate)
    return y1, error, info


class StepAtTime(AbstractTrajectoryCost):
    """`OneStep` where it is known before the solve when the step begins."""

    solve: Solve
    placement: OneStep
    t0: Time
    t1: Any  # `None` where the controller's first step is taken

    @classmethod
    def drawn(cls, solve: Solve, placement: OneStep) -> "StepAtTime":
        fraction = jax.random.uniform(drawing_key(solve.key), (), solve.t0.dtype)
        t0 = solve.t0 + fraction * (solve.t1 - solve.t0)
        return cls(solve, placement, jnp.minimum(t0, solve.t1), None)

    def times(self, t0: Time, t1: Time, *, key: Any) -> Any:
        return (self.t0 * self.solve.direction)[None]

    def of_states(self, ts: Any, ys: State) -> Scalar:
        y0 = tree.read(ys, 0)
        # Infinite where the solve stopped before.
        there = tree.all_finite(y0)
        y0 = tree.masked(there, y0)
        t1 = self.t0 if self.t1 is None else self.t1
        cost = cost_of_step(self.solve, self.placement, Beginning(self.t0, t1, y0))
        return jnp.where(there, cost, 0)
