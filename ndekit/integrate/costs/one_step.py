"""A placement that reads one step of a solve, drawn at random."""

from collections.abc import Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import lax

from ... import tree
from ...shapes import Count, Flag, Scalar, State, Time
from .contracts import AbstractPlacement, AbstractStepCost, Place, Surroundings
from .placements import check_cost
from .step import Step


class _Drawn(eqx.Module):
    value: Any
    at: Count  # the number of the step picked so far
    length: Scalar  # of the accepted steps so far, or how many
    seed: Any


class OneStep(AbstractPlacement):
    r"""A step cost at one step, drawn at random: local regularisation.

    With `sample="step"` each of the solver's $N$ accepted steps is as likely as any other: the
    expectation is $\frac1N \sum_n c_n$. With `sample="time"` it is the step that holds a uniformly
    drawn time: the expectation is $\sum_n h_n c_n / (t_1 - t_0)$, the average along time whatever
    the steps.

    By default the step is the solver's own, with its own size and all its stages, and the
    derivative that of this step on the recorded grid, through the state that it starts from:
    nothing is evaluated besides. Any other option, and `diffrax.BacksolveAdjoint`, makes the step
    once more beside the solve, where JAX differentiates it: the evaluations of one step, whatever
    the solve's length (they are not in `stats`). A solve that stops before a drawn time costs 0.

    `step_size="initial"`, `first_stage="frozen"`, `through_state=False` is the published scheme.
    The first stage enters the error estimate with weights that only cancel if all stages move, so a
    frozen one makes the gradient many times too long and of another direction: it is here to be
    compared with.

    Each solve draws from `diffeqsolve(key=...)`: give it a new one for each update. All `OneStep`
    costs of one solve look at the same draw. Lanes of a `jax.vmap` draw alike unless the key is
    mapped over.

    Args:
        cost: the step cost.
        sample: `"time"` or `"step"`.
        step_size: `"solver"`: the solver's own step. `"initial"`: a step that begins at the drawn
            time (`sample="time"`) or where the drawn step begins, of the size that the controller
            would begin a solve with, but not beyond `t1`. Constant for the derivative.
        first_stage: `"recompute"`, or `"frozen"`: its derivative is left out. Explicit Runge-Kutta
            solvers only.
        through_state: whether the derivative goes on into the state that the step starts from.

    Under `BacksolveAdjoint` a first solve finds the step, one forward solve more, unless the time
    alone decides (`sample="time"`, `step_size="initial"`).

    Raises:
        ValueError: for another option; when solving, without a `key`.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 1.0, None, jnp.ones(2),
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4), key=jr.key(0),
            costs={"local": nk.OneStep(nk.StepError())},
        )
        ```

    Reference: Pal, Edelman and Rackauckas, ICML 2023, and their code. Vitter 1985 (a reservoir of
    one).
    """

    cost: AbstractStepCost
    sample: Literal["time", "step"] = eqx.field(static=True, default="time")
    step_size: Literal["solver", "initial"] = eqx.field(static=True, default="solver")
    first_stage: Literal["recompute", "frozen"] = eqx.field(static=True, default="recompute")
    through_state: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_cost("OneStep", self.cost)
        choices = {
            "sample": ("time", "step"),
            "step_size": ("solver", "initial"),
            "first_stage": ("recompute", "frozen"),
        }
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in allowed:
                first, second = allowed
                raise ValueError(f"`{name}` must be {first!r} or {second!r}, but got {value!r}.")

    @property
    def is_read_in_loop(self) -> bool:
        """Whether the step is one that the solver makes anyway."""
        recomputed = self.first_stage == "recompute"
        return self.step_size == "solver" and recomputed and self.through_state

    @property
    def draws_time(self) -> bool:
        """Whether the drawn time alone says where the step begins."""
        return self.sample == "time" and self.step_size == "initial"

    def init(self, surroundings: Surroundings) -> _Drawn:
        return _start(jnp.zeros((), surroundings.dtype), surroundings)

    def add(self, total: _Drawn, reading: Scalar, place: Place) -> _Drawn:
        return _draw(self.sample, total, reading, place)

    def read(self, total: _Drawn, num_accepted: Count) -> Scalar:
        return total.value

    def pull(self, total: _Drawn, num_accepted: Count, place: Place, ct: Scalar) -> Scalar:
        return ct * (place.number == total.at).astype(total.value.dtype)


class Beginning(eqx.Module):
    """Where a step begins and ends; times grow, also in a solve that runs backwards."""

    t0: Time
    t1: Time
    y0: State


class BeginningOfStep(AbstractPlacement):
    """Not a number, but where the step that `OneStep` draws begins, to make it once more."""

    cost: AbstractStepCost
    sample: Literal["time", "step"] = eqx.field(static=True)

    def reading(self, step: Step, name: str) -> Beginning:
        return Beginning(*lax.stop_gradient((step.t0, step.t1)), step.y0)

    def init(self, surroundings: Surroundings) -> _Drawn:
        time = jnp.zeros_like(surroundings.t0)
        return _start(Beginning(time, time, tree.zeros_like(surroundings.y0)), surroundings)

    def add(self, total: _Drawn, reading: Beginning, place: Place) -> _Drawn:
        return _draw(self.sample, total, reading, place)

    def read(self, total: _Drawn, num_accepted: Count) -> Beginning:
        return total.value

    def pull(self, total: _Drawn, num_accepted: Count, place: Place, ct: Beginning) -> Beginning:
        return tree.masked(place.number == total.at, ct)


def drawing_key(key: Any) -> Any:
    """A key of its own: costs draw from the solve's key itself.

    Raises:
        ValueError: without a key.
    """
    if key is None:
        raise ValueError("`OneStep` draws a step and needs a key. Pass `diffeqsolve(key=...)`.")
    return jr.fold_in(key, 1)


def readable_in_loop(placements: Mapping[str, Any]) -> dict[str, AbstractPlacement]:
    """The placements, if each can be read while the steps are made."""
    for name, placement in placements.items():
        beside = isinstance(placement, OneStep) and not placement.is_read_in_loop
        if beside or not isinstance(placement, AbstractPlacement):
            raise ValueError(
                f"The cost {name!r} is read beside the solve, not in it. Use "
                "`ndekit.diffeqsolve(costs=...)` instead of a `Recorder`."
            )
    return dict(placements)


def _start(value: Any, surroundings: Surroundings) -> _Drawn:
    zero = jnp.zeros((), surroundings.dtype)
    seed = jr.bits(drawing_key(surroundings.key), (), jnp.uint32)
    return _Drawn(value, jnp.array(-1), zero, seed)


def _draw(sample: str, total: _Drawn, reading: Any, place: Place) -> _Drawn:
    """A reservoir of one: the n-th step takes the place with the chance that is its share."""
    size = jnp.ones((), total.length.dtype)
    if sample == "time":
        size = jnp.asarray(place.t1 - place.t0).astype(total.length.dtype)
    length = total.length + jnp.where(place.accepted, size, 0)
    drawn = jr.uniform(jr.fold_in(jr.key(total.seed), place.number), (), length.dtype)
    take: Flag = place.accepted & ((total.at < 0) | (drawn * length < size))
    value = jax.tree.map(lambda new, old: jnp.where(take, new, old), reading, total.value)
    return _Drawn(value, jnp.where(take, place.number, total.at), length, total.seed)
