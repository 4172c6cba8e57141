"""The door: `diffeqsolve`, with diffrax's signature and meaning, and `costs=`."""

from collections.abc import Mapping
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy
from jaxtyping import PyTree

from ..shapes import Args, Time
from .adjoint import AbstractReplay, ReplayAdjoint, WithCosts
from .costs.contracts import AbstractPlacement, AbstractStepCost, AbstractTrajectoryCost
from .costs.one_step import readable_in_loop
from .costs.placements import as_placements
from .forward.events import in_users_time
from .outside.diffrax_loop import solve_in_loop, solve_through_diffrax
from .outside.drawn_times import read_beside, solve_and_look
from .prepare.quick import can_run, can_solve, solve_by_engine
from .programs.effects import LeavesTheProgram
from .programs.on_each_device import on_each_device
from .programs.run_time_errors import told_plainly
from .solution import Solution
from .solvers.root_finders import mended
from .times import is_concrete

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
) -> Solution:
    r"""Solve a differential equation, and report what the solve cost as differentiable numbers.

    The signature and the meaning are those of `diffrax.diffeqsolve`, with two more arguments,
    `costs` and `key`. Terms, solvers, step size controllers, `SaveAt` and results are diffrax's.

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

    Returns:
        A `Solution`: diffrax's fields, `costs`, and `stats["num_evals"]`.

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
        discrete_terminating_event=discrete_terminating_event,
    )  # fmt: skip
    given = (terms, solver, t0, t1, dt0, y0, args), adjoint, costs, key, options
    return on_each_device(_solve, *given, forward=isinstance(adjoint, diffrax.ForwardMode))


def _solve(problem: tuple, adjoint: Any, costs: Any, key: Any, options: dict) -> Solution:
    terms, solver, t0, t1, dt0, y0, args = problem
    wanted, throw = as_placements(costs), options["throw"]
    _check_count(options["max_steps"])
    solver, event = mended(solver), in_users_time(options["event"])
    options = options | dict(event=event)
    problem = (terms, solver, t0, t1, dt0, y0, args)
    if read_beside(wanted, adjoint):
        return solve_and_look(diffeqsolve, problem, wanted, adjoint=adjoint, key=key, **options)
    placements = readable_in_loop(wanted)
    through_diffrax = lambda: solve_through_diffrax(
        *problem, placements=placements, key=key, adjoint=adjoint, **options
    )
    if not isinstance(adjoint, AbstractReplay) or not can_run(
        y0, args, terms, options["progress_meter"]
    ):
        return through_diffrax()
    saveat, controller = options["saveat"], options["stepsize_controller"]
    names = "solver_state controller_state made_jump event discrete_terminating_event".split()
    is_complex = lambda t: t is not None and eqx.is_array_like(t) and jnp.iscomplexobj(t)
    plain = isinstance(adjoint, ReplayAdjoint) and all(options[name] is None for name in names)
    plain = plain and not any(map(is_complex, (t0, t1, dt0, *jax.tree.leaves(saveat))))
    try:
        with told_plainly():
            if not (plain and can_solve(terms, solver, y0, saveat, controller)):
                return solve_in_loop(
                    *problem, adjoint=WithCosts(adjoint, placements, key), **options
                )
            return solve_by_engine(
                terms, solver, t0, t1, _checked_first_step(t0, t1, dt0, throw), y0, args,
                saveat=_checked_ts(t0, t1, saveat, throw), stepsize_controller=controller,
                how=adjoint.how, max_steps=options["max_steps"], throw=throw,
                placements=placements, key=key,
            )  # fmt: skip
    except LeavesTheProgram:
        return through_diffrax()


def _check_count(max_steps: Any) -> None:
    is_count = isinstance(max_steps, (int, numpy.integer)) and not isinstance(max_steps, bool)
    if max_steps is not None and not (is_count and max_steps >= 1):
        raise ValueError(
            f"`max_steps` must be an integer of at least 1, or `None`, but got {max_steps!r}."
        )


def _checked_first_step(t0: Time, t1: Time, dt0: Time | None, throw: bool) -> Time | None:
    times = [t for t in (t0, t1, dt0) if t is not None]
    np = _array_module(*times)
    if throw and np is numpy and any(np.isnan(np.asarray(t)) for t in times):
        raise InvalidTimes(f"`t0`, `t1` and `dt0` must be numbers, but are {t0}, {t1} and {dt0}.")
    if dt0 is None:
        return None
    with jax.numpy_dtype_promotion("standard"):
        backwards = (np.asarray(t1) - np.asarray(t0)) * np.asarray(dt0) < 0
    message = "`dt0` must point from `t0` to `t1`: (t1 - t0) * dt0 >= 0."
    return _check(dt0, backwards, message, (t0, t1, dt0))


def _checked_ts(t0: Time, t1: Time, saveat: diffrax.SaveAt, throw: bool) -> diffrax.SaveAt:
    sub: Any = saveat.subs
    if sub.ts is None:
        return saveat
    np = _array_module(t0, t1, sub.ts)
    with jax.numpy_dtype_promotion("standard"):
        t0, t1, ts = np.asarray(t0), np.asarray(t1), np.asarray(sub.ts)
        forwards = t0 <= t1
        disorder = np.any(np.where(forwards, ts[1:] < ts[:-1], ts[1:] > ts[:-1]))
        first, last = np.minimum(t0, t1), np.maximum(t0, t1)
        outside = np.any((ts < first) | (ts > last))
    if not throw and not is_concrete(bad := disorder | outside):
        # Without a callback to the host, which cannot be exported: nothing is saved.
        ts = jnp.where(bad, jnp.nan, ts)
        return eqx.tree_at(lambda s: s.subs.ts, saveat, ts)
    ts = _check(sub.ts, disorder, "`saveat.ts` must run from `t0` to `t1` in order.", ())
    ts = _check(ts, outside, "`saveat.ts` must lie between `t0` and `t1`.", (t0, t1))
    return eqx.tree_at(lambda s: s.subs.ts, saveat, ts)


def _array_module(*values: Any) -> Any:
    """NumPy while everything is known, so that a check under `jax.jit` is still a check now."""
    return numpy if all(map(is_concrete, values)) else jnp


def _check(value: Any, bad: Any, message: str, got: tuple) -> Any:
    """`value` if not `bad`: an exception now if that is known, at run time if it is traced."""
    if not is_concrete(bad):
        return eqx.error_if(jnp.asarray(value), bad, message)
    if bad:
        shown = f" Got {', '.join(str(x) for x in got)}." if got else ""
        raise InvalidTimes(message + shown)
    return value


class InvalidTimes(ValueError, RuntimeError):
    """Times that do not fit each other. diffrax finds them at run time and raises a `RuntimeError`;
    here they are found before, wherever they are known, and a program may catch either.
    """
