"""Steps of any diffrax solver, through its public `step`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from diffrax import RESULTS

from ... import tree
from ...shapes import Args, State, Time
from ..solvers.inherited import steps_as
from ..solvers.sosri import SOSRI, sosri_step
from .explicit import explicit_runge_kutta
from .stepper import AbstractStepper, Field, StagesSeen, Trial
from .unrolled_erk import PARTS, unrolled_step_of
from .unrolled_srk import unrolled_srk_step_of


class OpaqueStepper(AbstractStepper):
    """A solver whose step is a function that we do not look into: implicit, IMEX, symplectic,
    stochastic, a user's own.

    Its `dynamics` is the whole step (see `step_of`). The carry is the solver's state.

    Of an SDE's step costs see the drift at its ends, and the error estimate in parts where these
    are known.
    """

    tableau: Any = eqx.field(static=True)
    noisy: bool = eqx.field(static=True, default=False)  # whether the terms are those of an SDE
    drift_evals: int | None = eqx.field(static=True, default=None)  # in one step, if known

    @property
    def evals_per_step(self) -> int | None:
        return self.drift_evals

    def step(
        self, dynamics: Any, t0: Time, t1: Time, y0: State, carry: Any, made_jump: Any = None
    ) -> Trial:
        jumped = jnp.array(False) if made_jump is None else made_jump
        y1, error, info, carry, result = dynamics(t0, t1, y0, carry, jumped)
        return Trial(y1, error, carry, info=info, result=result)

    def advance(
        self, dynamics: Any, t0: Time, t1: Time, y0: State, carry: Any, made_jump: Any
    ) -> Trial:
        return self.step(dynamics, t0, t1, y0, carry, made_jump)

    def interpolant(self, h: Time, y0: State, trial: Trial) -> Any:
        return {name: x for name, x in trial.info.items() if name != PARTS}

    def seen(self, field: Field, t0: Time, t1: Time, y0: State, trial: Trial) -> StagesSeen:
        if not self.noisy:
            return stages_seen(self.tableau, t0, t1, y0, trial.info)
        stages = [y0, trial.y1]
        rates = [field(t1, y) for y in stages]
        return StagesSeen(rates, stages, (1.0, 1.0), (), trial.info.get(PARTS))


def step_of(
    solver: diffrax.AbstractSolver,
    terms: Any,
    args: Args,
    y0: State,
    carry: Any,
    jumps: bool,
    noisy: bool = False,
) -> Callable:
    """The solver's step as a function of arrays, with the dtypes that a loop wants. `noisy`: the
    terms are a drift and noise, of whose error estimates the parts are wanted.
    """
    run = _plain_step_of(solver, terms, args, jumps, noisy)
    keep = lambda new, old: jnp.asarray(new).astype(old.dtype)

    def step(*given: Any) -> tuple:
        y1, error, info, state, result = run(*given)
        y1, state = jax.tree.map(keep, y1, y0), jax.tree.map(keep, state, carry)
        error, info, result = jax.tree.map(jnp.asarray, (error, info, result))
        return y1, error, info, state, result

    return step


def _plain_step_of(
    solver: diffrax.AbstractSolver, terms: Any, args: Args, jumps: bool, noisy: bool
) -> Callable:
    scheme = explicit_runge_kutta(solver)
    if scheme is not None and isinstance(terms, diffrax.AbstractTerm):
        return unrolled_step_of(scheme, terms, args, jumps, noisy)
    if noisy and steps_as(solver, diffrax.AbstractSRK):
        tableau: Any = solver.tableau  # pyright: ignore
        return unrolled_srk_step_of(tableau, terms, args)
    if noisy and steps_as(solver, SOSRI):
        return partial(_sosri_step, terms, args)
    # A jump that is known never to happen lets solvers leave out what it would need.
    return lambda t0, t1, y, state, made_jump: solver.step(
        terms, t0, t1, y, args, state, made_jump if jumps else False
    )


def _sosri_step(
    terms: Any, args: Args, t0: Time, t1: Time, y0: State, state: Any, made_jump: Any
) -> tuple:
    y1, parts = sosri_step(terms, args, t0, t1, y0)
    info = {"y0": y0, "y1": y1, PARTS: parts}
    return y1, tree.add(*parts), info, None, RESULTS.successful


def stages_seen(tableau: Any, t0: Time, t1: Time, y0: State, info: Any) -> StagesSeen:
    """The stages, where the solver has a tableau and gives its increments to interpolation."""
    if not (isinstance(tableau, diffrax.ButcherTableau) and "k" in info):
        return StagesSeen()
    # A lane that has finished has h = 0, and increments 0.
    h = jnp.where(t1 > t0, t1 - t0, 1)
    rates, stages = _from_increments(tableau, h, y0, info["k"])
    nodes = (float(tableau.c1), *(float(c) for c in tableau.c))
    weights = tuple(float(b) for b in tableau.b_sol)
    return StagesSeen(rates, stages, nodes, weights)


def _from_increments(
    tableau: diffrax.ButcherTableau, h: Time, y0: State, k: State
) -> tuple[list[State], list[State]]:
    """Stage derivatives and arguments, from the increments that interpolation is given."""
    number = tableau.num_stages
    a = np.zeros((number, number))
    for i, row in enumerate(tableau.a_lower):
        a[i + 1, : i + 1] = row
    if tableau.a_diagonal is not None:
        a += np.diag(tableau.a_diagonal)
    increments = [jax.tree.map(lambda x, i=i: x[i], k) for i in range(number)]
    rates = [tree.multiply(1 / h, increment) for increment in increments]
    stages = [tree.add(y0, tree.weighted_sum([float(x) for x in row], increments)) for row in a]
    return rates, stages
