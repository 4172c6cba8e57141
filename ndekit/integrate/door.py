"""The door: `diffeqsolve`, with diffrax's signature and meaning, and `costs=`."""

from collections.abc import Mapping
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..shapes import Args, Time
from .adjoint import AbstractReplay, ReplayAdjoint, WithCosts
from .checked import check_count, checked_first_step, checked_resets, checked_ts, refuse_in_diffrax
from .costs.contracts import AbstractPlacement, AbstractStepCost, AbstractTrajectoryCost
from .costs.measured import measured
from .costs.one_step import readable_in_loop
from .costs.placements import as_placements
from .forward.events import in_users_time
from .outside.diffrax_loop import solve_in_loop, solve_through_diffrax
from .outside.drawn_times import read_beside, solve_and_look
from .prepare.quick import can_run, can_solve, solve_by_engine
from .programs.effects import LeavesTheProgram
from .programs.on_each_device import on_each_device
from .programs.run_time_errors import told_plainly
from .resets import Resets
from .solution import Solution
from .solvers.root_finders import mended

Cost = AbstractStepCost | AbstractPlacement | AbstractTrajectoryCost


def diffeqsolve(
    terms: PyTree,
    solver: diffrax.AbstractSolver,
    t0: Time,
    t1: Time,
    dt0: Time | None,
    y0: PyTree,
    args: Args = None,
    *,
    saveat: diffrax.SaveAt = diffrax.SaveAt(t1=True),
    stepsize_controller: diffrax.AbstractStepSizeController = diffrax.ConstantStepSize(),
    adjoint: diffrax.AbstractAdjoint = ReplayAdjoint(),
    event: diffrax.Event | None = None,
    max_steps: int | None = 4096,
    throw: bool = True,
    progress_meter: diffrax.AbstractProgressMeter = diffrax.NoProgressMeter(),
    solver_state: PyTree | None = None,
    controller_state: PyTree | None = None,
    made_jump: Any = None,
    discrete_terminating_event: Any = None,
    costs: Mapping[str, AbstractStepCost | AbstractPlacement | AbstractTrajectoryCost]
    | None = None,
    key: Any = None,
    resets: Resets | None = None,
) -> Solution:
    r"""Solve a differential equation, and report what the solve cost as differentiable numbers.

    The signature and the meaning are those of `diffrax.diffeqsolve`, with three more arguments,
    `costs`, `key` and `resets`. Terms, solvers, step size controllers, `SaveAt` and results are
    diffrax's.

    Every solver, controller, term, event and `SaveAt` runs in ndekit's own engine, with the same
    steps as in diffrax and a cheaper gradient. Solves with a progress meter, with complex numbers
    or with one of diffrax's adjoints run in diffrax's own loop, with the same costs;
    `ReplayAdjoint` then means `diffrax.RecursiveCheckpointAdjoint`.

    Args:
        terms: the differential equation: a diffrax term, or a PyTree of terms if the solver asks
            for one.
        solver: any diffrax solver.
        t0: the start of the interval.
        t1: its end; it may lie before `t0`.
        dt0: the size of the first step; with `None` the controller chooses it.
        y0: the state at `t0`, any PyTree of arrays.
        args: passed on to the vector field.
        saveat: the times at which the solution is saved.
        stepsize_controller: chooses the step sizes. The default, `ConstantStepSize()`, needs `dt0`.
        adjoint: how to differentiate the solve: `ReplayAdjoint()`, `ReversibleAdjoint()`, or one
            of diffrax's.
        event: a condition that ends the solve early.
        max_steps: the most steps that are attempted, rejected ones included.
        throw: whether a solve that fails raises an error; if not, `sol.result` says what happened.
        progress_meter: reports the progress of the solve.
        solver_state: the solver's state at `t0`, to continue an earlier solve.
        controller_state: the controller's state at `t0`, likewise.
        made_jump: whether the vector field jumps at `t0`, likewise.
        discrete_terminating_event: deprecated, as in diffrax; use `event`.
        costs: a dict of costs, such as `{"steps": StepCount()}`; they are returned as `sol.costs`.
            A step cost on its own means `EveryStep(cost, "sum")`.
        key: a JAX random key, for costs that draw random numbers, such as `JacobianNorm()`.
        resets: changes of the state at known times, see [`ndekit.Resets`][]. What is saved at the
            time of a reset is the state before it (`sol.resets.after` has the other), but for the
            end of the solve, `SaveAt(t1=True)`, and times equal to `t0`, which come after it. Steps
            that were chosen before the solve (`ConstantStepSize`, `StepTo`) end where they would
            anyway, and at resets besides. An event that is met at a reset comes first.

    Returns:
        A `Solution`: diffrax's fields, `costs`, `resets`, and `stats["num_evals"]`.

    Gradients: with respect to `y0`, `args`, everything that the vector field closes over, arrays
    inside costs, and times: `t0`, `t1`, `saveat.ts`, the times of `StepTo` and of a
    `ClipStepSizeController`, and `dt0` of constant steps. The steps of a `PIDController` are
    constants, but for those that end on one of these times; its `dt0` and its tolerances have no
    derivative. Every other controller is differentiated as it is written. Forward mode and
    derivatives of every order and mixture work with the default adjoint, on the grid of the solve;
    not through a `jax.custom_vjp` in a step (diagonally implicit solvers, `AutoSwitch`,
    `Reversible(...)`, a field of your own): there pass `adjoint=diffrax.ForwardMode()`, or
    `diffrax.DirectAdjoint()` for second derivatives.

    Raises:
        ValueError: for arguments that do not fit each other, before anything is traced.
        RuntimeError: if `throw=True` and the solve fails, e.g. for lack of steps, or because the
            state is not finite. The message says where.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -args * y), diffrax.Tsit5(),
            t0=0.0, t1=1.0, dt0=None, y0=jnp.ones(2), args=3.0,
            stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5),
            costs={"steps": nk.StepCount()},
        )
        sol.ys, sol.costs["steps"], sol.stats["num_evals"]
        ```
    """
    options: dict[str, Any] = dict(
        saveat=saveat, stepsize_controller=stepsize_controller, event=event, max_steps=max_steps,
        throw=throw, progress_meter=progress_meter, solver_state=solver_state,
        controller_state=controller_state, made_jump=made_jump,
        discrete_terminating_event=discrete_terminating_event, resets=resets,
    )  # fmt: skip
    given = (terms, solver, t0, t1, dt0, y0, args), adjoint, costs, key, options
    return on_each_device(_solve, *given, forward=isinstance(adjoint, diffrax.ForwardMode))


def _solve(problem: tuple, adjoint: Any, costs: Any, key: Any, options: dict) -> Solution:
    terms, solver, t0, t1, dt0, y0, args = problem
    throw, controller = options["throw"], options["stepsize_controller"]
    wanted = measured(as_placements(costs), controller, t0, t1)
    check_count(options["max_steps"])
    solver, event = mended(solver), in_users_time(options["event"])
    resets = checked_resets(options["resets"], (t0, t1), throw)
    options = options | dict(event=event, resets=resets)
    problem = (terms, solver, t0, t1, dt0, y0, args)
    if read_beside(wanted, adjoint):
        return solve_and_look(diffeqsolve, problem, wanted, adjoint=adjoint, key=key, **options)
    placements, options = readable_in_loop(wanted), dict(options)
    del options["resets"]

    def through_diffrax() -> Solution:
        refuse_in_diffrax(resets)
        given = dict(placements=placements, key=key, adjoint=adjoint)
        return solve_through_diffrax(*problem, **given, **options)

    runs = can_run(y0, args, terms, options["progress_meter"])
    if not (isinstance(adjoint, AbstractReplay) and runs):
        return through_diffrax()
    saveat = options["saveat"]
    names = "solver_state controller_state made_jump event discrete_terminating_event".split()
    is_complex = lambda t: t is not None and eqx.is_array_like(t) and jnp.iscomplexobj(t)
    plain = isinstance(adjoint, ReplayAdjoint) and all(options[name] is None for name in names)
    plain = plain and not any(map(is_complex, (t0, t1, dt0, *jax.tree.leaves(saveat))))
    try:
        with told_plainly():
            if not (plain and can_solve(terms, solver, y0, saveat, controller)):
                how = WithCosts(adjoint, placements, key, resets)
                return solve_in_loop(*problem, adjoint=how, **options)
            return solve_by_engine(
                terms, solver, t0, t1, checked_first_step(t0, t1, dt0, throw), y0, args,
                saveat=checked_ts(t0, t1, saveat, throw), stepsize_controller=controller,
                how=adjoint.how, max_steps=options["max_steps"], throw=throw,
                placements=placements, key=key, resets=resets,
            )  # fmt: skip
    except LeavesTheProgram:
        return through_diffrax()
