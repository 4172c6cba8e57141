"""Step costs inside `diffrax.diffeqsolve`: a solver that adds them up in its state."""

from collections.abc import Callable, Mapping
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import PyTree

from ... import tree
from ...shapes import Args, Flag, State, Time
from ..control.controllers import clips_around
from ..control.in_units import InUnits
from ..costs.contracts import (
    Place,
    Placements,
    Surroundings,
    add_readings,
    init_totals,
    read_totals,
    readings_of,
)
from ..costs.one_step import readable_in_loop
from ..costs.placements import as_placements
from ..costs.step import Step
from ..steppers.any_solver import stages_seen


class Recorder(diffrax.AbstractWrappedSolver):
    r"""A diffrax solver that reads costs off its own steps, for those who stay inside
    `diffrax.diffeqsolve`.

    It steps exactly as the solver it wraps. The costs travel in the solver state, which diffrax
    keeps for accepted steps only, so they are differentiable under `RecursiveCheckpointAdjoint`,
    `DirectAdjoint` and `ForwardMode`.

    !!! warning
        Under `diffrax.BacksolveAdjoint` diffrax 0.7 gives a gradient of exactly zero for anything
        in the solver state, without a word. `ndekit.diffeqsolve` refuses that pair; here nobody
        can.

    Args:
        solver: any diffrax solver.
        costs: a dict of step costs or placements, as for `ndekit.diffeqsolve`.
        rtol, atol: the controller's tolerances, which the solver never sees. Needed by scaled
            errors only.
        norm: the controller's norm.
        error_order: the order of the error estimate, if not the solver's own.
        key: a JAX random key, for costs that draw random numbers.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        recorder = nk.Recorder(diffrax.Tsit5(), {"steps": nk.StepCount()}, rtol=1e-4, atol=1e-4)
        sol = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), recorder, 0.0, 1.0, None, jnp.ones(2),
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4),
            saveat=diffrax.SaveAt(t1=True, solver_state=True),
        )
        recorder.costs_of(sol)["steps"]
        ```
    """

    solver: diffrax.AbstractSolver
    costs: dict[str, Any]
    rtol: Any
    atol: Any
    norm: Callable[[PyTree], Any]
    own_error_order: Any
    key: Any

    def __init__(
        self,
        solver: diffrax.AbstractSolver,
        costs: Mapping[str, Any],
        rtol: Time | None = None,
        atol: Time | None = None,
        norm: Callable[[PyTree], Any] = optx.rms_norm,
        error_order: Time | None = None,
        key: Any = None,
    ):
        self.solver = solver
        self.costs = readable_in_loop(as_placements(costs))
        self.rtol = rtol
        self.atol = atol
        self.norm = norm
        self.own_error_order = error_order
        self.key = key

    # diffrax asks the wrapper for whatever it would ask the solver, so everything is passed on.
    term_structure = property(lambda self: self.solver.term_structure)
    interpolation_cls = property(lambda self: self.solver.interpolation_cls)  # pyright: ignore
    term_compatible_contr_kwargs = property(lambda self: self.solver.term_compatible_contr_kwargs)
    root_finder = property(lambda self: self.solver.root_finder)
    root_find_max_steps = property(lambda self: self.solver.root_find_max_steps)
    scan_kind = property(lambda self: self.solver.scan_kind)

    def order(self, terms: PyTree) -> int | None:
        return self.solver.order(terms)

    def strong_order(self, terms: PyTree) -> Any:
        return self.solver.strong_order(terms)

    def error_order(self, terms: PyTree) -> Any:
        return self.solver.error_order(terms)

    def func(self, terms: PyTree, t0: Time, y0: State, args: Args) -> Any:
        return self.solver.func(terms, t0, y0, args)

    def init(self, terms: PyTree, t0: Time, t1: Time, y0: State, args: Args) -> Any:
        inner = self.solver.init(terms, t0, t1, y0, args)
        surroundings = Surroundings(t0, y0, self.key, None, None)
        return inner, (init_totals(self.costs, surroundings), jnp.array(0))

    def step(
        self,
        terms: PyTree,
        t0: Time,
        t1: Time,
        y0: State,
        args: Args,
        solver_state: Any,
        made_jump: Any,
    ) -> Any:
        inner, (totals, number) = solver_state
        y1, error, info, inner, result = self.solver.step(terms, t0, t1, y0, args, inner, made_jump)
        step, good = self.seen(terms, t0, t1, y0, args, (y1, error, info))
        readings = readings_of(self.costs, step)
        totals = add_readings(self.costs, totals, readings, Place(number, t0, t1, good))
        return y1, error, info, (inner, (totals, number + 1)), result

    def seen(
        self, terms: PyTree, t0: Time, t1: Time, y0: State, args: Args, outcome: tuple
    ) -> tuple[Step, Flag]:
        """The step that ended in `(y1, error, info)` as costs see it, and whether it is finite."""
        y1, error, info = outcome
        good = tree.all_finite((y1, error, info.get("k")))
        # Before any norm: a norm of infinities has a NaN derivative even where its value is not
        # used.
        clean = lambda x, other: jax.tree.map(lambda a, b: jnp.where(good, a, b), x, other)
        error_seen, info_seen = clean((error, info), tree.zeros_like((error, info)))
        return self._view(terms, t0, t1, y0, clean(y1, y0), error_seen, info_seen, args), good

    def costs_of(self, sol: diffrax.Solution) -> dict[str, Any]:
        """The costs of a solve that was asked for its solver state.

        Raises:
            ValueError: if the solution has no solver state.
        """
        if sol.solver_state is None:
            raise ValueError(
                "The costs are in the solver state, but the solution has none. "
                "Pass `saveat=diffrax.SaveAt(..., solver_state=True)`."
            )
        return self.costs_in(sol.solver_state)

    def costs_in(self, solver_state: Any) -> dict[str, Any]:
        _, (totals, number) = solver_state
        return read_totals(self.costs, totals, number)

    def _view(
        self,
        terms: PyTree,
        t0: Time,
        t1: Time,
        y0: State,
        y1: State,
        error: State | None,
        info: dict[str, Any],
        args: Args,
    ) -> Step:
        seen = stages_seen(getattr(self.solver, "tableau", None), t0, t1, y0, info)
        own = self.own_error_order
        return Step(
            t0=t0,
            t1=t1,
            y0=y0,
            y1=y1,
            error=error,
            rates=seen.rates,
            stages=seen.stages,
            nodes=seen.nodes,
            weights=seen.weights,
            error_order=self.solver.error_order(terms) if own is None else own,
            rtol=self.rtol,
            atol=self.atol,
            norm=self.norm,
            field=lambda t, y: terms.vf(t, y, args),
            solver_name=type(self.solver).__name__,
            key=self.key,
        )


def recorder_beside(
    controller: Any, solver: diffrax.AbstractSolver, placements: Placements, key: Any
) -> Recorder:
    """A recorder that knows the controller's tolerances, if it has any."""
    _, controller = clips_around(controller)
    if not isinstance(controller, diffrax.PIDController | InUnits):
        return Recorder(solver, placements, key=key)
    known = (controller.rtol, controller.atol, controller.norm, controller.error_order)
    return Recorder(solver, placements, *known, key)
