"""Solvers whose steps can be undone exactly: the state before a step from the state after it."""

import abc
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from diffrax import RESULTS

from ... import tree
from ...shapes import Args, State, Time
from .inherited import steps_as, written_together


class AbstractReversibleSolver(diffrax.AbstractSolver):
    """A diffrax solver with a step backwards, so that a gradient needs no state but the last."""

    @abc.abstractmethod
    def undo(
        self, terms: Any, t0: Time, t1: Time, y1: State, args: Args, solver_state: Any
    ) -> tuple[State, Any]:
        """The state and solver state at `t0`, from those at `t1`."""


class Reversible(AbstractReversibleSolver, diffrax.AbstractWrappedSolver):
    r"""Any one-step solver, made algebraically reversible.

    A second state $z$ travels with $y$. With $\Psi_h(t, x)$ the increment of a step of the solver,

    $$y_1 = \lambda y_0 + (1 - \lambda) z_0 + \Psi_h(t_0, z_0), \qquad
    z_1 = z_0 - \Psi_{-h}(t_1, y_1),$$

    which can be solved for $z_0$, then $y_0$. Of the order of the solver, at two of its steps a
    step; the error estimate is that of the first. The solver's own state is not carried from step
    to step.

    Args:
        solver: any solver of diffrax or a user's own, except multistep and symplectic ones.
        coupling: $\lambda$ in (0, 1]. Rounding errors grow as $\lambda^{-n}$ on the way back, so
            it is near 1; but then the difference of $y$ and $z$ hardly decays.

    !!! warning
        Not for fields that contract strongly: with $\lambda$ near 1 the difference of $y$ and $z$
        grows like $e^{a T}$ on $y' = -a y$, and so do rounding errors on the way back. On
        $y' = -y$ over $T = 20$ the default is wrong. A smaller coupling, `ReversibleHeun` on
        shorter intervals, or `ReplayAdjoint` are the remedies.

    Raises:
        ValueError: if `coupling` is outside (0, 1].

    Example:
        ```python
        import diffrax, jax, jax.numpy as jnp, ndekit as nk

        def last(rate):
            sol = nk.diffeqsolve(
                diffrax.ODETerm(lambda t, y, args: -args * y), nk.Reversible(diffrax.Tsit5()),
                0.0, 1.0, 0.1, jnp.ones(2), rate, adjoint=nk.ReversibleAdjoint(),
                stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5),
            )
            return jnp.sum(sol.ys)

        jax.grad(last)(1.0)
        ```

    Reference: McCallum and Foster (2024), *Efficient, accurate and stable gradients for neural
    ODEs*, equation (5).
    """

    solver: diffrax.AbstractSolver
    coupling: float = 0.999

    def __check_init__(self):
        if not 0 < self.coupling <= 1:
            raise ValueError(f"`coupling` must be in (0, 1], but got {self.coupling}.")

    term_structure = property(lambda self: self.solver.term_structure)
    interpolation_cls = property(  # pyright: ignore
        lambda self: diffrax.LocalLinearInterpolation
    )
    term_compatible_contr_kwargs = property(lambda self: self.solver.term_compatible_contr_kwargs)

    def order(self, terms: Any) -> int | None:
        return self.solver.order(terms)

    def strong_order(self, terms: Any) -> Any:
        return self.solver.strong_order(terms)

    def error_order(self, terms: Any) -> Any:
        return self.solver.error_order(terms)

    def func(self, terms: Any, t0: Time, y0: State, args: Args) -> Any:
        return self.solver.func(terms, t0, y0, args)

    def init(self, terms: Any, t0: Time, t1: Time, y0: State, args: Args) -> State:
        return y0

    def step(
        self, terms: Any, t0: Time, t1: Time, y0: State, args: Args, solver_state: State,
        made_jump: Any,
    ) -> tuple:  # fmt: skip
        z0 = solver_state
        there, error, result = self._increment(terms, t0, t1, z0, args)
        y1 = tree.add(self._mixed(self.coupling, y0, z0), there)
        back, _, second = self._increment(terms, t1, t0, y1, args)
        z1 = tree.subtract(z0, back)
        result = RESULTS.where(result == RESULTS.successful, second, result)
        return y1, error, dict(y0=y0, y1=y1), z1, result

    def undo(
        self, terms: Any, t0: Time, t1: Time, y1: State, args: Args, solver_state: State
    ) -> tuple[State, State]:
        back, _, _ = self._increment(terms, t1, t0, y1, args)
        z0 = tree.add(solver_state, back)
        there, _, _ = self._increment(terms, t0, t1, z0, args)
        return self._mixed(1 / self.coupling, tree.subtract(y1, there), z0), z0

    def _mixed(self, share: float, y: State, z: State) -> State:
        return jax.tree.map(lambda a, b: share * a + (1 - share) * b, y, z)

    def _increment(self, terms: Any, t0: Time, t1: Time, y: State, args: Args) -> tuple:
        state = self.solver.init(terms, t0, t1, y, args)
        y1, error, _, _, result = self.solver.step(terms, t0, t1, y, args, state, False)
        return tree.subtract(y1, y), error, result


class AsynchronousLeapfrog(AbstractReversibleSolver, diffrax.AbstractAdaptiveSolver):
    r"""The asynchronous leapfrog method: second order, one evaluation a step, reversible.

    The velocity $v$ travels with $y$; with $y_h = y_0 + v_0 h / 2$,

    $$v_1 = 2 f(t_0 + h / 2, y_h) - v_0, \qquad y_1 = y_h + v_1 h / 2.$$

    The error estimate is the distance from an Euler step, $(v_1 - v_0) h / 2$.

    References: Mutze (2013), *An asynchronous leapfrog method II*; Zhuang et al. (2021), *MALI: a
    memory efficient and reverse accurate integrator for neural ODEs*.
    """

    term_structure = diffrax.ODETerm
    interpolation_cls = diffrax.LocalLinearInterpolation

    def order(self, terms: Any) -> int:
        return 2

    def func(self, terms: Any, t0: Time, y0: State, args: Args) -> Any:
        return terms.vf(t0, y0, args)

    def init(self, terms: Any, t0: Time, t1: Time, y0: State, args: Args) -> State:
        return terms.vf(t0, y0, args)

    def step(
        self, terms: Any, t0: Time, t1: Time, y0: State, args: Args, solver_state: State,
        made_jump: Any,
    ) -> tuple:  # fmt: skip
        h, v0 = terms.contr(t0, t1), solver_state
        half, v1 = self._leap(terms, t0 + (t1 - t0) / 2, h / 2, y0, v0, args)
        y1 = tree.add(half, tree.multiply(h / 2, v1))
        error = tree.multiply(h / 2, tree.subtract(v1, v0))
        return y1, error, dict(y0=y0, y1=y1), v1, RESULTS.successful

    def undo(
        self, terms: Any, t0: Time, t1: Time, y1: State, args: Args, solver_state: State
    ) -> tuple[State, State]:
        h, v1 = terms.contr(t0, t1), solver_state
        half, v0 = self._leap(terms, t0 + (t1 - t0) / 2, -h / 2, y1, v1, args)
        return tree.subtract(half, tree.multiply(h / 2, v0)), v0

    def _leap(self, terms: Any, t: Time, h: Time, y: State, v: State, args: Args) -> tuple:
        half = tree.add(y, tree.multiply(h, v))
        rate = terms.vf(t, half, args)
        return half, tree.subtract(tree.multiply(jnp.asarray(2), rate), v)


def undo_of(solver: diffrax.AbstractSolver, terms: Any, args: Args) -> Callable:
    """(t0, t1, y1, solver state at t1) -> (y0, solver state at t0), as a function of arrays."""
    if issubclass(type(solver), AbstractReversibleSolver):
        _check_written_together(solver)
        undo: Any = solver.undo  # pyright: ignore
        return lambda t0, t1, y1, state: undo(terms, t0, t1, y1, args, state)
    if steps_as(solver, diffrax.ReversibleHeun):
        return lambda t0, t1, y1, state: _undo_heun(terms, t0, t1, y1, args, state)
    raise ValueError(
        f"`ReversibleAdjoint` undoes the steps of a solver, but `{type(solver).__name__}` cannot "
        "be undone. Wrap it: `Reversible(solver)`; or use `diffrax.ReversibleHeun()` or "
        "`AsynchronousLeapfrog()`."
    )


def _check_written_together(solver: Any) -> None:
    """A subclass that changes how a step is made and not how it is undone would be undone wrongly,
    without a word.
    """
    if not written_together(solver, "step", "undo"):
        raise ValueError(
            f"`{type(solver).__name__}` inherits one of `step` and `undo` and changes the other, "
            "so that `ReversibleAdjoint` would undo another step than was made. Write both in one "
            "class, or use `ReplayAdjoint()`."
        )


def _undo_heun(terms: Any, t0: Time, t1: Time, y1: State, args: Args, state: tuple) -> tuple:
    """The step of `diffrax.ReversibleHeun` read backwards."""
    hat1, rate1 = state
    control = terms.contr(t0, t1)
    there = terms.prod(rate1, control)
    hat0 = jax.tree.map(lambda y, hat, k: 2 * y - hat - k, y1, hat1, there)
    rate0 = terms.vf(t0, hat0, args)
    here = terms.prod(rate0, control)
    y0 = jax.tree.map(lambda y, k0, k1: y - 0.5 * (k0 + k1), y1, here, there)
    return y0, (hat0, rate0)
