"""Solvers that remember the rates of the steps before: high order at one evaluation a step."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from diffrax import RESULTS

from ... import tree
from ...numbers import count
from ...shapes import Args, Count, Flag, State, Time
from .adams import (
    AdamsInterpolation,
    classical_step,
    distance,
    in_powers,
    integrals,
    moments,
    newton,
    weighted,
)
from .evaluations import Evaluations

Start = Literal["runge_kutta", "euler"]


class Past(eqx.Module):
    """What is remembered, the latest first.

    Attributes:
        ts: where steps began, or inside of the first step.
        rates: the field there.
        number: how many of them there are.
        ahead: whether the first step is still to be made.
    """

    ts: list[Time]
    rates: list[State]
    number: Count
    ahead: Flag


def rate_of(terms: Any, args: Args, t: Time, y: State) -> State:
    """By the time of the solver, which grows also where that of the field falls."""
    return terms.prod(terms.vf(t, y, args), terms.contr(jnp.zeros_like(t), jnp.ones_like(t)))


class AbstractMultistep(diffrax.AbstractSolver):
    """A solver of Adams' kind, for steps of any lengths."""

    order_: eqx.AbstractVar[int]
    start: eqx.AbstractVar[Start]
    logarithmic: eqx.AbstractClassVar[bool]

    term_structure: ClassVar = diffrax.ODETerm

    @property
    def interpolation_cls(self) -> Callable[..., diffrax.AbstractLocalInterpolation]:  # pyright: ignore
        return functools.partial(AdamsInterpolation, logarithmic=self.logarithmic)

    def __check_init__(self):
        if count("order", self.order_) > 4:
            raise ValueError(f"`order` must be 1, 2, 3 or 4, got {self.order_}.")
        if self.start not in get_args(Start):
            raise ValueError(f"`start` must be 'runge_kutta' or 'euler', got {self.start!r}.")

    def order(self, terms: Any) -> int:
        return self.order_

    def func(self, terms: Any, t0: Time, y0: State, args: Args) -> State:
        return terms.vf(t0, y0, args)

    def _weights(self, t0: Time, t1: Time, number: int) -> list[Time]:
        """The moments of a step. To 0, and across it, there is no logarithm: a step of Euler's."""
        if not self.logarithmic:
            return moments(t0, t1, number, False)
        has_log = t0 * t1 > 0
        found = moments(t0, jnp.where(has_log, t1, t0), number, True)
        return [t1 - t0, *[jnp.where(has_log, x, 0) for x in found[1:]]]

    def _remembered(
        self, terms: Any, t0: Time, t1: Time, y0: State, args: Args, here: State
    ) -> Past:
        """Before the first step: nothing, or what Runge-Kutta finds inside of it."""
        room = self.order_ - 1
        if self.start == "euler" or room == 0:
            return Past([t0] * room, [tree.zeros_like(here)] * room, jnp.array(0), jnp.array(True))
        ts, rates = self._inside(terms, t0, t1, y0, args, here)
        # Of a first attempt that is far too long nothing is left to go by.
        there = tree.all_finite(rates)
        rates = tree.masked(there, rates)
        return Past(ts[::-1], rates[::-1], jnp.where(there, room, 0), jnp.array(True))

    @property
    def _evals_inside(self) -> int:
        """Of the field, by Runge-Kutta inside of the first step."""
        return 0 if self.start == "euler" else 4 * (self.order_ - 1)

    def _inside(
        self, terms: Any, t0: Time, t1: Time, y0: State, args: Args, here: State
    ) -> tuple[list[Time], list[State]]:
        """Times inside of a step, and the field there."""
        parts, field = self.order_, functools.partial(rate_of, terms, args)
        ts, rates, y, last, rate = [], [], y0, t0, here
        has_log = t0 * t1 > 0
        ratio = jnp.where(has_log, t1, 1) / jnp.where(has_log, t0, 1)
        for i in range(1, parts):
            t = t0 + (t1 - t0) * (i / parts)
            if self.logarithmic:
                t = jnp.where(has_log, t0 * ratio ** (i / parts), t)
            y = classical_step(field, last, t, y, rate)
            last, rate = t, field(t, y)
            ts.append(t)
            rates.append(rate)
        return ts, rates

    def _after(self, past: Past, t0: Time, t1: Time, here: State, known: Count) -> Past:
        """What is remembered after a step, with the rate at its start."""
        room = len(past.ts)
        if room == 0:
            return past
        number = jnp.where(past.ahead, 1, jnp.minimum(known, room)).astype(past.number.dtype)
        later = Past([t0, *past.ts][:room], [here, *past.rates][:room], number, jnp.array(False))
        # Times inside of the first step lie behind its start; unless it was cut, before its end.
        inside = past.ahead & (past.number > 0) & (past.ts[0] < t1)
        kept = eqx.tree_at(lambda past: past.ahead, past, jnp.array(False))
        return tree.where(inside, kept, later)


class AbstractAdams(AbstractMultistep):
    @property
    def evaluations(self) -> Evaluations:
        return Evaluations(1, int(self.start == "runge_kutta") + self._evals_inside)

    def init(self, terms: Any, t0: Time, t1: Time, y0: State, args: Args) -> Past:
        t0, t1 = jnp.asarray(t0), jnp.asarray(t1)
        if self.start == "euler":
            here = tree.zeros_like(jax.eval_shape(lambda: rate_of(terms, args, t0, y0)))
        else:
            here = rate_of(terms, args, t0, y0)
        return self._remembered(terms, t0, t1, y0, args, here)

    def step(
        self, terms: Any, t0: Time, t1: Time, y0: State, args: Args, solver_state: Past,
        made_jump: Any,
    ) -> tuple:  # fmt: skip
        past, here = solver_state, rate_of(terms, args, t0, y0)
        known = jnp.where(made_jump, 0, past.number) + 1
        rates = [here, *past.rates]
        places = [jnp.zeros_like(t1 - t0)]
        places += [distance(t0, t, self.logarithmic) for t in past.ts]
        weights = self._weights(t0, t1, self.order_)
        differences, parts = newton(places, rates, known), integrals(places, weights)
        y1 = tree.add(y0, weighted(parts, differences))
        error = None
        if self.start == "runge_kutta" and self.order_ > 1:
            last = [jnp.where(known == i + 1, part, 0) for i, part in enumerate(parts)]
            error = weighted(last, differences)
        info = dict(y0=y0, coefficients=in_powers(places, differences))
        return y1, error, info, self._after(past, t0, t1, here, known), RESULTS.successful


class VariableAB(AbstractAdams):
    r"""Adams-Bashforth of order 1 to 4 on any grid: one evaluation a step.

    $$y_1 = y_0 + \int_{t_0}^{t_1} P(t)\, dt,$$

    with $P$ the polynomial through the rates at the start of this step and of the last
    `order - 1`. On equal steps the weights are the known ones: $(3, -1)/2$, $(23, -16, 5)/12$,
    $(55, -59, 37, -9)/24$.

    Args:
        order: 1 (Euler's method) to 4.
        start: where the first step takes its rates from. `"runge_kutta"`: the classical method
            finds them inside of the step, for `1 + 4 (order - 1)` more evaluations; all steps are
            then of the full order. From order 2 on there are error estimates (the last term of the
            sum), so that steps may be adaptive. `"euler"`: nowhere: the first steps are of orders
            1, 2, ... and nothing else is evaluated, as in samplers of diffusion models; there are
            no estimates.

    Raises:
        ValueError: if `order` or `start` is none of these.

    Explicit multistep methods are stable for small steps alone: not for stiff problems.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        sol = nk.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), nk.VariableAB(4), 0.0, 1.0, 0.02, jnp.ones(2),
        )
        assert jnp.allclose(sol.ys[-1], jnp.exp(-1.0), atol=1e-5)
        ```

    Reference: Hairer, Nørsett and Wanner (1993), *Solving ordinary differential equations I*,
    section III.5.
    """

    order_: int = eqx.field(static=True)
    start: Start = eqx.field(static=True)
    logarithmic: ClassVar[bool] = False

    def __init__(self, order: int = 4, start: Start = "runge_kutta"):
        self.order_, self.start = order, start


class ExponentialAB(AbstractAdams):
    r"""Adams-Bashforth in the logarithm of time: the exponential multistep method of samplers.

    $$y_1 = y_0 + \int_{t_0}^{t_1} P(\log |t|)\, dt,$$

    with $P$ the polynomial through the last rates by $\log |t|$, integrated exactly. For equations
    whose time is a scale: $dX/d\sigma = \epsilon(X, \sigma)$ with $\sigma$ decreasing, or
    $dY/d\rho = \hat x_1(Y, \rho)$ with $\rho = 1 / \sigma$ increasing. Order 1 is DDIM in either.
    Times must have one sign; a step that ends at 0 is one of Euler's.

    Of order 2 it differs from DPM-Solver++(2M), of the same order, in one weight, that of the
    difference of the last rates; [`ndekit.UniPC`][] without its corrector has theirs.

    Args:
        order, start: as for [`ndekit.VariableAB`][].

    Raises:
        ValueError: if `order` or `start` is none of these.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        # Data of one point, 2: the noise is a constant along each solution.
        noise = diffrax.ODETerm(lambda sigma, x, args: (x - 2.0) / sigma)
        sol = nk.diffeqsolve(
            noise, nk.ExponentialAB(2, "euler"), 10.0, 0.01, None, jnp.array(7.0),
            stepsize_controller=diffrax.StepTo(jnp.geomspace(10.0, 0.01, 5)),
        )
        assert jnp.allclose(sol.ys[-1], 2.0 + 5.0 * 1e-3)
        ```

    References: Lu et al. (2022), "DPM-Solver++", arXiv 2211.01095; Zhang and Chen (2022), arXiv
    2204.13902.
    """

    order_: int = eqx.field(static=True)
    start: Start = eqx.field(static=True)
    logarithmic: ClassVar[bool] = True

    def __init__(self, order: int = 3, start: Start = "runge_kutta"):
        self.order_, self.start = order, start
