"""A placement that reads one step of a solve, drawn at random."""

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr

from ..shapes import Count, Flag, Scalar
from .costs import AbstractPlacement, AbstractStepCost, Place, Surroundings
from .placements import check_cost


class _Pick(eqx.Module):
    value: Scalar
    at: Count  # the number of the step picked so far
    length: Scalar  # of the accepted steps so far, or how many
    seed: Any


class OneStep(AbstractPlacement):
    r"""A step cost at one of the accepted steps, picked at random while the solve goes on.

    With `sample="step"` each of the $N$ steps is as likely as any other: the expectation is
    $\frac1N \sum_n c_n$. With `sample="time"` it is the step that holds a uniformly drawn time: the
    expectation is $\sum_n h_n c_n / (t_1 - t_0)$, the average along time whatever the steps.

    The step is the solver's own, with its own size and all its stages, and its derivative that of
    this step on the recorded grid, through the state it starts from: nothing is evaluated
    besides. The same steps are drawn again from the same `diffeqsolve(key=...)`; give it a new one
    for each update. Lanes of a `jax.vmap` draw alike unless the key is mapped over.

    Args:
        cost: the step cost.
        sample: `"time"` or `"step"`.

    Raises:
        ValueError: for another `sample`; when solving, without a `key`.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, jax.random as jr, ndekit as nk

        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), diffrax.Tsit5(), 0.0, 1.0, None, jnp.ones(2),
            stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4), key=jr.key(0),
            costs={"local": nk.OneStep(nk.StepError())},
        )
        ```

    Reference: after Pal, Edelman and Rackauckas, ICML 2023, whose local step is a new one of the
    automatic initial size with its first stage held constant; this is not that scheme. Vitter 1985
    (a reservoir of one).
    """

    cost: AbstractStepCost
    sample: Literal["time", "step"] = eqx.field(static=True, default="time")

    def __check_init__(self):
        check_cost("OneStep", self.cost)
        if self.sample not in ("time", "step"):
            raise ValueError(f"`sample` must be 'time' or 'step', but got {self.sample!r}.")

    def init(self, surroundings: Surroundings) -> _Pick:
        if surroundings.key is None:
            raise ValueError("`OneStep` draws a step and needs a key. Pass `diffeqsolve(key=...)`.")
        zero = jnp.zeros((), surroundings.dtype)
        own_key = jr.fold_in(surroundings.key, 1)  # costs draw from the key itself
        return _Pick(zero, jnp.array(-1), zero, jr.bits(own_key, (), jnp.uint32))

    def add(self, total: _Pick, reading: Scalar, place: Place) -> _Pick:
        size = jnp.ones((), total.length.dtype)
        if self.sample == "time":
            size = jnp.asarray(place.t1 - place.t0).astype(total.length.dtype)
        length = total.length + jnp.where(place.accepted, size, 0)
        drawn = jr.uniform(jr.fold_in(jr.key(total.seed), place.number), (), length.dtype)
        take: Flag = place.accepted & ((total.at < 0) | (drawn * length < size))
        value = jnp.where(take, reading, total.value)
        return _Pick(value, jnp.where(take, place.number, total.at), length, total.seed)

    def read(self, total: _Pick, num_accepted: Count) -> Scalar:
        return total.value

    def pull(self, total: _Pick, num_accepted: Count, place: Place, ct: Scalar) -> Scalar:
        return ct * (place.number == total.at).astype(total.value.dtype)
