"""Explicit Runge-Kutta steps, unrolled from a solver's tableau."""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ... import tree
from ...shapes import State, Time
from ..programs.time_only import at_times
from ..solvers.inherited import is_explicit_runge_kutta
from .stepper import AbstractStepper, Field, StagesSeen, Trial


class ExplicitRungeKutta(AbstractStepper):
    r"""$k_i = f(t_0 + c_i h, y_0 + h \sum_{j<i} a_{ij} k_j)$, $y_1 = y_0 + h \sum_i b_i k_i$.

    A Python loop over the stages with zero weights skipped: the compiler sees straight-line code,
    and its derivative costs half of that of a loop over stages.

    The `carry` of a first-same-as-last scheme is the derivative at the start of the step, else
    `()`. `made_jump` may be `None`, where no controller jumps.
    """

    keeps_carry: ClassVar[bool] = False
    num_times: ClassVar[int] = 1
    steps_at_once: ClassVar[bool] = True

    a: tuple[tuple[float, ...], ...] = eqx.field(static=True)
    b: tuple[float, ...] = eqx.field(static=True)
    b_error: tuple[float, ...] | None = eqx.field(static=True)
    c: tuple[float, ...] = eqx.field(static=True)
    first_same_as_last: bool = eqx.field(static=True)
    last_stage_is_solution: bool = eqx.field(static=True)

    @property
    def evals_per_step(self) -> int:
        return len(self.c) - int(self.first_same_as_last)

    def init(self, dynamics: Field, t0: Time, y0: State) -> Any:
        return dynamics(t0, y0) if self.first_same_as_last else ()

    def after_jump(self, field: Field, t0: Time, y0: State, carry: Any, made_jump: Any) -> Any:
        """The carry, evaluated anew where the field has just jumped."""
        if made_jump is None or not self.first_same_as_last:
            return carry
        anew = lambda: tree.where(made_jump, field(t0, y0), carry)
        return lax.cond(eqxi.unvmap_any(made_jump), anew, lambda: carry)

    def step(
        self, dynamics: Field, t0: Time, t1: Time, y0: State, carry: Any, made_jump: Any = None
    ) -> Trial:
        if self.first_same_as_last:
            at = self._at_nodes(dynamics, t0, t1, self.c[1:])
            first = self.after_jump(dynamics, t0, y0, carry, made_jump)
        else:
            at = self._at_nodes(dynamics, t0, t1, self.c)
            first = at(self.c[0], y0)
        return self._by_stages(at, t1 - t0, y0, first)

    def stand_in(self, y0: State) -> Any:
        return tree.zeros_like(y0) if self.first_same_as_last else ()

    def again(
        self, dynamics: Field, field: Any, t0: Time, t1: Time, y0: State, carry: Any, memo: Any,
        made_jump: Any,
    ) -> Trial:  # fmt: skip
        """The first stage is evaluated with the others; with a `stand_in` its derivative goes to
        the step before, unless the field has jumped since.
        """
        at = self._at_nodes(dynamics, t0, t1, self.c)
        first = rate = at(self.c[0], y0)
        if jax.tree.leaves(carry):
            first = tree.add(tree.held(rate), carry)
            first = first if made_jump is None else tree.where(made_jump, rate, first)
        return self._by_stages(at, t1 - t0, y0, first)

    def _at_nodes(self, field: Field, t0: Time, t1: Time, c: tuple[float, ...]) -> Callable:
        """The field by the node $c_i$ and the state."""
        nodes, h = sorted({*c}), t1 - t0
        # Exactly t1 at the last node, as the next step's first stage has it.
        at = at_times(field, [t1 if c_i == 1 else t0 + c_i * h for c_i in nodes])
        return lambda c_i, y: at(nodes.index(c_i), y)

    def _by_stages(self, at: Callable, h: Time, y0: State, first: State) -> Trial:
        """A step from its first rate on."""
        rates, stages = [first], [y0]
        for a_i, c_i in zip(self.a[1:], self.c[1:], strict=True):
            stage = tree.add(y0, tree.multiply(h, tree.weighted_sum(a_i, rates)))
            stages.append(stage)
            rates.append(at(c_i, stage))
        if self.last_stage_is_solution:
            y1 = stages[-1]
        else:
            y1 = tree.add(y0, tree.multiply(h, tree.weighted_sum(self.b, rates)))
        error = None
        if self.b_error is not None:
            error = tree.multiply(h, tree.weighted_sum(self.b_error, rates))
        return Trial(y1, error, rates[-1] if self.first_same_as_last else (), rates, stages)

    def advance(
        self, dynamics: Field, t0: Time, t1: Time, y0: State, carry: Any, made_jump: Any
    ) -> Trial:
        return Trial(self.solution(dynamics, t0, t1, y0), None, carry)

    def solution(self, field: Field, t0: Time, t1: Time, y0: State) -> State:
        """$y_1$ alone, by a loop over the stages: slower than `step`, a sixth of the program."""
        number = len(self.c) - int(self.first_same_as_last)
        a = self.lower(number)
        h, nodes = t1 - t0, jnp.asarray(self.c[:number], jnp.result_type(t0))
        at = at_times(field, jnp.where(nodes == 1, t1, t0 + nodes * h))

        def combine(weights: Any, rates: State) -> State:
            def along_stages(y: Any, k: Any) -> Any:
                total = jnp.tensordot(jnp.asarray(weights, y.dtype), k, axes=1)
                return y + h.astype(y.dtype) * total

            return jax.tree.map(along_stages, y0, rates)

        def stage(i: Any, rates: State) -> State:
            return tree.write(rates, at(i, combine(jnp.asarray(a)[i], rates)), i)

        rates = jax.tree.map(lambda y: jnp.zeros((number, *y.shape), y.dtype), y0)
        return combine(np.asarray(self.b[:number]), lax.fori_loop(0, number, stage, rates))

    def lower(self, number: int) -> np.ndarray:
        """$a$ of the first stages, as a matrix."""
        a = np.zeros((number, number))
        for i, row in enumerate(self.a[:number]):
            a[i, : len(row)] = row
        return a

    def interpolant(self, h: Time, y0: State, trial: Trial) -> dict[str, Any]:
        """The ends and the increments h k_i, stacked."""
        assert trial.rates is not None
        scaled = [tree.multiply(h, rate) for rate in trial.rates]
        k = jax.tree.map(lambda *leaves: jnp.stack(leaves), *scaled)
        info = dict(y0=y0, y1=trial.y1)
        return info if len(self.c) == 1 else info | dict(k=k)

    def seen(self, field: Field, t0: Time, t1: Time, y0: State, trial: Trial) -> StagesSeen:
        return StagesSeen(trial.rates, trial.stages, self.c, self.b)


_EULER = ExplicitRungeKutta(((),), (1.0,), None, (0.0,), False, False)


def explicit_runge_kutta(solver: diffrax.AbstractSolver) -> ExplicitRungeKutta | None:
    """The stepper of an explicit Runge-Kutta solver, diffrax's or a user's; else `None`."""
    if not is_explicit_runge_kutta(solver):
        return None
    if type(solver) is diffrax.Euler:
        return _EULER
    tableau: Any = solver.tableau  # pyright: ignore
    floats = lambda xs: tuple(float(x) for x in np.asarray(xs))
    return ExplicitRungeKutta(
        a=((), *[floats(row) for row in tableau.a_lower]),
        b=floats(tableau.b_sol),
        b_error=floats(tableau.b_error),
        c=(float(tableau.c1), *floats(tableau.c)),
        first_same_as_last=bool(tableau.fsal),
        last_stage_is_solution=bool(tableau.ssal),
    )
