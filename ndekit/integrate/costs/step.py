"""What is known of one accepted step of a solver."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from ... import tree
from ...shapes import Scalar, State, Time
from ..control.in_units import Units
from ..control.scaled_error import scale_of, scaled_error


class Step(eqx.Module):
    r"""One accepted step from $(t_0, y_0)$ to $(t_1, y_1)$, as a step cost sees it.

    Times grow from `t0` to `t1` also when the solve runs backwards (time is then reflected, as
    inside diffrax).

    Attributes:
        t0, t1: the ends of the step.
        y0, y1: the state there.
        error: the embedded error estimate, before scaling; `None` if the solver has none.
        rates: the stage derivatives $k_i = f(t_0 + c_i h, g_i)$; `None` if the solver hides them.
        stages: the stage arguments $g_i = y_0 + h \sum_j a_{ij} k_j$, in the same order.
        nodes, weights: the tableau's $c_i$ and $b_i$.
        error_order: $q$, the order of the error estimate: $\lVert e \rVert = O(h^q)$.
        rtol, atol, norm: the controller's, `None` if it has none.
        field: the vector field $f(t, y)$, for costs that want more of it than the stages.
        key: `diffeqsolve(key=...)`, the same at every step; `None` if there is none.
        error_parts: of an SDE, what drift and noise add to `error`; `None` if they are not known.
        units: in which the controller looks at states and errors; `None` for those that they have.
    """

    t0: Time
    t1: Time
    y0: State
    y1: State
    error: State | None
    rates: list[State] | None
    stages: list[State] | None
    nodes: tuple[float, ...] = eqx.field(static=True)
    weights: tuple[float, ...] = eqx.field(static=True)
    error_order: Any = eqx.field(static=True)
    rtol: Time | None
    atol: Time | None
    norm: Callable[[State], Any] | None = eqx.field(static=True)
    field: Callable[[Time, State], State] = eqx.field(static=True)
    solver_name: str = eqx.field(static=True)
    key: Any = None
    error_parts: tuple[State, State] | None = None
    units: Units | None = None

    @property
    def h(self) -> Scalar:
        """The step size $t_1 - t_0 > 0$, in the state's real dtype."""
        return jnp.asarray(self.t1 - self.t0).astype(tree.real_dtype(self.y0))

    @property
    def scale(self) -> State:
        r"""The controller's yardstick, $\text{atol} + \text{rtol} \max(|y_0|, |y_1|)$, of states
        and errors in its units.
        """
        return scale_of(
            self._seen(self.y0, self.t0), self._seen(self.y1, self.t1), *self.tolerances
        )

    @property
    def scaled_error(self) -> Scalar:
        """The norm of error / scale: the number that the controller compares with one."""
        error, tolerances = self.checked_error(), self.tolerances
        assert self.norm is not None  # given together with them
        error, y1 = self._seen(error, self.t1), self._seen(self.y1, self.t1)
        return scaled_error(self.norm, error, self._seen(self.y0, self.t0), y1, *tolerances)

    def _seen(self, y: State, t: Time) -> State:
        """A state or an error as the controller sees it."""
        return y if self.units is None else self.units.divide(y, t)

    @property
    def tolerances(self) -> tuple[Time, Time]:
        """The controller's rtol and atol."""
        if self.rtol is None or self.atol is None:
            raise ValueError(
                "A scaled error needs `rtol` and `atol`, but the step size controller has none. "
                "Use `diffrax.PIDController(rtol=..., atol=...)`, or an unscaled cost such as "
                "`StepError(scaled=False)`."
            )
        return self.rtol, self.atol

    @property
    def stiff_pair(self) -> tuple[int, int] | None:
        """The last two stages, if they share a node: their rates differ by the Jacobian alone."""
        if self.rates is None or len(self.nodes) < 2 or self.nodes[-1] != self.nodes[-2]:
            return None
        return len(self.nodes) - 2, len(self.nodes) - 1

    def with_error_of(self, part: str) -> "Step":
        """The step with what `"drift"` or `"noise"` adds to its error estimate in its place."""
        if self.error_parts is None:
            raise ValueError(
                f"The error estimate of `{self.solver_name}` is not known in parts. Solve an SDE "
                "by `ndekit.SOSRI()`, `diffrax.SPaRK()` or `diffrax.Heun()` with "
                "`ReplayAdjoint()`, or leave `part` out."
            )
        error = self.error_parts[("drift", "noise").index(part)]
        return dataclasses.replace(self, error=error)

    def checked_error(self) -> State:
        if self.error is None:
            raise ValueError(
                f"This cost reads an error estimate, but `{self.solver_name}` gives none. "
                "Use a solver with an embedded estimate, for example `diffrax.Tsit5()`."
            )
        return self.error
