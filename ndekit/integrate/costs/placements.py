"""Placements: every step's reading summed, averaged, kept, or added up along the saved times."""

from collections.abc import Mapping
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp

from ...shapes import Count, Scalar
from .contracts import (
    AbstractPlacement,
    AbstractStepCost,
    AbstractTrajectoryCost,
    Place,
    Surroundings,
)


class EveryStep(AbstractPlacement):
    r"""A step cost over all accepted steps: $\sum_n c_n$, their mean, or their maximum.

    A bare cost in `costs={...}` means `EveryStep(cost, "sum")`. Rejected attempts count nothing. A
    step in which an event ends the solve counts whole: it had to be taken to find the event.

    Args:
        cost: the step cost.
        reduce: `"sum"`, `"mean"` (over accepted steps) or `"max"` (its derivative is that of the
            first largest reading).

    Raises:
        ValueError: for any other `reduce`.
    """

    cost: AbstractStepCost
    reduce: Literal["sum", "mean", "max"] = eqx.field(static=True, default="sum")

    def __check_init__(self):
        check_cost("EveryStep", self.cost)
        if self.reduce not in ("sum", "mean", "max"):
            raise ValueError(f"`reduce` must be 'sum', 'mean' or 'max', but got {self.reduce!r}.")

    def init(self, surroundings: Surroundings) -> tuple[Scalar, Count]:
        return jnp.zeros((), surroundings.dtype), jnp.array(-1)

    def add(self, total: tuple[Scalar, Count], reading: Scalar, place: Place) -> tuple:
        value, at = total
        if self.reduce == "max":
            larger = place.accepted & ((at < 0) | (reading > value))
            return jnp.where(larger, reading, value), jnp.where(larger, place.number, at)
        return value + reading, at

    def read(self, total: tuple[Scalar, Count], num_accepted: Count) -> Scalar:
        value, _ = total
        return value * self._normaliser(value, num_accepted)

    def pull(
        self, total: tuple[Scalar, Count], num_accepted: Count, place: Place, ct: Scalar
    ) -> Scalar:
        value, at = total
        if self.reduce == "max":
            return ct * (place.number == at).astype(value.dtype)
        return ct * self._normaliser(value, num_accepted)

    def _normaliser(self, value: Scalar, num_accepted: Count) -> Scalar:
        if self.reduce == "mean":
            return 1 / jnp.maximum(num_accepted, 1).astype(value.dtype)
        return jnp.ones((), value.dtype)


class EachStep(AbstractPlacement):
    r"""A step cost of each accepted step by itself: an array $(c_0, c_1, \dots)$.

    Of shape `(max_steps,)`, zero after the last accepted step. With
    `SaveAt(subs={..., "steps": SubSaveAt(steps=True)})` the times of the same steps come too.

    Args:
        cost: the step cost.

    Raises:
        ValueError: for a solve without a bound on its steps.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 1.0, None, jnp.ones(2),
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4), max_steps=64,
            costs={"errors": nk.EachStep(nk.StepError())},
        )
        sol.costs["errors"][: sol.stats["num_accepted_steps"]]
        ```
    """

    cost: AbstractStepCost

    def __check_init__(self):
        check_cost("EachStep", self.cost)

    def init(self, surroundings: Surroundings) -> Any:
        if surroundings.max_steps is None:
            raise ValueError(
                "`EachStep` keeps a number for each step, so it needs to know how many there can "
                "be. Give `diffeqsolve` a bound (`max_steps`), and an adjoint of ndekit's: inside "
                "diffrax's own loop the bound is not known."
            )
        return jnp.zeros(surroundings.max_steps, surroundings.dtype)

    def add(self, total: Any, reading: Scalar, place: Place) -> Any:
        return total.at[place.number].set(reading)

    def read(self, total: Any, num_accepted: Count) -> Any:
        return total

    def pull(self, total: Any, num_accepted: Count, place: Place, ct: Any) -> Scalar:
        return ct[place.number]


class AlongTimes(AbstractPlacement):
    r"""A step cost added up along the solve: at each of `SaveAt(ts=...)` the sum of $c_n$ over the
    accepted steps up to and including the one that holds this time.

    Of shape `(len(ts),)`; after the end of a solve that stopped early, the final sum.

    Args:
        cost: the step cost.

    Raises:
        ValueError: for a solve that does not save at times.
    """

    cost: AbstractStepCost

    def __check_init__(self):
        check_cost("AlongTimes", self.cost)

    def init(self, surroundings: Surroundings) -> Any:
        if surroundings.ts is None:
            raise ValueError(
                "`AlongTimes` adds a cost up along `SaveAt(ts=...)`, but there are no `ts`, or "
                "more than one set of them, or the solve runs in diffrax's own loop, which does "
                "not tell. Give one, and an adjoint of ndekit's, or use `EachStep`."
            )
        return surroundings.ts, jnp.zeros(surroundings.ts.shape, surroundings.dtype)

    def add(self, total: Any, reading: Scalar, place: Place) -> Any:
        ts, sums = total
        return ts, sums + jnp.where(self._holds(ts, place), reading, 0)

    def read(self, total: Any, num_accepted: Count) -> Any:
        return total[1]

    def pull(self, total: Any, num_accepted: Count, place: Place, ct: Any) -> Scalar:
        return jnp.sum(jnp.where(self._holds(total[0], place), ct, 0))

    def _holds(self, ts: Any, place: Place) -> Any:
        """Which times have this step's reading in their sum. The first step also owns its start."""
        return (ts > place.t0) | (place.number == 0)


class Along(str):
    """The name of a cost that has a number for each step or each saved time: its axis is not one
    of samples. A word like any other; names are what goes through every transformation of JAX.
    """


def as_placements(
    costs: Mapping[str, Any] | None,
) -> dict[str, AbstractPlacement | AbstractTrajectoryCost]:
    """The `costs=` argument, each bare step cost made `EveryStep(cost, "sum")`."""
    if costs is None:
        return {}
    if not isinstance(costs, Mapping):
        raise ValueError(
            f"`costs` must be a dict of named costs, but got {costs!r}. "
            "Write `costs={'steps': StepCount()}`."
        )
    return {
        Along(name) if isinstance(cost, EachStep | AlongTimes) else name: _as_placement(name, cost)
        for name, cost in costs.items()
    }


def _as_placement(name: str, cost: Any) -> AbstractPlacement | AbstractTrajectoryCost:
    if isinstance(cost, AbstractPlacement | AbstractTrajectoryCost):
        return cost
    if isinstance(cost, AbstractStepCost):
        return EveryStep(cost)
    raise ValueError(
        f"`costs[{name!r}]` must be a step cost or a placement, but got {cost!r}. "
        "Pass an instance such as `StepCount()` or `EveryStep(StepError(), 'mean')`."
    )


def check_cost(placement: str, cost: Any) -> None:
    if not isinstance(cost, AbstractStepCost):
        raise ValueError(
            f"`{placement}` takes a step cost, but got {cost!r}. Pass e.g. `StepError()`."
        )
