"""A predictor and a corrector in the logarithm of time, at one evaluation a step."""

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from diffrax import RESULTS

from ... import tree
from ...shapes import Args, Count, State, Time
from .adams import distance, in_powers, integrals, newton, weighted
from .evaluations import Evaluations
from .multistep import AbstractMultistep, Past, Start, rate_of


class UniPC(AbstractMultistep):
    r"""UniPC: an exponential Adams predictor, and a corrector that needs no further evaluation.

    The predictor is [`ndekit.ExponentialAB`][] of this order. The field is evaluated at what it
    predicts; a polynomial through this rate too corrects the step, and the next step goes on with
    the same rate. So the order is that of the predictor plus one, at one evaluation a step and one
    at the start. The error estimate is the difference of the two. As published
    ($B_2(h) = e^h - 1$), where one difference is known its weight is a half.

    Args:
        order: of the predictor, 1 to 4.
        corrector: without it there are no error estimates, and order 2 is DPM-Solver++(2M) if time
            is $\rho = a / m$.
        start: as for [`ndekit.VariableAB`][]; there are estimates with either.

    Raises:
        ValueError: if `order` is none of these.

    Times as for `ExponentialAB`.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        # Data N(0, 1) with noise sigma.
        noise = diffrax.ODETerm(lambda sigma, x, args: x * sigma / (1 + sigma**2))
        sol = nk.diffeqsolve(
            noise, nk.UniPC(2), 10.0, 0.01, None, jnp.array(10.0),
            stepsize_controller=diffrax.StepTo(jnp.geomspace(10.0, 0.01, 30)),
        )
        exact = 10.0 * jnp.sqrt((1 + 0.01**2) / (1 + 10.0**2))
        assert jnp.allclose(sol.ys[-1], exact, rtol=1e-2)
        ```

    Reference: Zhao et al. (2023), "UniPC: a unified predictor-corrector framework", arXiv
    2302.04867.
    """

    order_: int = eqx.field(static=True)
    corrector: bool = eqx.field(static=True)
    start: Start = eqx.field(static=True)
    logarithmic: ClassVar[bool] = True

    def __init__(self, order: int = 2, corrector: bool = True, start: Start = "euler"):
        self.order_, self.corrector, self.start = order, corrector, start

    def order(self, terms: Any) -> int:
        return self.order_ + self.corrector

    @property
    def evaluations(self) -> Evaluations:
        return Evaluations(1, 1 + self._evals_inside)

    def init(
        self, terms: Any, t0: Time, t1: Time, y0: State, args: Args
    ) -> tuple[State, Past]:  # fmt: skip
        t0, t1 = jnp.asarray(t0), jnp.asarray(t1)
        here = rate_of(terms, args, t0, y0)
        return here, self._remembered(terms, t0, t1, y0, args, here)

    def step(
        self, terms: Any, t0: Time, t1: Time, y0: State, args: Args,
        solver_state: tuple[State, Past], made_jump: Any,
    ) -> tuple:  # fmt: skip
        here, past = solver_state
        if made_jump is not False:
            here = jax.lax.cond(made_jump, lambda: rate_of(terms, args, t0, y0), lambda: here)
        known = jnp.where(made_jump, 0, past.number) + 1
        earlier = [distance(t0, t, True) for t in past.ts]
        # From 0 one may go on, but neither to it nor across.
        start, goes_on = jnp.zeros_like(t1 - t0), (t0 * t1 > 0) | (t0 == 0)
        end = distance(t0, jnp.where(goes_on, t1, t0), True)
        weights = self._weights(t0, t1, self.order_ + 1)
        moved = functools.partial(_moved, y0, weights, end)
        y1, coefficients = moved([start, *earlier], [here, *past.rates], known)
        ahead, error = rate_of(terms, args, t1, y1), None
        if self.corrector:
            predicted, rates = y1, [here, ahead, *past.rates]
            y1, coefficients = moved([start, end, *earlier], rates, known + 1)
            error = tree.subtract(y1, predicted)
        state = ahead, self._after(past, t0, t1, here, known)
        return y1, error, dict(y0=y0, coefficients=coefficients), state, RESULTS.successful


def _moved(
    y0: State, weights: Sequence[Time], end: Time, places: Sequence[Time], rates: Sequence[State],
    known: Count,
) -> tuple[State, list[State]]:  # fmt: skip
    """The end of a step along the polynomial through the `known` rates, and its coefficients."""
    differences = newton(places, rates, known)
    weights = weights[: len(rates)]
    parts = integrals(places, weights)
    if len(parts) > 1:
        parts[1] = jnp.where(known == 2, weights[0] * end / 2, parts[1])
    y1 = tree.add(y0, weighted(parts, differences))
    coefficients = in_powers(places, differences)
    # Where a weight is a half, what is between the ends is moved with the end.
    off = tree.subtract(y1, tree.add(y0, weighted(weights, coefficients)))
    share = 1 / jnp.where(weights[0] == 0, 1, weights[0])
    coefficients[0] = tree.add(coefficients[0], tree.multiply(share, off))
    return y1, coefficients
