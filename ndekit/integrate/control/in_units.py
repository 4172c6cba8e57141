"""A step size controller that looks at the state in units of its own, which may change in time."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

from ...shapes import State, Time


class InUnits(diffrax.AbstractAdaptiveStepSizeController):
    r"""A controller that judges $y / u(t)$ in place of $y$.

    `atol` and `rtol` then speak of $y / u$: the scaled error of a step from $t_0$ to $t_1$ is the
    norm of $\frac{e / u(t_1)}{\mathrm{atol} + \mathrm{rtol} \max(|y_0| / u(t_0), |y_1| / u(t_1))}$,
    and the first step is chosen as if $y / u$ were solved for. The solver itself steps in $y$ as
    ever. For states whose scale is a matter of taste, such as the points of a probability path: in
    units of the path ([`ndekit.paths.PathUnits`][]) a tolerance means the same on every path, and
    numbers of steps can be compared.

    Costs of the scaled error (`StepCount`, `StepError`) are in the same units, and are
    differentiable by the arrays in `unit`. Steps are constants of the gradient. A
    [`ndekit.Recorder`][] of one's own knows of no units.

    Args:
        controller: a `diffrax.PIDController`.
        unit: takes a time and returns $u$, positive: a number, or an array of which the last axes
            of the state have the shape. An Equinox module, if it is to have a derivative.
        direction: -1 where time is reflected; diffrax sets it.

    Raises:
        ValueError: for another controller, or a `unit` that is no function.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        controller = diffrax.PIDController(rtol=1e-4, atol=1e-4)
        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 9.0, None, jnp.ones(2),
            stepsize_controller=nk.InUnits(controller, lambda t: jnp.exp(-t)),
            costs={"steps": nk.StepCount()},
        )
        sol.stats["num_steps"]  # more than without: small states count as much as large ones
        ```
    """

    controller: diffrax.PIDController
    unit: Callable[[Time], Any]
    direction: Any  # inside a solve time grows; `unit` takes the user's

    def __init__(
        self, controller: diffrax.PIDController, unit: Callable[[Time], Any], direction: Any = 1
    ):
        self.controller, self.unit, self.direction = controller, unit, direction

    def __check_init__(self):
        if type(self.controller) is not diffrax.PIDController:
            raise ValueError(
                "`InUnits` changes the units of a `diffrax.PIDController`, got a "
                f"`{type(self.controller).__name__}`. Clip outside: "
                "`ClipStepSizeController(InUnits(...), ...)`."
            )
        if not callable(self.unit):
            raise ValueError(f"`unit` must be a function of time, got {self.unit!r}.")

    rtol = property(lambda self: self.controller.rtol)  # pyright: ignore
    atol = property(lambda self: self.controller.atol)  # pyright: ignore
    norm = property(lambda self: self.controller.norm)  # pyright: ignore
    error_order = property(lambda self: self.controller.error_order)

    def wrap(self, direction: Any) -> "InUnits":
        return InUnits(self.controller.wrap(direction), self.unit, direction)

    def init(
        self, terms: Any, t0: Time, t1: Time, y0: State, dt0: Time | None, args: Any,
        func: Callable, error_order: Any,
    ) -> tuple[Time, Any]:  # fmt: skip
        def rate(terms: Any, t: Time, y: State, args: Any) -> State:
            """Of y / u: that of y, less what the unit itself grows by."""
            t = jnp.asarray(t)
            u, growth = jax.jvp(self.unit_at, (t,), (jnp.ones_like(t),))
            f = func(terms, t, _times(y, u), args)
            return divided(jax.tree.map(lambda f, y: f - _along(growth, y) * y, f, y), u)

        given = divided(y0, self.unit_at(t0))
        return self.controller.init(terms, t0, t1, given, dt0, args, rate, error_order)

    def adapt_step_size(
        self, t0: Time, t1: Time, y0: State, y1: State, args: Any, error: Any, error_order: Any,
        state: Any,
    ) -> tuple:  # fmt: skip
        before, after = self.unit_at(t0), self.unit_at(t1)
        seen = divided(y0, before), divided(y1, after)
        error = None if error is None else divided(error, after)
        return self.controller.adapt_step_size(t0, t1, *seen, args, error, error_order, state)

    def unit_at(self, t: Time) -> Any:
        """The unit at a time that grows."""
        return jnp.asarray(self.unit(t * self.direction))


class Units(eqx.Module):
    """What costs need to know of `InUnits`: the unit at a time that grows."""

    unit: Callable[[Time], Any]
    direction: Any

    def divide(self, y: State, t: Time) -> State:
        return divided(y, jnp.asarray(self.unit(t * self.direction)))


def divided(y: State, unit: Any) -> State:
    """Every leaf in these units."""
    return jax.tree.map(lambda x: x / _along(unit, x), y)


def _times(y: State, unit: Any) -> State:
    return jax.tree.map(lambda x: x * _along(unit, x), y)


def _along(unit: Any, x: Any) -> Any:
    unit = jnp.asarray(unit).astype(x.dtype)
    return unit.reshape(*[1] * (x.ndim - unit.ndim), *unit.shape)
