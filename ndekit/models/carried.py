"""Points that carry their log density along a solve, and costs that look at the points alone."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..integrate import AbstractPlacement, AbstractStepCost, AbstractTrajectoryCost, Step
from ..integrate.control.controllers import FIXED
from ..integrate.control.scaled_error import scale_of
from ..probes import value_and_trace
from ..shapes import Args, Scalar, Time


class Carried(NamedTuple):
    r"""Points, and $\int \mathrm{tr}\, J\, dt$ along their way since they set out.

    Attributes:
        x: the points.
        trace: by how much their log density has fallen.
    """

    x: Float[Array, "..."]
    trace: Float[Array, "*batch"]


class CarriedField(eqx.Module):
    """The rates of points and of their log density, in one evaluation of the field."""

    field: Callable
    directions: Array
    ndim: int = eqx.field(static=True)

    def __call__(self, t: Time, y: Carried, args: Args = None) -> Carried:
        of_points = lambda x: self.field(t, x, args)
        return Carried(*value_and_trace(of_points, y.x, self.directions, self.ndim))


class OfPoints(AbstractStepCost):
    """A cost of the step as if the points alone were solved, but for the scaled error, which stays
    that of the controller.

    So kinetic energies, Jacobians and Taylor coefficients are those of the field, as published, and
    a count of steps counts the steps that are made.
    """

    cost: AbstractStepCost

    def of_step(self, step: Step) -> Scalar:
        return self.cost.of_step(of_points(step))


class _AlongPoints(AbstractTrajectoryCost):
    cost: AbstractTrajectoryCost

    def times(self, t0: Time, t1: Time, *, key: Any) -> Array:
        return self.cost.times(t0, t1, key=key)

    def of_states(self, ts: Array, ys: Carried) -> Scalar:
        return self.cost.of_states(ts, ys.x)


def of_points(step: Step) -> Step:
    """The step of the points; its norm adds what the log density has to say of the scaled error."""
    still = jnp.zeros_like(step.y0.trace)
    parts = {
        "y0": step.y0.x,
        "y1": step.y1.x,
        "rates": None if step.rates is None else [rate.x for rate in step.rates],
        "stages": None if step.stages is None else [stage.x for stage in step.stages],
        "field": lambda t, x: step.field(t, Carried(x, still)).x,
    }
    if step.error is not None:
        parts["error"] = step.error.x
    if step.norm is not None and step.error is not None:
        whole, ratio = step.norm, _ratio_of_trace(step)
        parts["norm"] = lambda ratio_of_x: whole(Carried(ratio_of_x, ratio))
    return dataclasses.replace(step, **parts)


def _ratio_of_trace(step: Step) -> Array:
    """The error of the log density in units of the tolerances, as the controller has it."""
    if step.units is not None:
        raise ValueError(
            "`InUnits` has one unit for points, but the state of a `CNF` with costs is points and "
            "log densities. Leave the costs out, or the units."
        )
    error, y0, y1 = (part.trace for part in (step.checked_error(), step.y0, step.y1))
    with jax.numpy_dtype_promotion("standard"):
        ratio = (error + lax.stop_gradient(0 * y1)) / scale_of(y0, y1, *step.tolerances)
    return jnp.where(jnp.isnan(ratio), jnp.inf, ratio)


def costs_of_points(costs: Mapping[str, Any]) -> dict[str, Any]:
    """The same costs for a solve whose state is `Carried`."""
    return {name: _of_points(cost) for name, cost in costs.items()}


def _of_points(cost: Any) -> Any:
    if isinstance(cost, AbstractStepCost):
        return OfPoints(cost)
    if isinstance(cost, AbstractPlacement):
        return eqx.tree_at(lambda placement: placement.cost, cost, OfPoints(cost.cost))
    if isinstance(cost, AbstractTrajectoryCost):
        return _AlongPoints(cost)
    return cost  # which `diffeqsolve` refuses by name


class _NormOfPoints(eqx.Module):
    norm: Callable

    def __call__(self, y: Carried) -> Any:
        return self.norm(y.x)


def looking_at_points(
    controller: diffrax.AbstractStepSizeController,
) -> diffrax.AbstractStepSizeController:
    """The controller with the error of the points alone in its norm.

    Raises:
        ValueError: if it has no norm to change.
    """
    if isinstance(controller, FIXED):
        return controller
    if isinstance(controller, diffrax.ClipStepSizeController):
        inner = looking_at_points(controller.controller)
        return eqx.tree_at(lambda c: c.controller, controller, inner)
    norm = getattr(controller, "norm", None)
    if norm is None:
        raise ValueError(
            f"`error_of='x'` changes the norm of the controller, but "
            f"`{type(controller).__name__}` has none. Use `diffrax.PIDController`, or "
            "`error_of='all'`."
        )
    return eqx.tree_at(lambda c: c.norm, controller, _NormOfPoints(norm))
