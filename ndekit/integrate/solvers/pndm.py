"""The pseudo linear multistep methods of diffusion models, as they were published."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from diffrax import RESULTS

from ... import tree
from ...numbers import count
from ...shapes import Args, Count, State, Time
from .adams import weighted
from .evaluations import Evaluations
from .multistep import rate_of

# Adams-Bashforth's weights on equal steps, the latest rate first.
_WEIGHTS = {2: (3 / 2, -1 / 2), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


def middle(t0: Time, t1: Time) -> Time:
    return t0 + (t1 - t0) / 2


class Remembered(NamedTuple):
    """The rates at the starts of the last steps, the latest first, and how many there are."""

    rates: list[State]
    number: Count


class PNDM(diffrax.AbstractSolver):
    r"""S-PNDM and F-PNDM (PLMS): weights for equal steps, applied to steps of any lengths.

    $$y_1 = y_0 + (t_1 - t_0) \sum_i w_i f_i,$$

    with $f_i$ the rates at the starts of the last `order` steps and $w$ Adams-Bashforth's weights,
    $(3, -1) / 2$ or $(55, -59, 37, -9) / 24$. The first steps, one or three, are Runge-Kutta's with
    as many stages. In $\sigma$ this is the published "transfer", which is an exact step there. The
    samplers count steps in another time, in which steps are equal: where the middle of a step in
    that time is in the solver's is what `between` says.

    As the authors prove, the order is 2 for either, since the weights are not those of steps of
    different lengths: [`ndekit.VariableAB`][] has these. It is here for comparison. There are no
    error estimates. Under `jax.vmap` each step costs the evaluations of a first step, too.

    Args:
        order: 2 (S-PNDM) or 4 (F-PNDM): how many rates are combined.
        between: of two times the one that the inner stages of the first steps are at; their mean
            by default.

    Raises:
        ValueError: if `order` is neither.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), nk.PNDM(4), 0.0, 1.0, 0.05, jnp.ones(2),
        )
        assert jnp.allclose(sol.ys[-1], jnp.exp(-1.0), atol=1e-4)
        ```

    Reference: Liu et al. (2022), "Pseudo numerical methods for diffusion models on manifolds",
    arXiv 2202.09778, algorithm 2.
    """

    order_: int = eqx.field(static=True)
    between: Callable

    term_structure: ClassVar = diffrax.ODETerm
    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation

    def __init__(self, order: int = 4, between: Callable[[Time, Time], Time] = middle):
        if count("order", order) not in _WEIGHTS:
            raise ValueError(f"`order` must be 2 or 4, as published, got {order}.")
        self.order_, self.between = order, between

    @property
    def evaluations(self) -> Evaluations:
        return Evaluations(1, (self.order_ - 1) ** 2, self.order_ - 1)

    def order(self, terms: Any) -> int:
        return 2

    def func(self, terms: Any, t0: Time, y0: State, args: Args) -> State:
        return terms.vf(t0, y0, args)

    def init(self, terms: Any, t0: Time, t1: Time, y0: State, args: Args) -> Remembered:
        shapes = jax.eval_shape(lambda: rate_of(terms, args, jnp.asarray(t0), y0))
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return Remembered([nothing] * (self.order_ - 1), jnp.array(0))

    def step(
        self, terms: Any, t0: Time, t1: Time, y0: State, args: Args, solver_state: Remembered,
        made_jump: Any,
    ) -> tuple:  # fmt: skip
        before, number = solver_state
        number = jnp.where(made_jump, 0, number)
        field = functools.partial(rate_of, terms, args)
        here = field(t0, y0)
        rate = jax.lax.cond(
            number < self.order_ - 1,
            lambda: self._first(field, t0, t1, y0, here),
            lambda: weighted(_WEIGHTS[self.order_], [here, *before]),
        )
        y1 = tree.add(y0, tree.multiply(t1 - t0, rate))
        number = jnp.minimum(number + 1, self.order_ - 1).astype(solver_state.number.dtype)
        later = Remembered([here, *before][: self.order_ - 1], number)
        return y1, None, dict(y0=y0, y1=y1), later, RESULTS.successful

    def _first(self, field: Callable, t0: Time, t1: Time, y0: State, k1: State) -> State:
        """The mean rate of Heun's method, or of the classical one around `between`."""
        to = lambda t, k: tree.add(y0, tree.multiply(t - t0, k))
        if self.order_ == 2:
            return weighted([1 / 2, 1 / 2], [k1, field(t1, to(t1, k1))])
        inner = self.between(t0, t1)
        k2 = field(inner, to(inner, k1))
        k3 = field(inner, to(inner, k2))
        k4 = field(t1, to(t1, k3))
        return weighted([1 / 6, 1 / 3, 1 / 3, 1 / 6], [k1, k2, k3, k4])
