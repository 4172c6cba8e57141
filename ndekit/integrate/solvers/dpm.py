"""Exponential Runge-Kutta steps in the logarithm of time: the single-step solvers of samplers."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax.numpy as jnp
from diffrax import RESULTS

from ... import tree
from ...numbers import count
from ...shapes import Args, State, Time
from .adams import AdamsInterpolation, distance, moments, weighted
from .evaluations import Evaluations
from .multistep import rate_of


class DPMSolver(diffrax.AbstractSolver):
    r"""DPM-Solver-2 and DPM-Solver-3: exponential Runge-Kutta in the logarithm of time.

    For equations whose time is a scale. Of $dX/d\sigma = \epsilon(X, \sigma)$ with $\sigma$
    decreasing this is DPM-Solver, of $dY/d\rho = \hat x_1(Y, \rho)$ with $\rho = 1 / \sigma$
    increasing it is DPM-Solver++(2S) and (3S). With $f_0$ the rate at the start, of order 2

    $$y_1 = y_0 + (t_1 - t_0)\, f(\sqrt{t_0 t_1},\ y_0 + (\sqrt{t_0 t_1} - t_0) f_0),$$

    the midpoint rule at the geometric mean; of order 3 the nodes are at one and two thirds of the
    logarithm, and rates are taken to be linear in it. A step evaluates the field `order` times. The
    error estimate is the difference from the method of the order below, as in DPM-Solver-12
    and -23. Times must have one sign; a step that ends at 0 is one of Euler's.

    Args:
        order: 2 or 3.

    Raises:
        ValueError: if `order` is neither.

    Example:
        ```python
        import diffrax, jax.numpy as jnp, ndekit as nk

        # Data N(0, 1) with noise sigma.
        noise = diffrax.ODETerm(lambda sigma, x, args: x * sigma / (1 + sigma**2))
        sol = nk.diffeqsolve(
            noise, nk.DPMSolver(3), 10.0, 0.01, None, jnp.array(10.0),
            stepsize_controller=diffrax.StepTo(jnp.geomspace(10.0, 0.01, 20)),
        )
        exact = 10.0 * jnp.sqrt((1 + 0.01**2) / (1 + 10.0**2))
        assert jnp.allclose(sol.ys[-1], exact, rtol=1e-2)
        ```

    References: Lu et al. (2022), "DPM-Solver", arXiv 2206.00927, algorithms 1 and 2, and
    "DPM-Solver++", arXiv 2211.01095.
    """

    order_: int = eqx.field(static=True)

    term_structure: ClassVar = diffrax.ODETerm

    def __init__(self, order: int = 2):
        if count("order", order) not in (2, 3):
            raise ValueError(
                f"`order` must be 2 or 3, got {order}. Order 1 is DDIM: `diffrax.Euler()`."
            )
        self.order_ = order

    @property
    def interpolation_cls(self) -> Callable[..., diffrax.AbstractLocalInterpolation]:  # pyright: ignore
        return functools.partial(AdamsInterpolation, logarithmic=True)

    @property
    def evaluations(self) -> Evaluations:
        return Evaluations(self.order_)

    def order(self, terms: Any) -> int:
        return self.order_

    def func(self, terms: Any, t0: Time, y0: State, args: Args) -> State:
        return terms.vf(t0, y0, args)

    def init(self, terms: Any, t0: Time, t1: Time, y0: State, args: Args) -> None:
        return None

    def step(
        self, terms: Any, t0: Time, t1: Time, y0: State, args: Args, solver_state: None,
        made_jump: Any,
    ) -> tuple:  # fmt: skip
        field, still = functools.partial(rate_of, terms, args), tree.zeros_like(y0)
        has_log = t0 * t1 > 0
        ratio = jnp.where(has_log, t1, t0) / jnp.where(has_log, t0, 1)
        along = functools.partial(_along, y0, t0, has_log)
        here = field(t0, y0)

        def slope_to(share: float, slope: State) -> State:
            """By the logarithm, from the start to a node that is reached by another slope."""
            t = jnp.where(has_log, t0 * ratio**share, t0)
            gap = jnp.where(has_log, distance(t0, t, True), 1)
            off = tree.subtract(field(t, along(t, here, slope)), here)
            return tree.masked(has_log, tree.multiply(1 / gap, off))

        # To 0, and across it, there is no logarithm, and no slope: a step of Euler's.
        if self.order_ == 2:
            slope, lower = slope_to(1 / 2, still), along(t1, here, still)
            y1 = _by_mean(y0, t0, t1, has_log, here, slope)
        else:
            first = slope_to(1 / 3, still)
            slope = slope_to(2 / 3, first)
            y1, lower = along(t1, here, slope), _by_mean(y0, t0, t1, has_log, here, first)
        # What is between the ends is moved with the end.
        off = tree.subtract(y1, along(t1, here, slope))
        share = 1 / jnp.where(t1 == t0, 1, t1 - t0)
        coefficients = [tree.add(here, tree.multiply(share, off)), slope]
        info = dict(y0=y0, coefficients=coefficients)
        return y1, tree.subtract(y1, lower), info, None, RESULTS.successful


def _along(y0: State, t0: Time, has_log: Any, t: Time, here: State, slope: State) -> State:
    """By rates that are linear in the logarithm."""
    second = moments(t0, jnp.where(has_log, t, t0), 2, True)[1]
    return tree.add(y0, weighted([t - t0, jnp.where(has_log, second, 0)], [here, slope]))


def _by_mean(y0: State, t0: Time, t1: Time, has_log: Any, here: State, slope: State) -> State:
    """By the rate at the middle of the logarithm."""
    middle = jnp.where(has_log, distance(t0, jnp.where(has_log, t1, t0), True) / 2, 0)
    return tree.add(y0, weighted([t1 - t0, (t1 - t0) * middle], [here, slope]))
