"""How a solve of the engine is differentiated."""

import abc
from typing import Any

import diffrax
import equinox as eqx

from .costs.contracts import Placements
from .prepare.from_diffrax import Replaying, run_loop
from .programs.effects import LeavesTheProgram
from .resets import Resets


class AbstractReplay(diffrax.AbstractAdjoint):
    """An adjoint whose loop is the engine's."""

    @property
    @abc.abstractmethod
    def how(self) -> Replaying: ...

    def loop(self, **given: Any) -> Any:
        """The loop of `diffrax.diffeqsolve(adjoint=...)`, called by diffrax."""
        try:
            state, stats, _ = run_loop(self.how, {}, None, **given)
        except LeavesTheProgram:
            return diffrax.RecursiveCheckpointAdjoint().loop(**given)
        return state, stats


class ReplayAdjoint(AbstractReplay):
    """Record the accepted steps going forward, replay them backwards with one vjp each. The
    default.

    The gradient is that of the solve on the grid that the controller chose, exact to rounding, as
    with diffrax's discretise-then-optimise adjoints. The steps of a `diffrax.PIDController` are
    constants, but for those that end on the user's times; other controllers (`ConstantStepSize`,
    `StepTo`, one of your own) are differentiated as they are written. A rejected step leaves
    nothing behind.

    Costs two evaluations of the vector field forward and one in reverse for each stage of an
    accepted step; a solve longer than its checkpoints runs again between them, which is one more
    forward, or two and a half where the steps are as many as the square of the checkpoints. Memory:
    `checkpoints` states and the time of each step; for diagonally implicit solvers a checkpoint
    holds the stages of its step as well, whose equations are then not solved again.

    Forward mode, second and higher derivatives go over the recorded grid once more: `jax.jvp`,
    `jax.hessian`, `jax.grad` of `jax.grad`, in any order. They need forward mode of a step, which a
    `jax.custom_vjp` function and diagonally implicit solvers do not have. Second derivatives are
    symmetric by construction: of a field with a `jax.custom_jvp` rule that is not its derivative
    they are those of forward over reverse.

    It is an adjoint of diffrax too: a library that calls `diffrax.diffeqsolve` and takes an
    `adjoint=` gets the engine by `adjoint=ReplayAdjoint()`.

    Args:
        checkpoints: how many states to keep; by default about `2 sqrt(max_steps)`, more of
            tiny ones, all of a solve under `jax.vmap` that take no more than 64 MB, and fewer along
            noise, which a checkpoint holds as well. As many steps as this are replayed without
            recomputation.
        step_sizes: `"frozen"`, or `"differentiable"`: step sizes then follow the controller, and
            the gradient is that of the adaptive solve itself, dt0 included. It costs the vjp of
            rejected attempts too. Of the value of a solve the two gradients differ by about its
            error; of its costs they differ at large (see the page on solver heuristics). For
            `diffrax.PIDController`; any other controller has its own derivative always.
        keep: what a checkpoint holds. `"states"`: the state before a step, which is run again to
            be reversed. `"stages"`: also every value inside the step that its derivative reads, so
            that no evaluation of the vector field, and no iteration of an implicit solver, is
            repeated; a checkpoint then takes about what the step's own evaluations take, and by
            default there are fewer. Worth it for costly evaluations with few values inside: wide
            networks on accelerators, KenCarp, CDEs. For small fields, and wherever memory is
            slower than arithmetic, `"states"` is faster. Not for controllers that jump.

    Raises:
        ValueError: if `checkpoints` is not positive, `step_sizes` or `keep` is not one of its two,
            or stages are to be kept and the controller jumps.
        TypeError: for forward mode or a second derivative of a step that has no forward mode.

    Reference: Griewank and Walther, *Evaluating Derivatives*, ch. 12 (two-level checkpointing).
    """

    checkpoints: int | None = None
    step_sizes: str = eqx.field(static=True, default="frozen")
    keep: str = eqx.field(static=True, default="states")

    def __check_init__(self):
        if self.checkpoints is not None and self.checkpoints < 1:
            raise ValueError(
                f"`checkpoints` must be at least 1, but got {self.checkpoints}. "
                "Leave it out for about sqrt(max_steps)."
            )
        _check_step_sizes(self.step_sizes)
        if self.keep not in ("states", "stages"):
            raise ValueError(f"`keep` must be 'states' or 'stages', but got {self.keep!r}.")

    @property
    def how(self) -> Replaying:
        return Replaying(self.checkpoints, self.step_sizes, keeps_stages=self.keep == "stages")


class ReversibleAdjoint(AbstractReplay):
    """Walk back by undoing each step: no states are kept at all.

    For solvers that can be undone: `Reversible(any solver)`, `diffrax.ReversibleHeun()`,
    `AsynchronousLeapfrog()`, with fixed or adaptive steps. The gradient is that of the discrete
    solve, exact up to the rounding errors of the way back. Memory: one state, whatever the number
    of steps, and the time of each; time: one more evaluation of the solver's step than
    `ReplayAdjoint` with all states kept.

    Args:
        step_sizes: as for `ReplayAdjoint`.

    Raises:
        ValueError: for a solver that cannot be undone, or a controller that jumps.

    Reference: McCallum and Foster (2024), *Efficient, accurate and stable gradients for neural
    ODEs*; Kidger et al. (2021), *Efficient and accurate gradients for neural SDEs*.
    """

    step_sizes: str = eqx.field(static=True, default="frozen")

    def __check_init__(self):
        _check_step_sizes(self.step_sizes)

    @property
    def how(self) -> Replaying:
        return Replaying(None, self.step_sizes, reversible=True)


class WithCosts(diffrax.AbstractAdjoint):
    """The engine for `ndekit.diffeqsolve`: what it has besides a solution comes back among the
    statistics, as `stats["besides"]`.
    """

    adjoint: AbstractReplay
    placements: Placements
    key: Any
    resets: Resets | None = None
    num_turns: int | None = eqx.field(static=True, default=None)

    def loop(self, **given: Any) -> Any:
        how = self.adjoint.how._replace(num_turns=self.num_turns)
        state, stats, besides = run_loop(how, self.placements, self.key, self.resets, **given)
        return state, stats | {"besides": besides}


def _check_step_sizes(step_sizes: str) -> None:
    if step_sizes not in ("frozen", "differentiable"):
        raise ValueError(
            f"`step_sizes` must be 'frozen' or 'differentiable', but got {step_sizes!r}."
        )
